# SPDX-License-Identifier: Apache-2.0
"""File first: a path or a pattern in all points of all items, with the versions that there are of what it finds."""

from __future__ import annotations

from glob import escape

from keepstone.portal.api import Document, Request
from keepstone.portal.finding import ROWS, Found, Search, search
from keepstone.portal.places import name_of, vaults
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/restore")
def restore(visit: Visit) -> Answer:
    """What was asked for, as far as one request comes. `exactly`: a path, instead of a pattern. `item`: only in one."""
    known = vaults(visit)
    vault, item = visit.text("vault"), visit.text("item")
    exactly = visit.text("exactly")
    pattern = f"/{escape(exactly)}" if exactly else visit.text("find").strip()
    found, rows = None, []
    if pattern:
        within = [one["id"] for one in known if not vault or one["id"] == vault]
        found = search(visit, within, pattern, visit.text("from"), name_of(item).item_id if item else "")
        rows = [_rows(visit, one) for one in found.found]
    shown = {
        "vaults": known,
        "vault": vault,
        "item": item,
        "only": visit.client.get(name_of(item).item_id) if item else None,
        "pattern": pattern,
        "found": found,
        "rows": _bounded(rows),
        "hidden": 0 if found is None else max(0, found.count - ROWS),
        "first": not visit.text("from"),
        "unfinished": _unfinished(found),
    }
    return Page("restore.html", shown)


def _rows(visit: Visit, found: Found) -> Document:
    """What a page shows of one item."""
    paths: list[Document] = []
    for path, versions in sorted(found.paths.items()):
        ordered = sorted(versions.values(), key=lambda one: str(one.newest["properties"]["recoveryPointTime"]))
        shown = []
        for before, version in zip([None, *ordered], ordered, strict=False):
            earlier = None if before is None else before.newest["properties"]["recoveryPoint"]
            shown.append({"version": version, "before": earlier})
        paths.append({"path": path, "within": path.rpartition("/")[0], "versions": shown[::-1]})
    newest = next(iter(next(iter(found.paths.values())).values())).newest["properties"]["recoveryPointId"]
    may, is_folder = visit.client.allows(Request("POST", f"{newest}/restore")), _is_folder(found.item)
    for one in paths:
        one["can_restore"] = may and (is_folder or "/" in one["path"])  # others are disks, or volumes of one
    return {"item": found.item, "paths": paths}


def _is_folder(item: Document) -> bool:
    return bool(item["properties"]["workloadType"] == "FileFolder")


def _bounded(rows: list[Document]) -> list[Document]:
    """No more versions than a page has room for."""
    left = ROWS
    for one in rows:
        for path in one["paths"]:
            path["versions"] = path["versions"][:left]
            left -= len(path["versions"])
        one["paths"] = [path for path in one["paths"] if path["versions"]]
    return [one for one in rows if one["paths"]]


def _unfinished(found: Search | None) -> str:
    """What the item is called in whose points the search stopped."""
    if found is None or not found.unfinished:
        return ""
    for one in found.found:
        if one.item["id"] == found.unfinished:
            return str(one.item["properties"]["friendlyName"])
    return ""
