# SPDX-License-Identifier: Apache-2.0
"""Where the data of a regular file lies: its stream of chunks, and the ranges of the file that this stream fills.

A file without `extents` is one range, from its beginning to its size. What no range covers is a hole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from keepstone.errors import CorruptObject
from keepstone.workloads.files.page import Entry

__all__ = ["Layout"]


class Layout:
    """`length`: bytes of the stream. `extents`: (offset, length) in ascending order without overlap, none of them
    empty.

    `CorruptObject` where the extents of an entry are impossible.
    """

    __slots__ = ("_starts", "extents", "length", "size")

    def __init__(self, entry: Entry) -> None:
        self.size = entry.size
        extents = entry.extra.extents
        if extents is None:
            extents = [(0, entry.size)] if entry.size else []
        self.extents = extents
        self._starts = []
        self.length = end = 0
        for offset, length in extents:
            if offset < end or length <= 0:
                raise CorruptObject("its extents overlap or are out of order")
            self._starts.append(self.length)
            self.length += length
            end = offset + length
        if end > entry.size:
            raise CorruptObject("its extents reach beyond its end")

    def pieces(self, position: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(begin, end, offset): these of the `length` bytes at `position` of the stream go to this offset."""
        index = bisect_right(self._starts, position) - 1
        begin = 0
        while begin < length:
            within = position + begin - self._starts[index]
            offset, extent = self.extents[index]
            end = min(length, begin + extent - within)
            yield begin, end, offset + within
            begin, index = end, index + 1

    def holes(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what reads as zeros."""
        end = 0
        for offset, length in self.extents:
            if offset > end:
                yield end, offset - end
            end = offset + length
        if self.size > end:
            yield end, self.size - end
