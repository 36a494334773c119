# SPDX-License-Identifier: Apache-2.0
"""Looking into a point of files without restoring it: what is in a directory, what an entry is, bytes of a file.

Paths and names are bytes, from the source on and without it. One page of a directory is read to find a name in it
where the directory was seen before, a few otherwise; the pages and chunks that were used last stay in memory, which is
bounded. Nothing that a page says is believed before it was checked as for a restore (`tree.listing`).

Where a page is damaged, the rest of its directory can still be had.
"""

from __future__ import annotations

import stat
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

from keepstone.errors import CorruptObject, KeepstoneError, NotFound, UsageError
from keepstone.store import Reader
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.content import Content, Span
from keepstone.workloads.files.names import check_names, describe, shown
from keepstone.workloads.files.page import NO_EXTRA, PAGE_ENTRIES, UNREADABLE, Entry
from keepstone.workloads.files.restore.layout import Layout
from keepstone.workloads.files.tree import Lost, detail, listing, root_entry
from keepstone.workloads.recent import Recent
from keepstone.workloads.salvage import DAMAGE

__all__ = ["FileMap", "Folder", "Found", "Tree"]

_PAGES = 32 << 20  # bytes of pages in memory
_OPEN = 64  # files that are known by their paths
_ENTRY, _CHUNK = 450, 40  # bytes in memory of an entry, beside its name, and of a place
_BESIDE = 1 << 20  # bytes of small files that are fetched along with one


class Folder:
    """A directory. `pages`: their places; `inode`: as of `Tree.inode`; `damage`: what was met in one of its pages."""

    __slots__ = ("damage", "firsts", "inode", "name", "pages", "parent")

    def __init__(self, parent: Folder | None, name: bytes, pages: list[int], inode: int) -> None:
        self.parent = parent
        self.name = name
        self.pages = pages
        self.inode = inode
        self.firsts: dict[int, bytes] = {}
        self.damage: KeepstoneError | None = None

    @property
    def path(self) -> bytes:
        """From the source on; empty for the source itself."""
        names = []
        folder: Folder | None = self
        while folder is not None and folder.parent is not None:
            names.append(folder.name)
            folder = folder.parent
        return b"/".join(reversed(names))

    def child(self, name: bytes) -> bytes:
        """The path of an entry."""
        path = self.path
        return path + b"/" + name if path else name


class Found(NamedTuple):
    """An entry and where it is: at `place` of a page of the folder. `refs`: places of its chunks or pages."""

    folder: Folder
    page: int
    place: int
    entry: Entry
    refs: list[int]

    @property
    def path(self) -> bytes:
        """From the source on."""
        return self.folder.child(self.entry.name)


