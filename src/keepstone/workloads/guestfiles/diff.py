# SPDX-License-Identifier: Apache-2.0
"""What differs between two points of disks in the files that are on them.

Where a disk or a volume is made of the same chunks in both points, nothing in it is looked at. Anywhere else both trees
are walked: a file has changed where its size, its time or its inode is another, as far as its file system says so, or
its bytes are, where those are to be compared.
"""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from keepstone.errors import CorruptObject
from keepstone.workloads.files.diff import Compared, compare
from keepstone.workloads.files.names import describe
from keepstone.workloads.files.page import UNREADABLE, Entry
from keepstone.workloads.files.restore.layout import Layout
from keepstone.workloads.files.tree import Lost, listing
from keepstone.workloads.guestfiles.reader import REFUSED, GuestReader
from keepstone.workloads.guestfiles.wire import PIECE
from keepstone.workloads.salvage import DAMAGE

__all__ = ["diff_guests"]

_BLOCK = 1 << 20
_AHEAD, _FILES = 4 << 20, 1000  # bytes and files that are read along with one


def diff_guests(
    before: GuestReader,
    after: GuestReader,
    path: bytes = b"",
    *,
    content: bool = False,
    behind: bytes = b"",
    lost: Lost | None = None,
) -> Iterator[Compared]:
    """As `compare` of files; `content`: the bytes of files of the same size are compared, each of which is read for
    that."""
    one, other = _Side(before, after, content, lost), _Side(after, before, content, lost)
    yield from compare(one, other, path, behind=behind, lost=lost)


class _Side:
    """See `Side`."""

    def __init__(self, reader: GuestReader, other: GuestReader, content: bool, lost: Lost | None) -> None:
        self.reader = reader
        self._other = other
        self._reads = content
        self._lost = lost
        self._folders: dict[bytes, _Folder] = {}  # that are being compared

    def listing(self, pages: Sequence[int], path: bytes) -> Iterator[tuple[Entry, Sequence[int]]]:
        """Of a disk without the volumes that can be read in this point alone: nothing was added to them, or removed."""
        if path not in self.reader.disks:
            folder = self._folders[path] = _Folder(list(listing(self.reader, pages, path)))
            try:
                yield from folder.entries
            finally:
                self._folders.pop(path, None)
            return
        self.reader.volumes(path)  # of which the listing itself does not say that they cannot be told
        opaque = self._opaque(path)
        for entry, refs in listing(self.reader, pages, path):
            if entry.name not in opaque:
                yield entry, refs
                continue
            error = CorruptObject(
                f"a volume cannot be compared: {describe(self._other.point)} has it, but its files cannot be had "
                f"({opaque[entry.name]})"
            )
            if self._lost is None:
                raise error
            self._lost(path + b"/" * bool(path) + entry.name, error)

    def _opaque(self, path: bytes) -> dict[bytes, str]:
        """The volumes that the other point has on this disk and cannot show, by name, with what is known of them."""
        if path not in self._other.disks:
            return {}
        return {
            volume.name.encode(): volume.note or volume.filesystem or "no known file system"
            for volume in self._other.volumes(path)
            if not volume.is_readable
        }

    def page(self, ref: int) -> bytes | None:
        return self.reader.identity(ref)

    def content(self, path: bytes, entry: Entry, refs: Sequence[int]) -> bytes | None:
        disk = self.reader.image(path)
        if disk is not None:
            return self.reader.identity(disk)
        if not self._reads or entry.extra.flags & (REFUSED | UNREADABLE):
            return None
        parent, _, name = path.rpartition(b"/")
        folder = self._folders[parent]
        if name not in folder.digests:
            batch = folder.batch(name)
            folder.digests = {}
            try:
                self._read(batch, folder.digests)
            except DAMAGE as error:
                if name not in folder.digests:
                    if self._lost is None:
                        raise
                    self._lost(path, CorruptObject(f"its content cannot be compared: {error}"))
        return folder.digests.pop(name, None)

    def record(self, path: bytes, entry: Entry) -> tuple[object, ...]:
        known = entry.mode, entry.uid, entry.gid
        if stat.S_ISDIR(entry.mode) or self.reader.image(path) is not None:
            return known
        return *known, entry.mtime, entry.ctime  # which is another where what is not read is, such as an ACL

    def _read(self, batch: list[_One], digests: dict[bytes, bytes]) -> None:
        """The digests of these files, by name, as far as they can be read. Raised behind that: why some cannot be."""
        known = [_Digest(entry) for entry, _ in batch]
        places = [(ref, (at, number)) for at, (_, refs) in enumerate(batch) for number, ref in enumerate(refs)]
        missing = [len(refs) for _, refs in batch]

        def add(cookie: tuple[int, int], chunk: memoryview) -> None:
            at, number = cookie
            known[at].add(number * PIECE, chunk)
            missing[at] -= 1

        try:
            self.reader.fetch(places, add)
        finally:
            for (entry, _), digest, left in zip(batch, known, missing, strict=True):
                if not left:
                    digests[entry.name] = digest.value()


_One = tuple[Entry, Sequence[int]]


class _Folder:
    """A directory that is being compared, and digests of files in it that were read along with others."""

    def __init__(self, entries: list[_One]) -> None:
        self.entries = entries
        self.digests: dict[bytes, bytes] = {}

    def batch(self, name: bytes) -> list[_One]:
        """The file of this name, and small ones behind it: to ask for one takes longer than to read it."""
        at = bisect_left(self.entries, name, key=lambda one: one[0].name)
        batch, size = [self.entries[at]], self.entries[at][0].size
        for entry, refs in self.entries[at + 1 :]:
            size += entry.size
            if size > _AHEAD or len(batch) >= _FILES:
                break
            if stat.S_ISREG(entry.mode) and not entry.extra.flags & (REFUSED | UNREADABLE):
                batch.append((entry, refs))
        return batch


class _Digest:
    """Of the bytes of a file, whether zeros are holes of it or not: block by block, without those that are all zeros.
    Pieces are told in their order."""

    def __init__(self, entry: Entry) -> None:
        self._layout = Layout(entry)
        self._digest = blake2b(digest_size=32)
        self._block, self._number = bytearray(), 0

    def add(self, at: int, chunk: memoryview) -> None:
        """These bytes of what is stored of it, from `at` on."""
        for begin, end, offset in self._layout.pieces(at, len(chunk)):
            while begin < end:
                number, within = divmod(offset, _BLOCK)
                if number != self._number:
                    self._close()
                    self._number = number
                count = min(end - begin, _BLOCK - within)
                self._block += bytes(within - len(self._block))
                self._block += chunk[begin : begin + count]
                begin, offset = begin + count, offset + count

    def value(self) -> bytes:
        """Of all that was told."""
        self._close()
        return self._digest.digest()

    def _close(self) -> None:
        block = self._block.rstrip(b"\0")
        if block:
            self._digest.update(self._number.to_bytes(8, "little") + len(block).to_bytes(4, "little"))
            self._digest.update(block)
        self._block = bytearray()
