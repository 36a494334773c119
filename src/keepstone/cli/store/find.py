# SPDX-License-Identifier: Apache-2.0
"""`keepstone store find`: in which recovery points a file is, and its versions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import escaped, safe, table, text, when
from keepstone.cli.store.entries import facts, line

if TYPE_CHECKING:
    from keepstone.errors import KeepstoneError
    from keepstone.store import Point, Store
    from keepstone.workloads.guestfiles.finding import Finder, Match

__all__ = ["find"]

_NOT_FOUND = 3


@store_command(name="find")
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@click.option("--item", metavar="NAME", help="Only in the points of this item.")
@click.option("--point", "chosen", metavar="POINT", help="Only in this point, which may be a deleted one.")
@click.option("--versions", is_flag=True, help="Each version once, with the points from which and until which it is.")
def find(
    console: Console, opening: Opening, patterns: tuple[str, ...], item: str | None, chosen: str | None, versions: bool
) -> int:
    """Find the entries that one of these patterns matches, newest point first.

    A pattern is a name, in which * ? and [ ] stand for others; with a slash in it, it is a path from the source.
    Paths are shown as `restore` takes them, on one line: a backslash is doubled, and what cannot be printed is escaped.
    Into disks it looks with --item or --point: that takes seconds for each point, but for a path without * ? and [ ],
    and for volumes that did not change. Two versions of a path differ in size, time or content. Nothing found: exit
    code 3.
    """
    store = opening.store()
    points = _points(console, store, None if item is None else text(item), chosen)
    wanted = [os.fsencode(pattern) for pattern in patterns]
    found = _versions(console, store, points, wanted) if versions else _entries(console, store, points, wanted)
    name = "versions" if versions else "found"
    console.result({name: found}, [] if found else ["nothing found"])
    return console.ending() or (0 if found else _NOT_FOUND)


def _points(console: Console, store: Store, item: str | None, chosen: str | None) -> list[Point]:
    """Those that are searched, oldest first."""
    from keepstone.cli.store.points import FILES

    if chosen:
        return [store.points.find(chosen, deleted=True, item=item)]
    damaged: list[tuple[str, KeepstoneError]] = []
    points = store.points.list(damaged=damaged)
    for _, damage in damaged:
        console.warn(str(damage))
    if item is None:
        return [point for point in points if point.record.kind == FILES]
    return [point for point in points if point.record.item == item]


def _entries(console: Console, store: Store, points: list[Point], wanted: list[bytes]) -> list[dict[str, Any]]:
    """What is in the points, the newest first; people see it at once."""
    found: list[dict[str, Any]] = []
    finders: dict[str, Finder] = {}
    for point in reversed(points):
        shown = False
        for match in _matches(console, store, point, wanted, finders):
            if not console.json and not shown:
                click.echo(f"{point.short}  {when(point.record.finished)}  {safe(point.record.item)}")
            shown = True
            found.append({"point": point.id, "item": point.record.item, **facts(match.path, match.entry)})
            if not console.json:
                click.echo(f"  {line(found[-1])}")
    return found


def _versions(console: Console, store: Store, points: list[Point], wanted: list[bytes]) -> list[dict[str, Any]]:
    """The versions of what is in the points, by item and path, each from its first point on."""
    from keepstone.workloads.files.versions import Versions

    known: Versions[dict[str, Any], Point] = Versions()
    finders: dict[str, Finder] = {}
    for point in points:
        item = point.record.item
        for match in _matches(console, store, point, wanted, finders):
            about = {"item": item, **facts(match.path, match.entry)}
            known.add((item, escaped(match.path)), match.version, about, point)
    found = [{**one.about, "from": _end(one.first), "until": _end(one.last), "points": one.points} for one in known]
    if not console.json:
        for item in dict.fromkeys(one["item"] for one in found):
            click.echo(safe(item))
            for row in table((_row(one) for one in found if one["item"] == item), _HEADING):
                console.line("  " + row)
    return found


def _matches(
    console: Console, store: Store, point: Point, wanted: list[bytes], finders: dict[str, Finder]
) -> Iterator[Match]:
    from keepstone.errors import CorruptObject, ObjectMissing
    from keepstone.workloads.guestfiles.finding import Finder
    from keepstone.workloads.guestfiles.tree import tree_of

    finder = finders.setdefault(point.record.item, Finder(wanted))

    def lost(path: bytes, error: KeepstoneError) -> None:
        console.warn(f"a part of recovery point {point.short} cannot be searched: {error}", escaped(path or b"."))

    try:
        with store.reader(point) as reader, tree_of(store.context.env, reader) as tree:
            yield from finder.matches(tree, lost)
    except (CorruptObject, ObjectMissing) as error:
        console.warn(f"recovery point {point.short} cannot be searched to its end: {error}")


_HEADING = ("size", "modified", "from", "", "until", "", "points", "path")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    ends = [one[name][key] for name in ("from", "until") for key in ("short", "finished")]
    return f"{one['size']:,}", one["modified"], *ends, f"{one['points']:,}", one["path"]


def _end(point: Point) -> dict[str, Any]:
    return {"point": point.id, "short": point.short, "finished": when(point.record.finished)}
