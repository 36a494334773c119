# SPDX-License-Identifier: Apache-2.0
"""`keepstone store ls`: what is in a directory of a recovery point."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import escaped, text
from keepstone.cli.store.entries import facts, line, paths

if TYPE_CHECKING:
    from keepstone.env import Env
    from keepstone.store import LocalReader
    from keepstone.workloads.files import Entry, Tree

__all__ = ["ls"]

_AT_A_TIME = 4096


@store_command(name="ls")
@click.argument("name", metavar="POINT")
@click.argument("path", required=False, default="", metavar="[PATH]")
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def ls(console: Console, opening: Opening, name: str, path: str, item: str | None) -> int:
    """List what is in POINT, or at PATH in it, without restoring anything.

    Of a directory what is in it, of anything else the entry itself; of a disk its image as `mount` shows it.
    """
    from keepstone.cli.store.points import FILES

    store = opening.store()
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    with store.reader(point) as reader:
        found = (
            _entries(console, store.context.env, reader, path) if point.record.kind == FILES else _disk(reader, path)
        )
        shown: list[dict[str, Any]] = []
        for where, entry in found:
            known = {**facts(where, entry), **_more(entry)}
            if console.json:
                shown.append(known)
            else:
                console.line(line(known) + (f" -> {known['target']}" if "target" in known else ""))
    console.result({"point": point.id, "item": point.record.item, "entries": shown})
    return console.ending()


def _entries(console: Console, env: Env, reader: LocalReader, given: str) -> Iterator[tuple[bytes, Entry]]:
    from keepstone.workloads.chunks import ChunkCache
    from keepstone.workloads.files import Tree

    with ChunkCache(env, reader) as chunks:
        tree = Tree(reader, chunks)
        path, entry = _chosen(tree, paths(reader.point, given))
        if not stat.S_ISDIR(entry.mode):
            yield path, entry
            return
        after = b""
        while True:
            page = tree.listing(
                path,
                after=after,
                limit=_AT_A_TIME,
                lost=lambda where, error: console.warn(f"a part of it is left out: {error}", escaped(where or b".")),
            )
            for entry in page:
                yield (path + b"/" + entry.name if path else entry.name), entry
            if len(page) < _AT_A_TIME:
                return
            after = page[-1].name


def _chosen(tree: Tree, meant: list[bytes]) -> tuple[bytes, Entry]:
    """The first of these paths that names something."""
    from keepstone.errors import NotFound

    for path in meant[:-1]:
        try:
            return path.strip(b"/"), tree.look(path)
        except NotFound:
            continue
    return meant[-1].strip(b"/"), tree.look(meant[-1])


def _disk(reader: LocalReader, given: str) -> Iterator[tuple[bytes, Entry]]:
    from keepstone.mount import DISK, disk_entry, is_disk

    is_disk(os.fsencode(given))
    yield DISK, disk_entry(reader)


def _more(entry: Entry) -> dict[str, Any]:
    """What only some entries have."""
    extra = entry.extra
    more: dict[str, Any] = {}
    if stat.S_ISLNK(entry.mode):
        more["target"] = escaped(extra.target)
    if extra.xattrs:
        more["xattrs"] = [escaped(name) for name in extra.xattrs]
    if extra.flags:
        more["doubtful"] = True
    return more
