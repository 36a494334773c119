# SPDX-License-Identifier: Apache-2.0
"""Looking into a disk of a point without restoring it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from keepstone.store import ZERO_REF, Reader
from keepstone.workloads.content import Span
from keepstone.workloads.images.leaf import LEAF_SPAN, read_leaf, read_root
from keepstone.workloads.recent import Recent

__all__ = ["DiskMap"]

_LEAVES = 64  # that are in memory, 32 KiB each


class DiskMap:
    """Where the bytes of the disk are. Leaves are read when something of them is wanted.

    `CorruptObject` where the point is no sound one of a disk, here and from every function.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._image, _, self._leaves = read_root(reader, reader.root())
        self._kept: Recent[tuple[int, bool], array[int]] = Recent(_LEAVES)
        self.size = self._image.size

    def spans(self, offset: int, length: int) -> Iterator[Span]:
        """See `Map`."""
        end = offset + length
        zeros = 0
        while offset < end:
            index, within = divmod(offset, LEAF_SPAN)
            refs = self._refs(index)
            if not refs:
                count = min(LEAF_SPAN - within, end - offset)
                zeros += count
                offset += count
                continue
            place, skip = divmod(within, self._image.chunk)
            count = min(self._image.chunk - skip, end - offset)
            offset += count
            if refs[place] == ZERO_REF:
                zeros += count
                continue
            if zeros:
                yield Span(None, 0, zeros)
                zeros = 0
            yield Span(refs[place], skip, count)
        if zeros:
            yield Span(None, 0, zeros)

    def data(self, offset: int) -> int | None:
        """See `Map`."""
        for span in self.spans(offset, self.size - offset):
            if span.ref is not None:
                return offset
            offset += span.length
        return None

    def hole(self, offset: int) -> int:
        """See `Map`."""
        for span in self.spans(offset, self.size - offset):
            if span.ref is None:
                break
            offset += span.length
        return offset

    def _refs(self, index: int) -> array[int]:
        """The places of the chunks of this leaf; none where all of it is zeros."""
        # Equal leaves are one node, so that all the empty ones of a vast disk are kept as one; the last may be shorter.
        key = self._leaves[index], index == len(self._leaves) - 1
        kept = self._kept.get(key)
        if kept is None:
            refs = read_leaf(self._reader, self._image, self._leaves, index)[1]
            kept = array("Q", refs if any(ref != ZERO_REF for ref in refs) else ())
            self._kept.put(key, kept)
        return kept
