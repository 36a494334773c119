# SPDX-License-Identifier: Apache-2.0
"""An entry of a point for programs and for people, and paths as people give them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from keepstone.cli.render import escaped, unescaped, when

if TYPE_CHECKING:
    from keepstone.store import PointRecord
    from keepstone.workloads.files import Entry

__all__ = ["facts", "line", "paths"]


def facts(path: bytes, entry: Entry) -> dict[str, Any]:
    """What is known of an entry without its content."""
    return {
        "path": escaped(path),
        "kind": entry.kind,
        "mode": stat.filemode(entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "modified": when(entry.mtime),
    }


def line(facts: dict[str, Any]) -> str:
    """The same in a line."""
    return f"{facts['mode']}  {facts['size']:>14,}  {facts['modified']}  {facts['path']}"


def paths(record: PointRecord, given: str) -> list[bytes]:
    """The paths beneath the source that somebody may mean, the likeliest first: as `find` shows it, then as it is."""
    shown, plain = _within(record, unescaped(given)), _within(record, os.fsencode(given))
    return [shown] if shown == plain else [shown, plain]


def _within(record: PointRecord, given: bytes) -> bytes:
    """A path beneath the source; one that begins with the source's own is taken as well."""
    source = record.source.rstrip(b"/") + b"/"
    return given[len(source) :] if (given + b"/").startswith(source) else given
