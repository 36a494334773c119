# SPDX-License-Identifier: Apache-2.0
"""`keepstone store diff`: where two recovery points differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import escaped, size

if TYPE_CHECKING:
    from keepstone.store import LocalReader

__all__ = ["diff"]

_SIGNS = {"added": "+", "removed": "-", "content": "M", "metadata": "m", "type": "T"}


@store_command(name="diff")
@click.argument("before", metavar="POINT")
@click.argument("after", metavar="POINT")
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def diff(console: Console, opening: Opening, before: str, after: str, item: str | None) -> None:
    """Show what leads from the first POINT to the second.

    Of files: + added, - removed, M content, m metadata only, T another type. Of disks: the ranges of bytes that differ.
    """
    from keepstone.cli.store.points import FILES
    from keepstone.errors import UsageError

    store = opening.store()
    points = [store.points.find(name, deleted=True, item=item) for name in (before, after)]
    kinds = [point.record.kind for point in points]
    if kinds[0] != kinds[1]:
        raise UsageError(f"one point is of {kinds[0]}, the other of {kinds[1]}; choose two of one kind")
    with store.reader(points[0]) as one, store.reader(points[1]) as other:
        changes, lines = _files(one, other) if kinds[0] == FILES else _images(one, other)
    result = {"before": points[0].id, "after": points[1].id, "kind": kinds[0], "changes": changes}
    console.result(result, [*lines, *(["no difference"] if not changes else [])])


def _files(before: LocalReader, after: LocalReader) -> tuple[list[dict[str, Any]], list[str]]:
    from keepstone.workloads import files

    changes: list[dict[str, Any]] = []
    lines: list[str] = []
    counts: Counter[str] = Counter()
    for change in files.diff(before, after):
        kind = str(change.difference)
        counts[kind] += 1
        sizes = {
            name: entry.size
            for name, entry in (("size_before", change.before), ("size_after", change.after))
            if entry is not None
        }
        changes.append({"path": escaped(change.path), "difference": kind, **sizes})
        lines.append(f"{_SIGNS.get(kind, '?')} {escaped(change.path)}")
    if counts:
        lines.append(", ".join(f"{count:,} {kind}" for kind, count in counts.items()))
    return changes, lines


def _images(before: LocalReader, after: LocalReader) -> tuple[list[dict[str, Any]], list[str]]:
    from keepstone.workloads.images import diff_images

    ranges = list(diff_images(before, after))
    changes: list[dict[str, Any]] = [{"offset": piece.start, "length": len(piece)} for piece in ranges]
    lines = [f"{piece.start:>16,}  {size(len(piece))}" for piece in ranges]
    if ranges:
        lines.append(f"{size(sum(map(len, ranges)))} in {len(ranges):,} ranges")
    return changes, lines
