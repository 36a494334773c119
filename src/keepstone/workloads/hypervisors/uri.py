# SPDX-License-Identifier: Apache-2.0
"""Which libvirt is meant (libvirt, uri.html): one of this machine, for its disks are read here."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from keepstone.errors import UsageError

__all__ = ["SYSTEM", "check_uri"]

SYSTEM = "qemu:///system"


def check_uri(uri: str) -> None:
    """`UsageError` for another one than `qemu:///system` and `qemu:///session`, either with `?socket=PATH`."""
    wrong = UsageError(f"{uri!r} is no libvirt of this machine; give qemu:///system or qemu:///session, with "
                       "?socket=PATH where it listens elsewhere")  # fmt: skip
    try:
        parts = urlsplit(uri)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise wrong from error
    if (parts.scheme, parts.netloc, parts.fragment) != ("qemu", "", "") or parts.path not in ("/system", "/session"):
        raise wrong
    if [name for name, _ in query] not in ([], ["socket"]) or not all(path.startswith("/") for _, path in query):
        raise wrong
