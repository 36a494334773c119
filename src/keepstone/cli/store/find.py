# SPDX-License-Identifier: Apache-2.0
"""`keepstone store find`: in which recovery points a file is."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import safe, text, when
from keepstone.cli.store.entries import facts, line

if TYPE_CHECKING:
    from keepstone.errors import KeepstoneError
    from keepstone.store import Reader

__all__ = ["find"]


@store_command(name="find")
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@click.option("--item", metavar="NAME", help="Only in the points of this item.")
@click.option("--point", "chosen", metavar="POINT", help="Only in this point, which may be a deleted one.")
def find(console: Console, opening: Opening, patterns: tuple[str, ...], item: str | None, chosen: str | None) -> int:
    """Find the entries that one of these patterns matches, newest point first.

    A pattern is a name, in which * ? and [ ] stand for others; with a slash in it, it is a path from the source.
    Paths are shown as `restore` takes them, on one line: a backslash is doubled, and what cannot be printed is escaped.
    Into disks it looks with --item or --point: that takes seconds for each point. Nothing found: exit code 3.
    """
    from keepstone.cli.store.points import FILES
    from keepstone.errors import CorruptObject, ObjectMissing
    from keepstone.workloads import files

    store = opening.store()
    item = None if item is None else text(item)
    damaged: list[tuple[str, KeepstoneError]] = []
    if chosen:
        points = [store.points.find(chosen, deleted=True, item=item)]
    else:
        points = store.points.list(damaged=damaged)[::-1]
    for _, damage in damaged:
        console.warn(str(damage))
    wanted = [os.fsencode(pattern) for pattern in patterns]
    found: list[dict[str, Any]] = []
    for point in points:
        is_disk = point.record.kind != FILES
        if (is_disk and not (chosen or item)) or item not in (None, point.record.item):
            continue
        shown = False
        try:
            with store.reader(point) as opened, ExitStack() as stack:
                reader: Reader = opened
                if is_disk:
                    from keepstone.workloads.guestfiles.tree import guest_reader

                    reader = stack.enter_context(guest_reader(store.context.env, opened))
                for path, entry in files.find(reader, wanted):
                    if not console.json and not shown:
                        click.echo(f"{point.short}  {when(point.record.finished)}  {safe(point.record.item)}")
                    shown = True
                    found.append({"point": point.id, "item": point.record.item, **facts(path, entry)})
                    if not console.json:
                        click.echo(f"  {line(found[-1])}")
        except (CorruptObject, ObjectMissing) as error:
            console.warn(f"recovery point {point.short} cannot be searched to its end: {error}")
    console.result({"found": found}, [] if found else ["nothing found"])
    return console.ending() or (0 if found else _NOT_FOUND)


_NOT_FOUND = 3