class Tree:
    """The tree of a point. Safe for several threads, as the reader has to be.

    `root`: the source; `entry`: what it is, made up where the point does not say. Everything raises `CorruptObject`,
    `HostileName` and `ObjectMissing` for what is damaged, forged or gone, and what else the reader raises.
    """

    def __init__(self, reader: Reader, chunks: ChunkCache) -> None:
        self.reader = reader
        self._chunks = chunks
        self._pages: Recent[int, list[tuple[Entry, list[int]]]] = Recent(_PAGES)
        self._open: Recent[bytes, Content] = Recent(_OPEN)
        self.entry = root_entry(detail(reader)) or _folder_entry(reader.point.finished)
        self.root = Folder(None, b"", reader.root(), 1)

    # ------------------------------------------------------------------ by path

    def look(self, path: bytes) -> Entry:
        """What is at this path, empty for the source itself. `NotFound`; `UsageError` for a path that leads upwards."""
        found = self.find(path)
        return self.entry if found is None else found.entry

    def listing(self, path: bytes, *, after: bytes = b"", limit: int = 1000, lost: Lost | None = None) -> list[Entry]:
        """At most `limit` entries of the directory at `path` in order of their names, those behind the name `after`.

        `NotFound`; `UsageError` where it is no directory. `lost` is told of a page that cannot be read, which is left
        out then; without it that is raised.
        """
        found = self.find(path)
        folder = self.root if found is None else self.enter(found)
        entries: list[Entry] = []
        for _, page in self._in_order(folder, self._begin(folder, after), lost):
            entries += [entry for entry, _ in page if entry.name > after]
            if len(entries) >= limit:
                break
        return entries[:limit]

    def walk(
        self,
        path: bytes = b"",
        *,
        after: bytes = b"",
        lost: Lost | None = None,
        enters: Callable[[Found], bool] = lambda _: True,
    ) -> Iterator[Found]:
        """Everything beneath the directory at `path`, a directory before what is in it, in order of the names; with
        `after` from behind the entry at that path on, which is beneath the same directory. What is in a directory that
        `enters` refuses, which is asked behind it, is left out. Raises as `listing` does."""
        found = self.find(path)
        folder = self.root if found is None else self.enter(found)
        names = after.split(b"/")[len(folder.path.split(b"/")) if folder.path else 0 :] if after else []
        stack = [self._behind(folder, names[0] if names else b"", lost)]
        while stack:
            for found in stack[-1]:
                depth = len(stack)
                seen = depth <= len(names) and found.entry.name == names[depth - 1]
                if not seen:
                    names = []
                    yield found
                if stat.S_ISDIR(found.entry.mode) and (seen or enters(found)):
                    try:
                        below = self.enter(found)
                    except DAMAGE as error:
                        if lost is None:
                            raise
                        lost(found.path, error)
                        continue
                    stack.append(self._behind(below, names[depth] if depth < len(names) else b"", lost))
                    break
            else:
                stack.pop()

    def _behind(self, folder: Folder, name: bytes, lost: Lost | None) -> Iterator[Found]:
        """The entries of a directory that are called so, or come behind that."""
        for number, page in self._in_order(folder, self._begin(folder, name), lost):
            for at, (entry, refs) in enumerate(page):
                if entry.name >= name:
                    yield Found(folder, number, at, entry, refs)

    def _begin(self, folder: Folder, after: bytes) -> int:
        """A page before which no entry behind this name is."""
        try:
            return self._page_of(folder, after) if after and folder.pages else 0
        except DAMAGE:
            return 0

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """At most `length` bytes of the file at `path` from `offset` on; holes are zeros.

        `NotFound`; `UsageError` where it is no regular file.
        """
        content = self._open.get(path)
        if content is None:
            found = self.find(path)
            if found is None or not stat.S_ISREG(found.entry.mode):
                raise UsageError(f"{shown(path)!r} is no regular file; only those can be read")
            content = self.content(found)
            self._open.put(path, content)
        return b"".join(content.read(offset, length))

    def find(self, path: bytes) -> Found | None:
        """The entry at this path; None for the source itself. As `look` raises."""
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise UsageError(f"{shown(path)!r} leads upwards; give paths as the point has them")
        folder, found = self.root, None
        for part in parts:
            if found is not None:
                folder = self.enter(found)
            found = self.child(folder, part)
            if found is None:
                raise NotFound(
                    f"{describe(self.reader.point)} has no {shown(path)!r}; `keepstone store find` shows what it has"
                )
        return found

    # ------------------------------------------------------------------ step by step

    def child(self, folder: Folder, name: bytes) -> Found | None:
        """The entry of this name; None where there is none. Damage where that cannot be known."""
        if not folder.pages:
            return None
        try:
            return self._within(folder, self._page_of(folder, name), name)
        except DAMAGE as error:
            for number in range(len(folder.pages)):  # perhaps it is in a page that can be read
                try:
                    found = self._within(folder, number, name)
                except DAMAGE:
                    continue
                if found is not None:
                    return found
            raise error

    def at(self, folder: Folder, page: int, place: int) -> Found:
        """The entry at this place, which is one that was found before."""
        return Found(folder, page, place, *self._page(folder, page)[place])

    def children(self, folder: Folder, page: int = 0, place: int = 0) -> Iterator[Found]:
        """The entries from this place on, in order. What can be read comes first; then the damage is raised."""

        def lose(_: bytes, error: KeepstoneError) -> None:
            folder.damage = error

        for number, entries in self._in_order(folder, page, lose):
            for at in range(place if number == page else 0, len(entries)):
                yield Found(folder, number, at, *entries[at])
        if folder.damage is not None:
            raise folder.damage

    def enter(self, found: Found) -> Folder:
        """The directory that an entry is. `UsageError` where it is none, `CorruptObject` where it is within itself."""
        if not stat.S_ISDIR(found.entry.mode):
            raise UsageError(f"{shown(found.path)!r} is no directory; nothing is in it")
        above: Folder | None = found.folder
        pages = set(found.refs)
        while above is not None:
            if not pages.isdisjoint(above.pages):
                raise CorruptObject(
                    f"{describe(self.reader.point)} has a directory within itself, {shown(found.path)!r}: it is "
                    "forged. Look into another one"
                )
            above = above.parent
        return Folder(found.folder, found.entry.name, found.refs, self.inode(found))

    def content(self, found: Found) -> Content:
        """The bytes of a regular file. `CorruptObject` where it has none that could be those of a file."""
        entry = found.entry
        if entry.extra.flags & UNREADABLE:
            raise CorruptObject("it could not be read when the point was made; another point may have it")
        small = len(found.refs) == 1 and entry.size <= _BESIDE
        return Content(
            FileMap(self.reader, entry, found.refs), self._chunks, list(self._beside(found)) if small else ()
        )

    @staticmethod
    def inode(found: Found) -> int:
        """A number that this entry has in every point that has its path; the names of one file have the same."""
        entry = found.entry
        link = entry.extra.link
        if link is not None and not stat.S_ISDIR(entry.mode):
            seed = b"file/%d/%d" % (link[0], entry.inode)
        else:
            # Its number in the source would not do: a point may span file systems, which number alike.
            seed = b"name/%d/%b" % (found.folder.inode, entry.name)
        return int.from_bytes(blake2b(seed, digest_size=8).digest(), "little") >> 1

    # ------------------------------------------------------------------ pages

    def _page(self, folder: Folder, number: int) -> list[tuple[Entry, list[int]]]:
        ref = folder.pages[number]
        page = self._pages.get(ref)
        if page is None:
            page = list(listing(self.reader, [ref], folder.path))
            if len(page) > PAGE_ENTRIES:
                raise CorruptObject("a page of a directory has more entries than any can; run `keepstone store verify`")
            memory = sum(_ENTRY + len(entry.name) + _CHUNK * len(refs) for entry, refs in page)
            self._pages.put(ref, page, memory)
        if page:
            folder.firsts[number] = page[0][0].name
        return page

    def _in_order(
        self, folder: Folder, begin: int, lost: Lost | None
    ) -> Iterator[tuple[int, list[tuple[Entry, list[int]]]]]:
        """The pages from this one on with their numbers; damage is told to `lost` or raised."""
        last = b""
        for number in range(begin, len(folder.pages)):
            try:
                page = self._page(folder, number)
            except DAMAGE as error:
                if lost is None:
                    raise
                lost(folder.path, error)
                continue
            if page:
                check_names([page[0][0].name], last, folder.path, self.reader.point)
                last = page[-1][0].name
            yield number, page

    def _page_of(self, folder: Folder, name: bytes) -> int:
        """The page that this name is in if the directory has it: the last one that begins with it or before."""
        low, high = 0, len(folder.pages)
        while low < high - 1:
            middle = (low + high) // 2
            first = folder.firsts.get(middle)
            if first is None:
                page = self._page(folder, middle)
                first = page[0][0].name if page else b""
            if first <= name:
                low = middle
            else:
                high = middle
        return low

    def _within(self, folder: Folder, number: int, name: bytes) -> Found | None:
        page = self._page(folder, number)
        index = bisect_left(page, name, key=lambda item: item[0].name)
        if index < len(page) and page[index][0].name == name:
            return Found(folder, number, index, *page[index])
        return None

    def _beside(self, found: Found) -> Iterator[int]:
        """The chunks of the files behind a small one that follow its own in the store as well."""
        size, last = found.entry.size, found.refs[-1]
        page = self._page(found.folder, found.page)
        for at in range(found.place + 1, len(page)):
            entry, refs = page[at]
            size += entry.size
            if size > _BESIDE or (stat.S_ISREG(entry.mode) and refs != [last + 1]):
                return
            if stat.S_ISREG(entry.mode):
                last = refs[0]
                yield last


