# SPDX-License-Identifier: Apache-2.0
"""The files that pages load: scripts, styles, icons. Each has a part of its hash in its address, so a browser keeps it
for good; it is sent compressed."""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from importlib.resources import files

from keepstone.errors import NotFound
from keepstone.portal.speech import _

__all__ = ["TYPES", "address", "asset"]

TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def address(name: str) -> str:
    """Where a file is, behind the portal's prefix."""
    return f"/static/{sha256(_bytes(name)).hexdigest()[:16]}/{name}"


@cache
def asset(path: str) -> tuple[bytes, str]:
    """The file at such an address, compressed, and its type. `NotFound`, also for an older one."""
    name = path.rpartition("/")[2]
    known = {entry.name for entry in files("keepstone.portal").joinpath("static").iterdir()}
    kind = TYPES.get(name.rpartition(".")[2])
    if kind is None or name not in known or path != address(name):
        raise NotFound(_("there is no file %(name)s; load the page again", name=name))
    return gzip.compress(_bytes(name), 9, mtime=0), kind


def _bytes(name: str) -> bytes:
    return files("keepstone.portal").joinpath("static", name).read_bytes()
