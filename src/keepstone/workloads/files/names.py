# SPDX-License-Identifier: Apache-2.0
"""Names in a manifest: what a directory may hold, and how people get to see it.

A manifest comes out of a store, and whoever could forge it must not get outside of a restore's target with it. So a
name is one component: never empty, `.` or `..`, no slash, no NUL; and the names of a directory rise strictly, so that
none comes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import lt

from keepstone.errors import CorruptObject, HostileName
from keepstone.store import PointRecord

__all__ = ["check_names", "describe", "shown"]

_DIRECTIONS = {b"", b".", b".."}


def shown(path: bytes) -> str:
    """A path for people: what is not printable, or not UTF-8, is escaped, so that no name can play with a terminal."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def describe(point: PointRecord) -> str:
    """A point for people."""
    finished = datetime.fromtimestamp(point.finished / 1e9, UTC)
    return f"the point of {point.item!r} of {finished:%Y-%m-%d %H:%M:%S} UTC"


def check_names(names: Sequence[bytes], after: bytes, directory: bytes, point: PointRecord) -> None:
    """Check the names of a page that follows the name `after` (empty: none) in this directory.

    `HostileName` names point and entry.
    """
    if not names:
        return
    if after < names[0] and all(map(lt, names, names[1:])) and _DIRECTIONS.isdisjoint(names):
        joined = b"".join(names)
        if b"/" not in joined and b"\0" not in joined:
            return
    for name in names:
        if name in _DIRECTIONS or b"/" in name or b"\0" in name:
            reason = "that is no name of a file"
        elif name <= after:
            reason = "names come twice or out of order there"
        else:
            after = name
            continue
        raise HostileName(
            f"{describe(point)} has an entry {shown(name)!r} in the directory {shown(directory or b'.')!r}: {reason}. "
            "The point is forged or damaged; run `keepstone store verify`, and restore another one"
        )
    raise CorruptObject("unreachable")  # pragma: no cover - the quick and the slow check agree
