# SPDX-License-Identifier: Apache-2.0
"""A recovery point for programs and for people, and what several commands do with points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keepstone.cli.console import Console
from keepstone.cli.render import escaped, safe, size, table, when

if TYPE_CHECKING:
    from keepstone.store import Point, Store

__all__ = ["FILES", "IMAGES", "facts", "purge_deleted", "rows"]

FILES = "files"
IMAGES = "images"


def facts(point: Point) -> dict[str, Any]:
    """Everything that its record says, but the root of its manifest."""
    record = point.record
    return {
        "id": point.id,
        "short": point.short,
        "item": record.item,
        "kind": record.kind,
        "host": record.host,
        "source": escaped(record.source),
        "started": when(record.started),
        "finished": when(record.finished),
        "logical_bytes": record.logical,
        "read_bytes": record.read,
        "new_bytes": record.added,
        "stored_bytes": record.stored,
        "files": record.files,
        "warnings": record.warnings,
        "parent": record.parent,
        "tags": record.tags,
        "locked_until": when(record.lock_until) if record.lock_until else None,
        "deleted_until": when(point.deleted_until) if point.deleted_until is not None else None,
    }


def rows(points: Sequence[Point]) -> list[str]:
    """A table of points; nothing where there are none."""
    cells = []
    for point in points:
        record = point.record
        notes = [safe(tag) for tag in record.tags]
        if record.warnings:
            notes.append(f"{record.warnings:,} warnings")
        if record.lock_until:
            notes.append(f"locked until {when(record.lock_until)}")
        if point.deleted_until is not None:
            notes.append(f"deleted, until {when(point.deleted_until)}")
        sizes = (size(record.logical), size(record.stored))
        cells.append((point.short, when(record.finished), record.kind, *sizes, safe(record.item), ", ".join(notes)))
    return table(cells, ("point", "finished", "kind", "size", "stored", "item", "")) if cells else []


def purge_deleted(console: Console, store: Store) -> list[str]:
    """Remove every deleted point that is not locked, whatever its date; their ids."""
    from keepstone.errors import GuardRefused

    purged = []
    for point in store.points.list(deleted=True, damaged=[]):
        if point.deleted_until is not None:
            try:
                store.points.purge(point, now=True)
            except GuardRefused as error:
                console.warn(str(error))
            else:
                purged.append(point.id)
    return purged
