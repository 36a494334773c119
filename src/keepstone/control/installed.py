# SPDX-License-Identifier: Apache-2.0
"""What the service itself is: where its data lies and how much room there is, what holds its keys, how long its
certificate lasts, and its release."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

from cryptography import x509

import keepstone
from keepstone.control.plane import Plane
from keepstone.errors import GuardRefused
from keepstone.files import read_file

__all__ = ["DEMO", "Installed", "look"]

DEMO = "store"
"""The folder of the program that is offered for a first try: it is everywhere, small, and has a page to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """`free`, `size`: bytes of the file system that the data is on. `demo`: a folder for a first try; empty where the
    service may not read it. `begins`, `ends`: of its certificate; None where it has none of its own."""

    folder: str
    free: int
    size: int
    database: str
    release: str
    demo: str
    begins: datetime | None
    ends: datetime | None


def look(plane: Plane) -> Installed:
    """As it is now."""
    room = plane.env.fs.statvfs(plane.root)
    begins, ends = _certificate(plane)
    demo = str(files("keepstone").joinpath(DEMO))
    try:
        plane.reach.check(demo)
    except GuardRefused:
        demo = ""
    return Installed(
        folder=os.fspath(plane.root),
        free=room.f_bavail * room.f_frsize,
        size=room.f_blocks * room.f_frsize,
        database="SQLite, in the same folder" if plane.database.is_sqlite else "PostgreSQL",
        release=keepstone.__version__,
        demo=demo,
        begins=begins,
        ends=ends,
    )


def _certificate(plane: Plane) -> tuple[datetime | None, datetime | None]:
    try:
        found = x509.load_pem_x509_certificate(read_file(plane.env.fs, plane.root / "tls" / "server.pem"))
    except (OSError, ValueError):  # it did not listen yet
        return None, None
    return found.not_valid_before_utc, found.not_valid_after_utc
