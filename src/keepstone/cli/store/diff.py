# SPDX-License-Identifier: Apache-2.0
"""`keepstone store diff`: where two recovery points differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import escaped, safe, size
from keepstone.cli.store.entries import paths

if TYPE_CHECKING:
    from keepstone.env import Env
    from keepstone.errors import KeepstoneError
    from keepstone.store import LocalReader
    from keepstone.workloads.files.diff import Compared

__all__ = ["diff"]

_SIGNS = {"added": "+", "removed": "-", "content": "M", "metadata": "m", "type": "T"}


@store_command(name="diff")
@click.argument("before", metavar="POINT")
@click.argument("after", metavar="POINT")
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
@click.option("--path", default="", metavar="PATH", help="Only what is at PATH and beneath it, as `ls` shows it.")
@click.option(
    "--content", is_flag=True, help="On disks: compare the bytes of files, not sizes, times and inodes alone."
)
@click.option("--blocks", is_flag=True, help="Of disks: the ranges of bytes that differ, instead of the files.")
def diff(
    console: Console,
    opening: Opening,
    before: str,
    after: str,
    item: str | None,
    path: str,
    content: bool,
    blocks: bool,
) -> int:
    """Show what leads from the first POINT to the second.

    + added, - removed, M content, m metadata only, T another type. Of disks these are the files in their file systems,
    and the disks themselves. A volume that is stored in the same chunks in both is not looked at; on any other each
    directory is read, and with --content each file that has the same size in both.
    """
    from keepstone.cli.store.points import FILES
    from keepstone.errors import UsageError

    store = opening.store()
    points = [store.points.find(name, deleted=True, item=item) for name in (before, after)]
    kinds = [point.record.kind for point in points]
    if kinds[0] != kinds[1]:
        raise UsageError(f"one point is of {kinds[0]}, the other of {kinds[1]}; choose two of one kind")
    if blocks and (kinds[0] == FILES or path or content):
        raise UsageError("--blocks is of disks, without --path and --content; leave it out")
    with store.reader(points[0]) as one, store.reader(points[1]) as other:
        if blocks:
            changes, lines = _blocks(one, other)
        else:
            compared = _compared(console, store.context.env, one, other, paths(one.point, path)[0], content)
            changes, lines = _files(console, compared)
    result = {"before": points[0].id, "after": points[1].id, "kind": kinds[0], "changes": changes}
    console.result(result, [*lines, *(["no difference"] if not changes else [])])
    return console.ending()


def _compared(
    console: Console, env: Env, before: LocalReader, after: LocalReader, path: bytes, content: bool
) -> Iterator[Compared]:
    """What is compared of two points of one kind."""
    from keepstone.cli.store.points import FILES
    from keepstone.workloads.files.diff import StoredSide, compare
    from keepstone.workloads.guestfiles.diff import diff_guests
    from keepstone.workloads.guestfiles.tree import guest_reader

    if before.point.kind == FILES:
        yield from compare(StoredSide(before), StoredSide(after), path)
        return

    def lost(path: bytes, error: KeepstoneError) -> None:
        console.warn(f"it is not compared, or not all of it: {error}", escaped(path or b"."))

    with guest_reader(env, before) as one, guest_reader(env, after) as other:
        yield from diff_guests(one, other, path, content=content, lost=lost)


def _files(console: Console, compared: Iterator[Compared]) -> tuple[list[dict[str, Any]], list[str]]:
    """The changes, which people see as soon as they are known, and what is said behind them."""
    changes: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for _, change in compared:
        if change is None:
            continue
        kind = str(change.difference)
        counts[kind] += 1
        sizes = {
            name: entry.size
            for name, entry in (("size_before", change.before), ("size_after", change.after))
            if entry is not None
        }
        changes.append({"path": escaped(change.path), "difference": kind, **sizes})
        if not console.json:
            console.line(f"{_SIGNS.get(kind, '?')} {escaped(change.path)}")
    return changes, [", ".join(f"{count:,} {kind}" for kind, count in counts.items())] if counts else []


def _blocks(before: LocalReader, after: LocalReader) -> tuple[list[dict[str, Any]], list[str]]:
    """Of each disk that both have."""
    from keepstone.workloads.guestfiles.tree import disks_of
    from keepstone.workloads.images import diff_images

    changes: list[dict[str, Any]] = []
    lines: list[str] = []
    others = disks_of(after)
    for name, disk in disks_of(before).items():
        if name not in others:
            continue
        named = {"disk": name.decode()} if name else {}
        ranges = list(diff_images(disk, others[name]))
        changes += [{**named, "offset": piece.start, "length": len(piece)} for piece in ranges]
        lines += [f"{piece.start:>16,}  {size(len(piece))}" for piece in ranges]
        if ranges:
            of = f" of {safe(name.decode())}" if name else ""
            lines.append(f"{size(sum(map(len, ranges)))} in {len(ranges):,} ranges{of}")
    return changes, lines
