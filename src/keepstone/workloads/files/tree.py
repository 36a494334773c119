# SPDX-License-Identifier: Apache-2.0
"""The tree of a recovery point, in order and page by page.

Directories come before what is in them, entries in order of the bytes of their names. One page of each directory on the
way down is in memory, never the tree. Everything is checked before anybody sees it: names (`names.py`), columns, and
that a directory is not within itself.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.errors import CorruptObject, KeepstoneError, NotFound, UsageError
from keepstone.store import Reader
from keepstone.workloads.files.names import check_names, describe, shown
from keepstone.workloads.files.page import (
    CHANGED,
    DIRECTORY,
    NODE_KIND,
    REGULAR,
    UNREADABLE,
    Detail,
    Entry,
    decode_page,
    entries,
)
from keepstone.workloads.salvage import DAMAGE

__all__ = ["Lost", "Step", "Wanted", "detail", "doubtful", "listing", "root_entry", "select", "traverse", "walk"]

Wanted: TypeAlias = "dict[bytes, Wanted] | None"
"""What is wanted of a directory: its entries by name, None = everything."""

Lost = Callable[[bytes, KeepstoneError], None]
"""Told of a directory of which a page cannot be read."""


class Step(NamedTuple):
    """`refs`: places of a file's chunks or of a directory's pages.

    A directory comes a second time, `leaving`, after everything in it. `whole` is False for one that is only on the way
    to what was selected.
    """

    path: bytes
    entry: Entry
    refs: list[int]
    leaving: bool = False
    whole: bool = True


def detail(reader: Reader) -> Detail:
    """What the point says of its source; `CorruptObject` where that cannot be read."""
    try:
        return from_msgpack(Detail).decode(reader.point.detail)
    except msgspec.MsgspecError as error:
        raise CorruptObject(
            f"{describe(reader.point)} is no point of files ({error}); run `keepstone store verify`"
        ) from error


def root_entry(detail: Detail) -> Entry | None:
    """The root directory itself; None where the point does not say, or is of a single file."""
    found = list(entries(decode_page(detail.root))) if detail.root and not detail.single else []
    return found[0] if found else None


def listing(
    reader: Reader, pages: Sequence[int], path: bytes, lost: Lost | None = None
) -> Iterator[tuple[Entry, list[int]]]:
    """The entries of the directory at `path` with these pages, each with its places.

    A page that is damaged or gone raises `CorruptObject` or `ObjectMissing`, or is told to `lost` and left out.
    `HostileName`.
    """
    last = b""
    for ref in pages:
        try:
            found = _page(reader, ref)
        except DAMAGE as error:
            if lost is None:
                raise
            lost(path, error)
            continue
        names = [entry.name for entry, _ in found]
        check_names(names, last, path, reader.point)
        yield from found
        last = names[-1] if names else last


def _page(reader: Reader, ref: int) -> list[tuple[Entry, list[int]]]:
    node = reader.node(ref)
    page = decode_page(node.body)
    if node.kind != NODE_KIND or (page.names and not page.names.endswith(b"\0")):
        raise CorruptObject("a node of the manifest is no page of a directory; run `keepstone store verify`")
    chunks, children = reader.chunk_refs(node), reader.child_refs(node)
    chunk = child = 0
    found = []
    for entry in entries(page):
        kind, count = entry.mode >> 12, entry.count
        if kind == REGULAR:
            refs = chunks[chunk : chunk + count]
            chunk += count
        elif kind == DIRECTORY:
            refs = children[child : child + count]
            child += count
        else:
            refs = []
            chunk += count  # belongs to nothing: found below
        if entry.size < 0:
            raise CorruptObject("a page of a directory has a file of negative size; run `keepstone store verify`")
        found.append((entry, refs))
    if chunk != len(chunks) or child != len(children):
        raise CorruptObject("a page of a directory does not account for its chunks; run `keepstone store verify`")
    return found


def traverse(reader: Reader, selection: Wanted = None, lost: Lost | None = None) -> Iterator[Step]:
    """What is selected, with the directories on the way to it."""
    stack: list[tuple[bytes, Iterator[tuple[Entry, list[int]]], Wanted, Step | None]]
    root = reader.root()
    stack = [(b"", listing(reader, root, b"", lost), selection, None)]
    within = set(root)
    while stack:
        prefix, items, wanted, came = stack[-1]
        for entry, refs in items:
            below = None
            if wanted is not None:
                if entry.name not in wanted:
                    continue
                below = wanted[entry.name]
            path = prefix + entry.name
            if entry.mode >> 12 != DIRECTORY:
                if below is None:
                    yield Step(path, entry, refs)
                continue
            if not within.isdisjoint(refs):
                raise CorruptObject(
                    f"{describe(reader.point)} has a directory within itself, {shown(path)!r}: it is forged. "
                    "Restore another one"
                )
            step = Step(path, entry, refs, whole=below is None)
            yield step
            within.update(refs)
            stack.append((path + b"/", listing(reader, refs, path, lost), below, step))
            break
        else:
            stack.pop()
            if came is not None:
                within.difference_update(came.refs)
                yield Step(came.path, came.entry, came.refs, leaving=True, whole=came.whole)


def walk(
    reader: Reader, paths: Iterable[bytes] = (), lost: Lost | None = None
) -> Iterator[tuple[bytes, Entry, list[int]]]:
    """(path, entry, places) of a point in order; with `paths` only of what these name, and of what is below.

    `NotFound` for a path that the point does not have. `lost` as in `listing`.
    """
    for step in traverse(reader, select(reader, paths), lost):
        if step.whole and not step.leaving:
            yield step.path, step.entry, step.refs


def doubtful(reader: Reader) -> Iterator[tuple[bytes, int]]:
    """(path, flags) of what the backup could not take as it was: `CHANGED` meanwhile, or `UNREADABLE`."""
    for path, entry, _ in walk(reader):
        if entry.extra.flags & (CHANGED | UNREADABLE):
            yield path, entry.extra.flags


def select(reader: Reader, paths: Iterable[bytes]) -> Wanted:
    """What these paths, relative to the source, name; no path: everything.

    `NotFound` for one that the point does not have, `UsageError` for one that leads out of it.
    """
    selection: Wanted = {}
    for path in paths:
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise UsageError(f"{shown(path)!r} leads upwards; give paths as the point has them")
        selection = _with(selection, parts)
    if not selection:
        return None
    missing = _missing(reader, selection)
    if missing:
        names = ", ".join(repr(shown(path)) for path in missing[:5]) + (", …" if len(missing) > 5 else "")
        raise NotFound(f"{describe(reader.point)} has no {names}; `keepstone store find` shows what it has")
    return selection


def _with(selection: Wanted, parts: list[bytes]) -> Wanted:
    if selection is None or not parts:
        return None
    level = selection
    for part in parts[:-1]:
        below = level.setdefault(part, {})
        if below is None:
            return selection
        level = below
    level[parts[-1]] = None
    return selection


def _missing(reader: Reader, selection: dict[bytes, Wanted]) -> list[bytes]:
    """The selected paths that do not exist; reads only directories on the way.

    Where a damaged page could hold one of them, that damage is raised instead.
    """
    missing: list[bytes] = []
    damage: list[KeepstoneError] = []
    pending = [(b"", reader.root(), selection)]
    while pending:
        prefix, pages, wanted = pending.pop()
        left = dict(wanted)
        for entry, refs in listing(reader, pages, prefix.removesuffix(b"/"), lambda _, error: damage.append(error)):
            if entry.name in left and (left[entry.name] is None or stat.S_ISDIR(entry.mode)):
                below = left.pop(entry.name)
                if below is not None:
                    pending.append((prefix + entry.name + b"/", refs, below))
                if not left:
                    break
        missing += _paths(prefix, left)
    if missing and damage:
        raise damage[0]
    return sorted(missing)


def _paths(prefix: bytes, wanted: dict[bytes, Wanted]) -> Iterator[bytes]:
    """What was selected there, as paths."""
    pending: list[tuple[bytes, Wanted]] = [(prefix + name, below) for name, below in wanted.items()]
    while pending:
        path, inner = pending.pop()
        if inner is None:
            yield path
        else:
            pending += [(path + b"/" + name, below) for name, below in inner.items()]
