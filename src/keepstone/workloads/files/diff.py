# SPDX-License-Identifier: Apache-2.0
"""What differs between two points, walked side by side.

A page of a directory that both points have, known by what names it, holds the same entries with the same everything
below them, and is not read. So the cost follows the difference, not the size of the points. What is known of a point
beside its entries says a `Side`: in points of files everything has the id of its bytes, `guestfiles/diff.py` has those
of disks.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from keepstone.errors import CorruptObject, NotFound, UsageError
from keepstone.store import Reader
from keepstone.workloads.files.names import describe, shown
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.tree import Lost, listing
from keepstone.workloads.files.versions import content_id
from keepstone.workloads.salvage import DAMAGE

__all__ = ["Change", "Compared", "Difference", "Side", "StoredSide", "compare", "diff"]


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


class Compared(NamedTuple):
    """A path that was looked at, and what is different there."""

    path: bytes
    change: Change | None


class Side(Protocol):
    """One of the two points. `reader`: whose root is where it begins."""

    @property
    def reader(self) -> Reader: ...

    def listing(self, pages: Sequence[int], path: bytes) -> Iterator[tuple[Entry, Sequence[int]]]:
        """The entries of a directory with these pages in order, each with its places."""

    def page(self, ref: int) -> bytes | None:
        """Equal for pages with the same entries and the same below them; None where that is not known."""

    def content(self, path: bytes, entry: Entry, refs: Sequence[int]) -> bytes | None:
        """Equal for regular files of the same bytes, different for others; None where only size, time and inode can
        tell."""

    def record(self, path: bytes, entry: Entry) -> tuple[object, ...]:
        """What is said of an entry beside its content."""


class StoredSide:
    """A point of files."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def listing(self, pages: Sequence[int], path: bytes) -> Iterator[tuple[Entry, Sequence[int]]]:
        return listing(self.reader, pages, path)

    def page(self, ref: int) -> bytes | None:
        return self.reader.chunk_id(ref)

    def content(self, path: bytes, entry: Entry, refs: Sequence[int]) -> bytes | None:
        return content_id(self.reader, entry, refs)

    def record(self, path: bytes, entry: Entry) -> tuple[object, ...]:
        mtime = None if stat.S_ISDIR(entry.mode) else entry.mtime  # that of a directory: something in it changed
        return entry.mode, entry.uid, entry.gid, entry.extra.xattrs, mtime


def diff(before: Reader, after: Reader) -> Iterator[Change]:
    """The changes that lead from one point of files to the other, directories before what is in them."""
    for _, change in compare(StoredSide(before), StoredSide(after)):
        if change is not None:
            yield change


def compare(
    before: Side, after: Side, path: bytes = b"", *, behind: bytes = b"", lost: Lost | None = None
) -> Iterator[Compared]:
    """What is at `path` and beneath it, in order, with the changes that lead from one point to the other; with `behind`
    what comes after that path.

    `NotFound` where neither point has `path`, `UsageError` for one that leads upwards. Damage is raised, or told to
    `lost`: then the rest of that directory is left out, and nothing of it is taken for a difference.
    """
    wanted = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in wanted:
        raise UsageError(f"{shown(path)!r} leads upwards; give paths as the points have them")
    seen = behind.split(b"/") if behind else []
    levels = [_Level(_Pair(b"", before.reader.root(), after.reader.root()), before, after, wanted[:1], seen)]
    met = False
    while levels:
        level, depth = levels[-1], len(levels)
        try:
            step = level.next()
            if step is not None and step.below is not None:
                _check_loop(step.below, levels, before, after)
        except DAMAGE as error:
            if lost is None:
                raise
            lost(level.pair.path, error)
            step = None
        if step is None:
            levels.pop()
            continue
        is_within = depth >= len(wanted)
        met = met or is_within
        if is_within and not step.passed:
            yield Compared(step.path, step.change)
        if step.below is not None:
            rest = seen[depth:] if step.passed else []
            levels.append(_Level(step.below, before, after, wanted[depth : depth + 1], rest))
    if wanted and not met:
        raise NotFound(f"neither {describe(before.reader.point)} nor the other one has {shown(path)!r}")


class _Pair(NamedTuple):
    """A path and the pages that it has, as a directory, in the two points."""

    path: bytes
    old: Sequence[int]
    new: Sequence[int]


class _Step(NamedTuple):
    """`passed`: it lies on the way to what is looked at next, and was seen before."""

    path: bytes
    change: Change | None
    below: _Pair | None
    passed: bool


