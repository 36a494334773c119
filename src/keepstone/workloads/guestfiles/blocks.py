# SPDX-License-Identifier: Apache-2.0
"""The disk as the child has it: ranges of bytes that it asks its parent for, and keeps for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

__all__ = ["Blocks", "Part", "Readable"]

_BLOCK = 64 << 10
_KEPT = 1024  # blocks
_LARGE = 256 << 10  # bytes of a read that is no metadata, and is not kept
_STRETCH = 8  # blocks that are asked for together
_OFTEN = 2  # blocks of a stretch that were not kept, until the others are expected to be wanted


class Readable(Protocol):
    """Something of `size` bytes."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """These bytes, fewer at the end. `OSError` where they cannot be had."""


class Blocks:
    """A whole disk; `ask(offset, length)` gets bytes that are on it."""

    def __init__(self, size: int, ask: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._ask = ask
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._missed: dict[int, int] = {}  # by stretch

    def read(self, offset: int, length: int) -> bytes:
        """See `Readable`."""
        end = min(offset + length, self.size)
        if not 0 <= offset < end:
            return b""
        first, last = offset // _BLOCK, (end - 1) // _BLOCK
        if first == last:
            return self._block(first)[offset - first * _BLOCK : end - first * _BLOCK]
        if end - offset >= _LARGE:
            return self._ask(offset, end - offset)
        data = b"".join(map(self._block, range(first, last + 1)))
        return data[offset - first * _BLOCK : end - first * _BLOCK]

    def _block(self, number: int) -> bytes:
        kept = self._kept.get(number)
        if kept is None:
            kept = self._fetched(number)
        else:
            self._kept.move_to_end(number)
        return kept

    def _fetched(self, number: int) -> bytes:
        """A block that is not kept; with all of its stretch, where that is looked at often: a table of files is, and
        its blocks are wanted in the order of the names in a directory."""
        stretch = number // _STRETCH
        if len(self._missed) > _KEPT:
            self._missed.clear()
        missed = self._missed.get(stretch, 0) + 1
        if stretch not in self._missed and self._missed.get(stretch - 1, 0) >= _OFTEN:
            missed = _OFTEN  # it goes on here
        self._missed[stretch] = missed
        if missed >= _OFTEN:
            try:
                self._keep(stretch * _STRETCH, _STRETCH)
                return self._kept[number]
            except OSError:
                self._missed[stretch] = -_STRETCH  # what nobody wants yet cannot be had
        self._keep(number, 1)
        return self._kept[number]

    def _keep(self, number: int, count: int) -> None:
        begin = number * _BLOCK
        data = self._ask(begin, min(count * _BLOCK, self.size - begin))
        for at in range(0, len(data), _BLOCK):
            self._kept[number + at // _BLOCK] = data[at : at + _BLOCK]
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


class Part:
    """`size` bytes of something, from `offset` on."""

    def __init__(self, whole: Readable, offset: int, size: int) -> None:
        self._whole = whole
        self._offset = offset
        self.size = max(0, min(size, whole.size - offset))

    def read(self, offset: int, length: int) -> bytes:
        """See `Readable`."""
        return self._whole.read(self._offset + offset, max(0, min(length, self.size - offset)))
