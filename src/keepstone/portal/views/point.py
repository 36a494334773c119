# SPDX-License-Identifier: Apache-2.0
"""A recovery point: what it is, what can be done with it, and what is in it."""

from __future__ import annotations

from keepstone.errors import KeepstoneError, Unauthorized
from keepstone.portal.actions.restores import offered
from keepstone.portal.api import Document, Request
from keepstone.portal.parts import part_of
from keepstone.portal.places import Name, named
from keepstone.portal.rendering import at
from keepstone.portal.visit import Answer, Download, Page, Views, Visit

__all__ = ["views"]

views = Views()
_IMAGE = "disk.img"


@views("GET", "/point")
def point(visit: Visit) -> Answer:
    """`NotFound`. What of it cannot be looked into is said in the place of its files."""
    name = named(visit, "point")
    item, found = visit.client.get(name.item_id), visit.client.get(name.id)
    files, unseen, may_look = None, "", True
    try:
        files = _files(visit, name)
    except KeepstoneError as error:
        unseen, may_look = str(error), not isinstance(error, Unauthorized)
    shown = {
        "point": found,
        "item": item,
        "name": name,
        "files": files,
        "unseen": unseen,
        "may_look": may_look,
        "inside": visit.text("path"),
        "pattern": visit.text("find"),
        "before": _before(visit, name) if files is not None else None,
        "actions": offered(visit, item, found),
        "can_restore": visit.client.allows(Request("POST", f"{name.id}/restore")),
    }
    return Page("point.html", shown)


@views("GET", "/download")
def download(visit: Visit) -> Answer:
    """A file of a point as it is, or a folder as a `format`, tar or zip."""
    name = named(visit, "point")
    wanted = {"path": visit.text("path"), "format": visit.text("format")}
    query = {key: value for key, value in wanted.items() if value}
    return Download(visit.client.send(Request("GET", f"{name.id}/content", query=query)))


def _files(visit: Visit, name: Name) -> Document:
    """What is in it at the path that was given, or beneath that what a pattern matches."""
    path, pattern, place = visit.text("path"), visit.text("find"), visit.text("from")
    if pattern:
        found, rows, following = part_of(visit, f"{name.id}/search", place, {"path": path, "pattern": pattern})
        damage = found.get("incomplete", "")
        return {"rows": rows, "following": following, "incomplete": damage, "folder": False, "disks": False}
    found, rows, following = part_of(visit, f"{name.id}/entries", place, {"path": path})
    entry = found["entry"]
    is_folder = at(entry, "properties.kind") == "directory"
    return {
        "rows": rows if is_folder else [entry],
        "following": following,
        "incomplete": found.get("incomplete", ""),
        "folder": is_folder and not _is_disk(found, path),
        "disks": _has_disks(found, path),
    }


def _is_disk(listing: Document, path: str) -> bool:
    """Whether this is a disk or several, which are no folder that an archive can have."""
    if listing["kind"] != "disk":
        return False
    return not path or any(one["name"] == _IMAGE for one in listing["value"])


def _has_disks(listing: Document, path: str) -> bool:
    """Whether what is in it are the disks of a machine."""
    return bool(listing["kind"] == "disk" and not path and not any(one["name"] == _IMAGE for one in listing["value"]))


def _before(visit: Visit, name: Name) -> str | None:
    """The name of the point that was made before this one, where it is easily found."""
    try:
        points, _ = visit.client.page(f"{name.item_id}/recoveryPoints")
    except KeepstoneError:
        return None
    names = [one["name"] for one in points]
    try:
        return str(names[names.index(name.point) + 1])
    except (IndexError, ValueError):
        return None
