# SPDX-License-Identifier: Apache-2.0
"""`keepstone store list` and `show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import path_text, safe, size, table, text
from keepstone.cli.store.machines import MACHINES, machine_facts, machine_lines
from keepstone.cli.store.points import FILES, facts, rows

if TYPE_CHECKING:
    from keepstone.errors import KeepstoneError
    from keepstone.store import Point, Store

__all__ = ["list_points", "show"]

_SHOWN = 100  # lines for people


@store_command(name="list")
@click.option("--item", metavar="NAME", help="Only the points of this item.")
@click.option("--tag", metavar="TAG", help="Only the points with this tag.")
@click.option("--deleted", is_flag=True, help="Also those that were deleted and can still be taken back.")
def list_points(console: Console, opening: Opening, item: str | None, tag: str | None, deleted: bool) -> int:
    """List the recovery points, oldest first."""
    damaged: list[tuple[str, KeepstoneError]] = []
    item = None if item is None else text(item)
    points = [
        point
        for point in opening.store().points.list(deleted=deleted, damaged=damaged)
        if item in (None, point.record.item) and (tag is None or tag in point.record.tags)
    ]
    for _, error in damaged:
        console.warn(str(error))
    console.result({"points": [facts(point) for point in points]}, rows(points) or ["no recovery points"])
    return console.ending()


@store_command(name="show")
@click.argument("name", metavar="POINT")
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def show(console: Console, opening: Opening, name: str, item: str | None) -> None:
    """Show what is known of POINT, and which of its files could not be read, or changed meanwhile.

    `keepstone store find` shows what is in it.
    """
    store = opening.store()
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    known = facts(point)
    doubtful = _doubtful(store, point) if point.record.warnings and point.record.kind == FILES else []
    rows = [(key.replace("_", " ") + ":", _text(key, value)) for key, value in known.items() if value]
    shown = [f"{safe(entry['path'])}  {entry['why']}" for entry in doubtful[:_SHOWN]]
    if len(doubtful) > _SHOWN:
        shown.append(f"and {len(doubtful) - _SHOWN:,} more; --json has all of them")
    result: dict[str, Any] = {"point": known, "doubtful": doubtful}
    if point.record.kind == MACHINES:
        with store.reader(point) as reader:
            result["machine"] = machine_facts(reader)
        shown += machine_lines(result["machine"])
    console.result(result, [*table(rows), *shown])


def _doubtful(store: Store, point: Point) -> list[dict[str, str]]:
    """The files of which the point does not have what they were. What was gone before it was read is none of them."""
    from keepstone.workloads import files

    with store.reader(point) as reader:
        return [
            {
                "path": path_text(path),
                "why": "could not be read" if flags & files.UNREADABLE else "changed while it was read",
            }
            for path, flags in files.doubtful(reader)
        ]


def _text(name: str, value: Any) -> str:
    if isinstance(value, int):
        return size(value) if name.endswith("bytes") else f"{value:,}"
    return safe(", ".join(value) if isinstance(value, list) else str(value))
