# SPDX-License-Identifier: Apache-2.0
"""Two points of an item: which files were added, changed and deleted in between, and what changed in a small text."""

from __future__ import annotations

from collections.abc import Iterable

from keepstone.errors import KeepstoneError, NotFound
from keepstone.portal.api import Document, Request
from keepstone.portal.parts import part_of
from keepstone.portal.places import Name, named
from keepstone.portal.speech import _
from keepstone.portal.textdiff import LARGEST, Line, lines_between
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/diff")
def diff(visit: Visit) -> Answer:
    """What leads from the point of the name `before` to the point `id`, at `path` and beneath it."""
    name, path = named(visit, "point"), visit.text("path")
    item = visit.client.get(name.item_id)
    points, _ = visit.client.page(f"{name.item_id}/recoveryPoints")
    after = visit.text("after") or name.point
    before = visit.text("before") or _older(points, after)
    shown: Document = {
        "item": item,
        "name": name,
        "points": points,
        "after": after,
        "before": before,
        "path_": path,
        "folders": {},
        "counts": {},
        "following": "",
        "incomplete": "",
        "unseen": "",
        "lines": None,
        "no_lines": "",
    }
    if not before:
        return Page("diff.html", shown)
    address = f"{name.item_id}/recoveryPoints/{after}"
    try:
        found, rows, following = part_of(visit, f"{address}/diff", visit.text("from"), {"from": before, "path": path})
    except KeepstoneError as error:
        return Page("diff.html", shown | {"unseen": str(error)})
    shown |= {"folders": _by_folder(rows), "counts": _counts(found["value"]), "following": following}
    shown["incomplete"] = found.get("incomplete", "")
    if [one["properties"]["path"] for one in found["value"]] == [path]:
        shown |= _text(visit, name, before, after, found["value"][0]["properties"])
    return Page("diff.html", shown)


def _older(points: Iterable[Document], after: str) -> str:
    """The name of the point that was made before this one."""
    names = [str(one["name"]) for one in points]
    behind = names[names.index(after) + 1 :] if after in names else names
    return behind[0] if behind else ""


def _by_folder(rows: Iterable[Document]) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for one in rows:
        found.setdefault(one["properties"]["path"].rpartition("/")[0], []).append(one)
    return found


def _counts(rows: Iterable[Document]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in rows:
        kind = one["properties"]["difference"]
        found[kind] = found.get(kind, 0) + 1
    return found


def _text(visit: Visit, name: Name, before: str, after: str, change: Document) -> Document:
    """The lines that are different in a file; or why they are not shown."""
    sides = [(before, change["before"]), (after, change["after"])]
    if any(side is not None and side["kind"] != "file" for point, side in sides):
        return {}
    if any(side is not None and side["size"] > LARGEST for point, side in sides):
        return {"no_lines": _("Only texts up to %(size)s KiB are compared here; download both.", size=LARGEST >> 10)}
    try:
        texts = [
            b"" if side is None else _content(visit, f"{name.item_id}/recoveryPoints/{point}", change["path"])
            for point, side in sides
        ]
        lines: list[Line] = lines_between(*texts)
    except KeepstoneError as error:
        return {"no_lines": str(error)}
    return {"lines": lines}


def _content(visit: Visit, point: str, path: str) -> bytes:
    """The bytes of a small file."""
    body = visit.client.send(Request("GET", f"{point}/content", query={"path": path})).body
    if isinstance(body, bytes):
        return body
    found = bytearray()
    try:
        for piece in body:
            found += piece
            if len(found) > LARGEST:
                raise NotFound(_("the file is larger than its point says; download it"))
    finally:
        body.close()
    return bytes(found)
