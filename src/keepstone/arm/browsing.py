# SPDX-License-Identifier: Apache-2.0
"""Looking into points, comparing them, and taking files out of them. Keepstone's own: Azure mounts a point instead.

Whoever may restore may look: names of files are data as well, so Backup Readers may not. Paths and names stand in these
documents as `keepstone.workloads.escaping` writes them, and are read the same way.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from keepstone.arm.answers import following, moment, page, paged, skip_token
from keepstone.arm.items import path as item_path
from keepstone.arm.lro import ITEM, POINT
from keepstone.arm.points import found_point
from keepstone.arm.table import Answer, Call, Table
from keepstone.arm.vaults import find as vault_of
from keepstone.control import browsing, finding, items, points
from keepstone.control.browsing import Look, Named
from keepstone.control.finding import Place
from keepstone.errors import InvalidRequest
from keepstone.vault import RecoveryPoint
from keepstone.workloads.escaping import escaped, unescaped
from keepstone.workloads.files import Change

__all__ = ["table"]

table = Table()
_ACTION = (
    "Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/restore/action"
)
_PAGE = 1000
_ARCHIVES = {"tar": "application/x-tar", "zip": "application/zip"}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@table("GET", f"{POINT}/entries", "keepstone.entries_list", action=_ACTION)
def listing(call: Call) -> Answer:
    """What is at `path`, the source itself without one; of a directory what is in it, page by page."""
    path, after = _path(call, "path"), _unescaped(skip_token(call), "$skipToken")
    with _looking(call) as (_, look):
        kind, found = look.kind, look.listing(path, after=after, limit=_PAGE + 1)
    answer = paged(call, found.entries, _PAGE, lambda one: escaped(one.name), _document)
    return Answer(body=answer.body | {"kind": kind, "entry": _document(found.of)} | _incomplete(found.damage))


@table("GET", f"{POINT}/search", "keepstone.entries_search", action=_ACTION)
def search(call: Call) -> Answer:
    """The entries beneath `path` whose names `pattern` matches, in which * ? [ ] stand for others; with a slash in it
    it is compared with paths. A page may be empty where there is another one."""
    path, after = _path(call, "path"), _unescaped(skip_token(call), "$skipToken")
    pattern = _path(call, "pattern")
    with _looking(call) as (_, look):
        if not pattern:
            raise InvalidRequest("say what to look for as the query's `pattern`", target="pattern")
        found = look.search(pattern, path, after=after, limit=_PAGE)
    answer = page(
        [_document(one) for one in found.found], following(call, escaped(found.after)) if found.after else None
    )
    return Answer(body=answer.body | _incomplete(found.damage))


@table("GET", f"{ITEM}/find", "keepstone.entries_find", action=_ACTION)
def find(call: Call) -> Answer:
    """What `pattern` matches, as in a search, in every point of the item, the newest first. Entries of one path with
    the same `version` have the same size, time and, where that is known, content. A page may be empty where there is
    another one."""
    pattern, after = _path(call, "pattern"), _place(call)
    with call.plane.look() as connection:
        vault = vault_of(call, connection)
        held, item = items.find(connection, vault, call.names["container"], call.names["item"])
    if not pattern:
        raise InvalidRequest("say what to look for as the query's `pattern`", target="pattern")
    with browsing.searching():
        hits = finding.found(call.plane, vault, item, pattern, after=after, limit=_PAGE)
    base = f"{item_path(vault, held, item)}/recoveryPoints"
    shown = [_hit(base, point, one) for point, one in hits.found]
    place = hits.after
    token = None if place is None else f"{place.made.isoformat()} {place.name} {escaped(place.path)}"
    answer = page(shown, None if token is None else following(call, token))
    return Answer(body=answer.body | _incomplete(hits.damage))


@table("GET", f"{POINT}/diff", "keepstone.entries_diff", action=_ACTION)
def diff(call: Call) -> Answer:
    """What leads from the point `from` of the same item to this one, at `path` and beneath it. A page may be empty
    where there is another one."""
    path, behind = _path(call, "path"), _unescaped(skip_token(call), "$skipToken")
    with call.plane.look() as connection:
        vault, _, item, after = found_point(call, connection)
        before = points.find(connection, item, call.query.get("from", ""))
    with browsing.searching():
        found = browsing.compared(call.plane, vault, before, after, path, behind=behind, limit=_PAGE)
    shown = [_changed(one) for one in found.changes]
    answer = page(shown, following(call, escaped(found.after)) if found.after else None)
    return Answer(body=answer.body | _incomplete(found.damage))


@table("GET", f"{POINT}/content", "keepstone.content_get", action=_ACTION)
def content(call: Call) -> Answer:
    """The bytes of the file at `path`, or of a disk; a Range of them is answered 206. A directory with `format=tar` or
    `format=zip`."""
    path, form = _path(call, "path"), call.query.get("format", "")
    if form not in ("", *_ARCHIVES):
        raise InvalidRequest(f"format is {form!r}; leave it out, or say tar or zip", target="format")
    with ExitStack() as stack:
        stack.enter_context(browsing.streaming())
        point, look = stack.enter_context(_looking(call))
        name = path.rstrip(b"/").rpartition(b"/")[2] or point.name.encode()
        if form:
            disposition = _attachment(name + b"." + form.encode())
            headers = {"Content-Type": _ARCHIVES[form], "Content-Disposition": disposition}
            return Answer(body=_begun(stack.pop_all(), look.archive(path, form)), headers=headers)
        size, tag = look.size(path), f'"{point.commit_id}-{blake2b(path, digest_size=12).hexdigest()}"'
        wanted = _range(call, tag, size)
        begin, end = wanted or (0, size)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Disposition": _attachment(name),
            "Content-Length": str(end - begin),
            "Content-Type": "application/octet-stream",
            "ETag": tag,
        }
        if wanted is not None:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        return Answer(
            status=200 if wanted is None else 206,
            body=_begun(stack.pop_all(), look.content(path, begin, end)),
            headers=headers,
        )


@contextmanager
def _looking(call: Call) -> Iterator[tuple[RecoveryPoint, Look]]:
    """The point of a request. `NotFound`, `WrongKey`."""
    with call.plane.look() as connection:
        vault, _, _, point = found_point(call, connection)
    with browsing.looking(call.plane, vault, point) as look:
        yield point, look


def _begun(stack: ExitStack, pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """These pieces, and then the end of what is on the stack. The first one is made at once: what cannot be read at all
    is an error instead of an answer that breaks off."""

    def go() -> Generator[bytes, None, None]:
        with stack:
            first = next(pieces, b"")
            yield b""
            yield first
            yield from pieces

    going = go()
    next(going)
    return going


def _range(call: Call, tag: str, size: int) -> tuple[int, int] | None:
    """(begin, end) of what is wanted; None for all of it: RFC 9110, 14.2, of which one range of bytes is known."""
    found = _RANGE.fullmatch(call.headers.get("range", "").replace(" ", ""))
    if found is None or found.groups() == ("", "") or call.headers.get("if-range", tag) != tag:
        return None
    first, last = found.groups()
    begin, end = (int(first), int(last) + 1 if last else size) if first else (size - int(last), size)
    begin, end = max(begin, 0), min(end, size)
    if begin >= end:
        error = InvalidRequest(f"there are {size} bytes, and none in {found[0]}", target="Range", code="InvalidRange")
        error.status = 416
        raise error
    return begin, end


def _attachment(name: bytes) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def _path(call: Call, key: str) -> bytes:
    return _unescaped(call.query.get(key, ""), key)


def _unescaped(text: str, key: str) -> bytes:
    try:
        found = unescaped(text)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{text!r} is no path: a backslash in it is written twice", target=key) from error
    if b"\0" in found:
        raise InvalidRequest(f"{text!r} is no path: none has a NUL byte", target=key)
    return found


def _document(one: Named) -> dict[str, Any]:
    entry = one.entry
    properties: dict[str, Any] = {
        "path": escaped(one.path),
        "kind": entry.kind,
        "mode": stat.filemode(entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "modified": moment(one.modified),
    }
    if entry.kind == "symlink":
        properties["target"] = escaped(entry.extra.target)
    if entry.extra.flags:
        properties["doubtful"] = True
    return {"name": escaped(one.name), "properties": properties}


def _hit(base: str, point: RecoveryPoint, one: Named) -> dict[str, Any]:
    """An entry in one of several points. `base`: beneath which those are."""
    document = _document(one)
    document["properties"] |= {
        "version": one.version,
        "recoveryPoint": point.name,
        "recoveryPointId": f"{base}/{point.name}",
        "recoveryPointTime": moment(point.made),
    }
    return document


def _changed(change: Change) -> dict[str, Any]:
    """A difference; `before` and `after` as entries have their properties, null where there is none."""
    sides = {
        name: None if entry is None else _document(Named(change.path, entry))["properties"]
        for name, entry in (("before", change.before), ("after", change.after))
    }
    about = {"path": escaped(change.path), "difference": str(change.difference)}
    return {"name": escaped(change.path.rpartition(b"/")[2]), "properties": about | sides}


def _place(call: Call) -> Place | None:
    """How far an earlier page came."""
    token = skip_token(call)
    if not token:
        return None
    made, _, rest = token.partition(" ")
    name, _, path = rest.partition(" ")
    try:
        return Place(datetime.fromisoformat(made), name, _unescaped(path, "$skipToken"))
    except ValueError as error:
        raise InvalidRequest("$skipToken is none that this search gave", target="$skipToken") from error


def _incomplete(damage: str) -> dict[str, Any]:
    return {"incomplete": damage} if damage else {}
