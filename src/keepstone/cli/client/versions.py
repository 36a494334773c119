# SPDX-License-Identifier: Apache-2.0
"""`keepstone find` and `diff`: over the points of items, through the service."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at, count, moment
from keepstone.cli.client.session import container_option, item_command, vault_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["diff", "find"]

Document = dict[str, Any]
_NOT_FOUND = 3
_SIGNS = {"added": "+", "removed": "-", "content": "M", "metadata": "m", "type": "T"}
_ITEM = Column("item", "item")
_SIZE = Column("size", "properties.size", count)
_MODIFIED = Column("modified", "properties.modified", moment)
_PATH = Column("path", "properties.path")
_FOUND = (
    _ITEM,
    Column("point", "properties.recoveryPoint"),
    Column("made", "properties.recoveryPointTime", moment),
    _SIZE,
    _MODIFIED,
    _PATH,
)
_VERSIONS = (
    _ITEM,
    _SIZE,
    _MODIFIED,
    Column("from", "from.recoveryPointTime", moment),
    Column("until", "until.recoveryPointTime", moment),
    Column("points", "points", count),
    Column("last point", "until.recoveryPoint"),
    _PATH,
)


def _side(name: str) -> Column:
    return Column(f"size {name}", f"properties.{name}.size", count)


_CHANGES = (
    Column("", lambda one: _SIGNS.get(str(at(one, "properties.difference")), "?")),
    _side("before"),
    _side("after"),
    _PATH,
)


@vault_command(name="find")
@click.argument("pattern")
@container_option
@click.option(
    "--item-name",
    "--item",
    "-i",
    "item",
    metavar="NAME",
    help="Only in points of this item: its path, its machine, or its name [default: all items].",
)
@click.option("--versions", is_flag=True, help="Each version once, with the points from which and until which it is.")
def find(session: Session, vault: str, pattern: str, container: str | None, item: str | None, versions: bool) -> int:
    """Find what PATTERN matches in all points of an item, or of all items, the newest point first.

    A pattern is a name, in which * ? and [ ] stand for others; with a slash in it, it is a path from the source, which
    begins with the volume on a disk, and with the disk on a machine: 1/etc/fstab, vda/1/etc/fstab. Two versions of a
    path differ in size, time or content. Nothing found: exit code 3.
    """
    from keepstone.cli.client.finding import find_item
    from keepstone.errors import NotFound, Unsupported, WrongKey

    found: list[Document] = []
    if item is not None:
        found += _hits(session, find_item(session, vault, item, container), pattern)
    else:
        for one in session.arm.every(f"{vault}/backupProtectedItems", {"containerName": container}):
            try:
                found += _hits(session, one, pattern)
            except (NotFound, Unsupported, WrongKey) as error:  # the others can be searched
                session.console.warn(f"{_friendly(one)} is left out: {error}")
    if versions:
        session.show(_versions(found), _VERSIONS, "nothing found")
    else:
        session.show(found, _FOUND, "nothing found")
    return session.console.ending() or (0 if found else _NOT_FOUND)


@item_command(name="diff")
@click.argument("before", metavar="POINT")
@click.argument("after", metavar="POINT")
@click.option("--path", default="", metavar="PATH", help="Only what is at PATH and beneath it, as `browse` shows it.")
def diff(session: Session, vault: str, item: Document, before: str, after: str, path: str) -> int:
    """Show which files lead from the first POINT of an item to the second.

    + added, - removed, M content, m metadata only, T another type. On disks these are the files in their file systems,
    by size, time and inode, and the disks themselves. `latest` is the newest point.
    """
    from keepstone.cli.client.finding import find_point

    one, other = find_point(session, item, before), find_point(session, item, after)
    query = {"from": one["name"], "path": path}
    found = list(_pages(session, f"{other['id']}/diff", query))
    session.show(found, _CHANGES, "no difference")
    counts = Counter(str(at(change, "properties.difference")) for change in found)
    if counts:
        session.tell(", ".join(f"{number:,} {kind}" for kind, number in counts.items()))
    return session.console.ending()


def _friendly(item: Document) -> str:
    return str(at(item, "properties.friendlyName") or item["name"])


def _hits(session: Session, item: Document, pattern: str) -> Iterator[Document]:
    """What is found in one item."""
    from keepstone.workloads.escaping import escaped

    for one in _pages(session, f"{item['id']}/find", {"pattern": escaped(os.fsencode(pattern))}):
        yield {"item": _friendly(item), **one}


def _pages(session: Session, address: str, query: Mapping[str, str]) -> Iterator[Document]:
    """The entries of all pages; what is missing is a warning."""
    first = session.arm.get(address, query)
    told = set[str]()
    for page in (first, *session.arm.rest(first)):
        if page.get("incomplete") and page["incomplete"] not in told:
            told.add(page["incomplete"])
            session.console.warn(page["incomplete"])
        yield from page["value"]


def _versions(found: list[Document]) -> list[Document]:
    """Each version of each path, the oldest first. `found`: of each item the newest first."""
    from keepstone.workloads.files.versions import Versions

    known: Versions[Document, Document] = Versions()
    for one in reversed(found):
        properties = one["properties"]
        point = {key: value for key, value in properties.items() if key.startswith("recoveryPoint")}
        about = {key: value for key, value in properties.items() if key not in point}
        entry = {"item": one["item"], "name": one["name"], "properties": about}
        known.add((one["item"], properties["path"]), properties["version"], entry, point)
    return [{**one.about, "from": one.first, "until": one.last, "points": one.points} for one in known]
