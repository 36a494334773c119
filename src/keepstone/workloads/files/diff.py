# SPDX-License-Identifier: Apache-2.0
"""What differs between two points of files.

A page that both points have, known by the id of its node, holds the same entries with the same everything below them,
and is not read. So the cost follows the difference, not the size of the points.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from keepstone.store import Reader
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.tree import listing

__all__ = ["Change", "Difference", "diff"]


class Difference(StrEnum):
    """CONTENT: bytes of a file, target of a link, number of a device. METADATA: owner, mode, extended attributes, or
    the time of anything but a directory. TYPE: it was another kind of file.
    """

    ADDED = "added"
    REMOVED = "removed"
    CONTENT = "content"
    METADATA = "metadata"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs. `before`, `after`: None where it was not, or is not."""

    path: bytes
    difference: Difference
    before: Entry | None
    after: Entry | None


def diff(before: Reader, after: Reader) -> Iterator[Change]:
    """The changes that lead from one point to the other, directories before what is in them."""
    pending = [_changes(before, after, _Pair(b"", before.root(), after.root()))]
    while pending:
        for change, below in pending[-1]:
            if change is not None:
                yield change
            if below is not None:
                pending.append(_changes(before, after, below))
                break
        else:
            pending.pop()


class _Pair(NamedTuple):
    """A path and the pages that it has, as a directory, in the two points."""

    path: bytes
    old: list[int]
    new: list[int]


def _changes(before: Reader, after: Reader, pair: _Pair) -> Iterator[tuple[Change | None, _Pair | None]]:
    """What changed in one directory, and what is to be compared below."""
    old_ids = [before.chunk_id(ref) for ref in pair.old]
    new_ids = [after.chunk_id(ref) for ref in pair.new]
    shared = {*old_ids} & {*new_ids}
    old = [ref for ref, identity in zip(pair.old, old_ids, strict=True) if identity not in shared]
    new = [ref for ref, identity in zip(pair.new, new_ids, strict=True) if identity not in shared]
    for left, right in _merged(listing(before, old, pair.path), listing(after, new, pair.path)):
        was, old_refs = left
        now, new_refs = right
        path = pair.path + b"/" * bool(pair.path) + (was or now).name  # type: ignore[union-attr] # one of them is there
        kinds = [stat.S_IFMT(entry.mode) for entry in (was, now) if entry is not None]
        difference = None
        if was is None:
            difference = Difference.ADDED
        elif now is None:
            difference = Difference.REMOVED
        elif kinds[0] != kinds[1]:
            difference = Difference.TYPE
        elif kinds[0] != stat.S_IFDIR and not _same_content(before, after, was, now, old_refs, new_refs):
            difference = Difference.CONTENT
        elif _metadata(was) != _metadata(now):
            difference = Difference.METADATA
        change = Change(path, difference, was, now) if difference is not None else None
        below = None
        if stat.S_IFDIR in kinds:
            below = _Pair(
                path,
                old_refs if was is not None and stat.S_ISDIR(was.mode) else [],
                new_refs if now is not None and stat.S_ISDIR(now.mode) else [],
            )
        yield change, below


def _same_content(before: Reader, after: Reader, was: Entry, now: Entry, old: list[int], new: list[int]) -> bool:
    one, other = was.extra, now.extra
    return (
        (was.size, one.target, one.rdev, one.extents) == (now.size, other.target, other.rdev, other.extents)
        and len(old) == len(new)
        and all(before.chunk_id(left) == after.chunk_id(right) for left, right in zip(old, new, strict=True))
    )


def _metadata(entry: Entry) -> tuple[object, ...]:
    mtime = None if stat.S_ISDIR(entry.mode) else entry.mtime  # a directory's only says that something in it changed
    return entry.mode, entry.uid, entry.gid, entry.extra.xattrs, mtime


_Side = tuple[Entry | None, list[int]]


def _merged(old: Iterator[_Side], new: Iterator[_Side]) -> Iterator[tuple[_Side, _Side]]:
    """Entries of the same name beside one another, both sides in order of names."""
    nothing: _Side = (None, [])
    left, right = next(old, nothing), next(new, nothing)
    while left[0] is not None or right[0] is not None:
        if right[0] is None or (left[0] is not None and left[0].name < right[0].name):
            yield left, nothing
            left = next(old, nothing)
        elif left[0] is None or right[0].name < left[0].name:
            yield nothing, right
            right = next(new, nothing)
        else:
            yield left, right
            left, right = next(old, nothing), next(new, nothing)