class _Level:
    """A directory that is being compared. `only`: the name that is looked at alone, if there is one. `seen`: from it
    on, the path that was looked at last."""

    def __init__(self, pair: _Pair, before: Side, after: Side, only: list[bytes], seen: list[bytes]) -> None:
        self.pair = pair
        self._before, self._after = before, after
        self._only, self._seen = only, seen
        self._entries: Iterator[tuple[_One, _One]] | None = None

    def next(self) -> _Step | None:
        """The next entry; None behind the last one."""
        if self._entries is None:
            self._entries = self._merged()
        for left, right in self._entries:
            name = left.name if left.entry is not None else right.name
            if (self._only and name != self._only[0]) or (self._seen and name < self._seen[0]):
                continue
            passed = bool(self._seen) and name == self._seen[0]
            return self._compared(name, left, right, passed)
        return None

    def _merged(self) -> Iterator[tuple[_One, _One]]:
        old, new = self.pair.old, self.pair.new
        if not self._only:  # else it has to be known whether there is one of this name
            old_ids, new_ids = [self._before.page(ref) for ref in old], [self._after.page(ref) for ref in new]
            shared = {*old_ids} & {*new_ids} - {None}
            old = [ref for ref, identity in zip(old, old_ids, strict=True) if identity not in shared]
            new = [ref for ref, identity in zip(new, new_ids, strict=True) if identity not in shared]
        return _merged(_ones(self._before, old, self.pair.path), _ones(self._after, new, self.pair.path))

    def _compared(self, name: bytes, left: _One, right: _One, passed: bool) -> _Step:
        path = self.pair.path + b"/" * bool(self.pair.path) + name
        was, now = left.entry, right.entry
        difference = None
        if was is None:
            difference = Difference.ADDED
        elif now is None:
            difference = Difference.REMOVED
        elif passed:
            difference = None  # whatever it is was told
        elif stat.S_IFMT(was.mode) != stat.S_IFMT(now.mode):
            difference = Difference.TYPE
        elif not stat.S_ISDIR(was.mode) and not self._is_same(path, was, now, left.refs, right.refs):
            difference = Difference.CONTENT
        elif self._before.record(path, was) != self._after.record(path, now):
            difference = Difference.METADATA
        change = Change(path, difference, was, now) if difference is not None else None
        old = left.refs if was is not None and stat.S_ISDIR(was.mode) else ()
        new = right.refs if now is not None and stat.S_ISDIR(now.mode) else ()
        return _Step(path, change, _Pair(path, old, new) if old or new else None, passed)

    def _is_same(self, path: bytes, was: Entry, now: Entry, old: Sequence[int], new: Sequence[int]) -> bool:
        """Whether the content of what is no directory is."""
        one, other = was.extra, now.extra
        if (was.size, one.target, one.rdev) != (now.size, other.target, other.rdev):
            return False
        if not stat.S_ISREG(was.mode):
            return True
        left = self._before.content(path, was, old)
        right = None if left is None else self._after.content(path, now, new)
        if left is None or right is None:
            return (was.mtime, was.inode) == (now.mtime, now.inode)
        return left == right


class _One(NamedTuple):
    entry: Entry | None
    refs: Sequence[int]

    @property
    def name(self) -> bytes:
        return b"" if self.entry is None else self.entry.name


def _ones(side: Side, pages: Sequence[int], path: bytes) -> Iterator[_One]:
    return (_One(entry, refs) for entry, refs in side.listing(pages, path))


def _merged(old: Iterator[_One], new: Iterator[_One]) -> Iterator[tuple[_One, _One]]:
    """Entries of the same name beside one another, both sides in order of names."""
    nothing = _One(None, ())
    left, right = next(old, nothing), next(new, nothing)
    while left.entry is not None or right.entry is not None:
        if right.entry is None or (left.entry is not None and left.name < right.name):
            yield left, nothing
            left = next(old, nothing)
        elif left.entry is None or right.name < left.name:
            yield nothing, right
            right = next(new, nothing)
        else:
            yield left, right
            left, right = next(old, nothing), next(new, nothing)


def _check_loop(below: _Pair, levels: list[_Level], before: Side, after: Side) -> None:
    for side, pages, above in (
        (before, below.old, (level.pair.old for level in levels)),
        (after, below.new, (level.pair.new for level in levels)),
    ):
        mine = set(pages)
        if mine and not all(mine.isdisjoint(one) for one in above):
            raise CorruptObject(
                f"{describe(side.reader.point)} has a directory within itself, {shown(below.path)!r}: it is forged. "
                "Compare another one"
            )