class FileMap:
    """Where the bytes of a regular file are. The lengths of its chunks are asked for as far as it is read."""

    def __init__(self, reader: Reader, entry: Entry, refs: list[int]) -> None:
        layout = Layout(entry)
        if layout.length and not refs:
            raise CorruptObject("the point does not have its content; run `keepstone store verify`")
        self.size = entry.size
        self._reader = reader
        self._refs = refs
        self._extents = layout.extents
        self._length = layout.length
        self._offsets = [offset for offset, _ in layout.extents]
        self._starts = [0, *accumulate(length for _, length in layout.extents)]
        self._ends = array("q")
        self._lock = threading.Lock()

    def spans(self, offset: int, length: int) -> Iterator[Span]:
        """See `Map`. `CorruptObject` where the chunks are not as long as the file."""
        end = offset + length
        index = max(bisect_right(self._offsets, offset) - 1, 0)
        while offset < end:
            begin, size = self._extents[index] if index < len(self._extents) else (end, 0)
            if offset < begin:
                stop = min(begin, end)
                yield Span(None, 0, stop - offset)
            else:
                stop = min(begin + size, end)
                if offset < stop:
                    yield from self._chunks(self._starts[index] + offset - begin, stop - offset)
                index += 1
            offset = max(offset, stop)

    def data(self, offset: int) -> int | None:
        """See `Map`."""
        index = bisect_right(self._offsets, offset) - 1
        if index >= 0 and offset < sum(self._extents[index]):
            return offset
        return self._offsets[index + 1] if index + 1 < len(self._offsets) else None

    def hole(self, offset: int) -> int:
        """See `Map`."""
        index = max(bisect_right(self._offsets, offset) - 1, 0)
        for begin, length in self._extents[index:]:
            if begin <= offset < begin + length:
                offset = begin + length
            elif begin > offset:
                break
        return offset

    def _chunks(self, position: int, length: int) -> Iterator[Span]:
        """These bytes of the stream of chunks."""
        stop = position + length
        self._measure(stop)
        ends = self._ends
        index = bisect_right(ends, position)
        while position < stop:
            begin = ends[index - 1] if index else 0
            count = min(ends[index], stop) - position
            yield Span(self._refs[index], position - begin, count)
            position += count
            index += 1

    def _measure(self, position: int) -> None:
        """Know the chunks up to this position."""
        ends = self._ends
        if ends and ends[-1] >= position:
            return
        with self._lock:
            end = ends[-1] if ends else 0
            while end < position and len(ends) < len(self._refs):
                end += self._reader.chunk_length(self._refs[len(ends)])
                ends.append(end)
            if end < position or end > self._length or (end == self._length and len(ends) < len(self._refs)):
                raise CorruptObject("its chunks are not as long as it is; run `keepstone store verify`")


def _folder_entry(time: int) -> Entry:
    """A directory that nobody described."""
    return Entry(b".", stat.S_IFDIR | 0o755, 0, 0, 0, time, time, 0, 0, NO_EXTRA)
