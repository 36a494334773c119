# SPDX-License-Identifier: Apache-2.0
"""`keepstone store ls`: what is in a directory of a recovery point."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import escaped, safe, size, text
from keepstone.cli.store.entries import facts, line, paths

if TYPE_CHECKING:
    from keepstone.store import PointRecord
    from keepstone.workloads.files import Entry, Tree
    from keepstone.workloads.guestfiles import Volume

__all__ = ["ls"]

_AT_A_TIME = 4096


@store_command(name="ls")
@click.argument("name", metavar="POINT")
@click.argument("path", required=False, default="", metavar="[PATH]")
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def ls(console: Console, opening: Opening, name: str, path: str, item: str | None) -> int:
    """List what is in POINT, or at PATH in it, without restoring anything.

    Of a directory what is in it, of anything else the entry itself. A disk is its image and a folder for each of its
    volumes that can be read, of a machine there is a folder for each disk.
    """
    from keepstone.workloads.guestfiles.tree import tree_of

    store = opening.store()
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    with store.reader(point) as reader, tree_of(store.context.env, reader) as tree:
        shown: list[dict[str, Any]] = []
        volumes: dict[bytes, Volume] = {}
        for where, entry in _entries(console, tree, reader.point, path, volumes):
            known = {**facts(where, entry), **_more(entry)}
            if where in volumes:
                known["volume"] = _volume(volumes[where])
            if console.json:
                shown.append(known)
            else:
                console.line(line(known) + (f" -> {known['target']}" if "target" in known else "") + _about(known))
        unread = [_volume(volume) for volume in volumes.values() if not volume.is_readable]
        for one in unread:
            console.say(f"volume {_described(one)}")
    result: dict[str, Any] = {"point": point.id, "item": point.record.item, "entries": shown}
    console.result(result | ({"other_volumes": unread} if unread else {}))
    return console.ending()


def _entries(
    console: Console, tree: Tree, point: PointRecord, given: str, volumes: dict[bytes, Volume]
) -> Iterator[tuple[bytes, Entry]]:
    """(path, entry); `volumes` gets those that are in this directory, by the paths that they have or would have."""
    from keepstone.workloads.guestfiles.reader import IMAGE, GuestReader

    path, entry = _chosen(tree, paths(point, given))
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
        if isinstance(tree.reader, GuestReader) and not after:
            if path in tree.reader.damage:
                console.warn(f"what is on it cannot be told: {tree.reader.damage[path]}", escaped(path or b"."))
            elif any(entry.name == IMAGE for entry in page) and path in tree.reader.disks:
                prefix = path + b"/" if path else b""
                volumes.update((prefix + one.name.encode(), one) for one in tree.reader.volumes(path))
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


def _volume(volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "partition": volume.number,
        "offset": volume.offset,
        "size": volume.size,
        "filesystem": volume.filesystem,
        "label": volume.label,
        **({"note": volume.note} if volume.note else {}),
    }


def _described(known: dict[str, Any]) -> str:
    """A volume for people."""
    parts = [known["filesystem"] or "no known file system", f'"{known["label"]}"' if known["label"] else "",
             size(known["size"]), known.get("note", "")]  # fmt: skip
    return safe(f"{known['name']}: {', '.join(part for part in parts if part)}")


def _about(known: dict[str, Any]) -> str:
    return f"  ({_described(known['volume']).partition(': ')[2]})" if "volume" in known else ""
