# SPDX-License-Identifier: Apache-2.0
"""`keepstone store restore`."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.progress import Meter, metered
from keepstone.cli.render import duration, lines_of, plain, safe, size
from keepstone.cli.store.points import FILES

if TYPE_CHECKING:
    from keepstone.env import Env
    from keepstone.store import LocalReader, Point, PointRecord

__all__ = ["restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the command line says."""

    target: Path | None
    in_place: bool
    conflict: str | None
    delete: bool
    compare_content: bool
    numeric_ids: bool
    plain: bool


@store_command(name="restore")
@click.argument("name", metavar="POINT")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--target", type=click.Path(path_type=Path), metavar="TARGET",
              help="Where to: a folder for files, a file or block device for a disk.")  # fmt: skip
@click.option("--in-place", is_flag=True,
              help="TARGET may hold something already; only what differs is written [default TARGET: the source].")  # fmt: skip
@click.option("--tar", metavar="FILE", help="Write a tar stream to FILE, or to the standard output with `-`.")
@click.option("--overwrite", "conflict", flag_value="overwrite",
              help="Replace what is there and differs: the default in place.")  # fmt: skip
@click.option("--skip", "conflict", flag_value="skip", help="Leave what is there and differs.")
@click.option("--keep-both", "conflict", flag_value="keep-both", help="Restore beside what is there and differs.")
@click.option("--delete", is_flag=True, help="Remove what is in restored folders and not in the point.")
@click.option("--compare-content", is_flag=True, help="Also compare the content of files of equal size and time.")
@click.option("--numeric-ids", is_flag=True, help="Restore owners by number, not by name.")
@click.option("--no-attributes", is_flag=True,
              help="Restore no extended attributes, ACLs, capabilities, setuid bits and devices.")  # fmt: skip
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def restore(
    console: Console,
    opening: Opening,
    name: str,
    paths: tuple[str, ...],
    target: Path | None,
    in_place: bool,
    tar: str | None,
    conflict: str | None,
    delete: bool,
    compare_content: bool,
    numeric_ids: bool,
    no_attributes: bool,
    item: str | None,
) -> int:
    """Restore POINT, or with PATH... only these parts of it, as `find` shows them.

    Nothing is overwritten without --in-place, or an option that says what to do with what is there.
    """
    from keepstone.errors import UsageError

    if tar is not None and (target is not None or in_place or conflict or delete):
        raise UsageError("--tar writes a stream; it takes no target and none of the options for one")
    if tar is None and target is None and not in_place:
        raise UsageError("where to? give --target, --in-place or --tar")
    store = opening.store()
    point = store.points.find(name, item=item)
    wanted = _Wanted(
        target=target,
        in_place=in_place or (conflict is not None and point.record.kind == FILES) or delete or compare_content,
        conflict=conflict,
        delete=delete,
        compare_content=compare_content,
        numeric_ids=numeric_ids,
        plain=no_attributes,
    )
    chosen = [_within(point.record, path) for path in paths]
    with store.reader(point) as reader, metered(console, "restore") as meter:
        env = store.context.env
        if point.record.kind != FILES:
            result, lines = _image(env, reader, point, wanted, meter, streamed=tar is not None or bool(paths))
        elif tar is not None:
            result, lines = _tar(console, reader, chosen, tar, meter)
        else:
            result, lines = _files(env, reader, point, chosen, wanted, meter)
    result = {"point": point.id, "item": point.record.item, **result, "seconds": round(meter.seconds, 3)}
    lines = [*lines, f"{size(meter.done)} in {duration(meter.seconds)}, {size(meter.rate)}/s"]
    if tar == "-":
        for line in lines:
            console.say(line)
    else:
        console.result(result, lines)
    return console.ending()


def _within(record: PointRecord, path: str) -> bytes:
    """A path as the point has it; one that begins with the source's own is taken as well."""
    given = os.fsencode(path)
    source = record.source.rstrip(b"/") + b"/"
    return given[len(source) :] if given.startswith(source) else given.lstrip(b"/")
