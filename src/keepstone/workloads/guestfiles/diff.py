# SPDX-License-Identifier: Apache-2.0
"""What differs between two points of disks in the files that are on them.

Where a disk or a volume is made of the same chunks in both points, nothing in it is looked at. Anywhere else both trees
are walked: a file has changed where its size, its time or its inode is another, as far as its file system says so, or
its bytes are, where those are to be compared.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from keepstone.errors import CorruptObject
from keepstone.workloads.files.diff import Compared, compare
from keepstone.workloads.files.names import describe, shown
from keepstone.workloads.files.page import UNREADABLE, Entry
from keepstone.workloads.files.restore.layout import Layout
from keepstone.workloads.files.tree import Lost, listing
from keepstone.workloads.guestfiles.reader import REFUSED, GuestReader
from keepstone.workloads.guestfiles.wire import PIECE
from keepstone.workloads.salvage import DAMAGE

__all__ = ["diff_guests"]

_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)


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

    def listing(self, pages: Sequence[int], path: bytes) -> Iterator[tuple[Entry, Sequence[int]]]:
        """Of a disk without the volumes that can be read in this point alone: nothing was added to them, or removed."""
        if path not in self.reader.disks:
            yield from listing(self.reader, pages, path)
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
        try:
            return self._digest(entry, refs)
        except DAMAGE as error:
            if self._lost is None:
                raise
            self._lost(path, CorruptObject(f"the content of {shown(path)!r} cannot be compared: {error}"))
            return None

    def record(self, path: bytes, entry: Entry) -> tuple[object, ...]:
        known = entry.mode, entry.uid, entry.gid
        if stat.S_ISDIR(entry.mode) or self.reader.image(path) is not None:
            return known
        return *known, entry.mtime, entry.ctime  # which is another where what is not read is, such as an ACL

    def _digest(self, entry: Entry, refs: Sequence[int]) -> bytes:
        """Of the bytes of a file, whether zeros are holes of it or not: block by block, without those that are all
        zeros."""
        layout, digest = Layout(entry), blake2b(digest_size=32)
        block, number = bytearray(_BLOCK), 0

        def add(at: int, chunk: memoryview) -> None:
            nonlocal number
            for begin, end, offset in layout.pieces(at, len(chunk)):
                while begin < end:
                    current, within = divmod(offset, _BLOCK)
                    if current != number:
                        close()
                        number = current
                    count = min(end - begin, _BLOCK - within)
                    block[within : within + count] = chunk[begin : begin + count]
                    begin, offset = begin + count, offset + count

        def close() -> None:
            if block != _ZEROS:
                digest.update(number.to_bytes(8, "little"))
                digest.update(block)
                block[:] = _ZEROS

        self.reader.fetch(((ref, index * PIECE) for index, ref in enumerate(refs)), add)
        close()
        return digest.digest()
