# SPDX-License-Identifier: Apache-2.0
"""`keepstone store forget` and `undelete`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import safe, text, when
from keepstone.cli.store.points import facts

if TYPE_CHECKING:
    from keepstone.store import Point, Store

__all__ = ["forget", "undelete"]

_COUNT = click.IntRange(0)


@store_command(name="forget")
@click.argument("names", nargs=-1, metavar="[POINT]...")
@click.option("--keep-last", type=_COUNT, metavar="N", help="Keep the N newest points of each item.")
@click.option("--keep-daily", type=_COUNT, metavar="N", help="Keep the newest point of each of N days (UTC).")
@click.option("--keep-weekly", type=_COUNT, metavar="N", help="The same by weeks, from Monday.")
@click.option("--keep-monthly", type=_COUNT, metavar="N", help="The same by months.")
@click.option("--keep-yearly", type=_COUNT, metavar="N", help="The same by years.")
@click.option("--item", metavar="NAME", help="Only the points of this item.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--purge", is_flag=True, help="Delete for ever, so that it cannot be taken back.")
@click.option("--lost", is_flag=True, help="Give up points for ever whose files in `commits` are gone or damaged.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before --purge and --lost.")
def forget(
    console: Console,
    opening: Opening,
    names: tuple[str, ...],
    item: str | None,
    dry_run: bool,
    purge: bool,
    lost: bool,
    yes: bool,
    **keep: int | None,
) -> int:
    """Delete these recovery points, or all that no rule of retention keeps.

    They can be taken back by `undelete` for as many days as the store says. `keepstone store reclaim` gives their space
    back after that.

    With --lost, points are given up that are no more to be had: it is entered in the store's log that they were purged,
    so that verify misses them no longer, and reclaim gives back what only they needed. Until then their data is kept,
    for the file may come back from a copy of the store.
    """
    from keepstone.errors import UsageError

    counts = {name.removeprefix("keep_"): count for name, count in keep.items() if count is not None}
    if bool(names) == bool(counts):
        raise UsageError("give either recovery points, or rules of retention such as --keep-daily 7")
    if lost and (not names or purge or item):
        raise UsageError("--lost goes with recovery points alone; name those that `keepstone store verify` misses")
    store = opening.store()
    if lost:
        return _give_up(console, store, names, dry_run, yes)
    reasons: dict[str, list[str]] = {}
    if names:
        points = [store.points.find(name, deleted=purge, item=item) for name in dict.fromkeys(names)]
    else:
        points, reasons = _by_rule(store, item, counts)
    if purge and points and not dry_run:
        console.confirm(f"Remove {len(points)} recovery points for ever?", yes)
    until = {}
    if not dry_run:
        for point in points:
            if purge:
                store.points.purge(point, now=True)
            else:
                until[point.id] = when(store.points.forget(point))
            console.detail.setdefault("deleted", []).append(point.id)
    _tell(console, points, reasons, until, dry_run, purge)
    return console.ending()


def _give_up(console: Console, store: Store, names: tuple[str, ...], dry_run: bool, yes: bool) -> int:
    """`forget --lost`."""
    commits = list(dict.fromkeys(store.points.find_lost(name) for name in names))
    if not dry_run:
        console.confirm(f"Give up {len(commits)} lost recovery points for ever?", yes)
        for commit in commits:
            store.points.give_up(commit)
            console.detail.setdefault("given_up", []).append(commit)
    verb = "would be given up" if dry_run else "given up for ever"
    console.result({"given_up": commits, "dry_run": dry_run}, [f"{commit}  {verb}" for commit in commits])
    return console.ending()


def _by_rule(store: Store, item: str | None, counts: dict[str, int]) -> tuple[list[Point], dict[str, list[str]]]:
    """(what no rule keeps, by which rules the others are kept)."""
    from keepstone.errors import PointNotFound
    from keepstone.store.retention import Retention, Stamp, retained

    item = None if item is None else text(item)
    points = [point for point in store.points.list() if item in (None, point.record.item)]
    if item is not None and not points:
        raise PointNotFound(f"no recovery point of item {item!r}; `keepstone store list` shows the items")
    stamps = [Stamp(point.id, point.record.item, point.record.finished) for point in points]
    kept = retained(stamps, Retention(**counts))
    return [point for point in points if point.id not in kept], kept


def _tell(
    console: Console,
    points: list[Point],
    reasons: dict[str, list[str]],
    until: dict[str, str],
    dry_run: bool,
    purge: bool,
) -> None:
    deleted = [facts(point) | ({"deleted_until": until[point.id]} if point.id in until else {}) for point in points]
    verb = ("would be " if dry_run else "") + ("purged" if purge else "deleted")
    lines = [
        f"{point.short}  {when(point.record.finished)}  {safe(point.record.item)}  {verb}"
        + (f", can be taken back until {until[point.id]}" if point.id in until else "")
        for point in points
    ]
    lines.append(f"{len(points)} {verb}" + (f", {len(reasons)} kept" if reasons else ""))
    console.result({"deleted": deleted, "kept": reasons, "purged": purge, "dry_run": dry_run}, lines)


@store_command(name="undelete")
@click.argument("names", nargs=-1, required=True, metavar="POINT...")
def undelete(console: Console, opening: Opening, names: tuple[str, ...]) -> None:
    """Take the deletion of these recovery points back."""
    from keepstone.errors import UsageError

    store = opening.store()
    points = [store.points.find(name, deleted=True) for name in dict.fromkeys(names)]
    for point in points:
        if point.deleted_until is None:
            raise UsageError(f"recovery point {point.short} is not deleted; there is nothing to take back")
    for point in points:
        store.points.undelete(point)
    console.result(
        {"undeleted": [point.id for point in points]},
        [f"{point.short}  {when(point.record.finished)}  {safe(point.record.item)}  is back" for point in points],
    )
