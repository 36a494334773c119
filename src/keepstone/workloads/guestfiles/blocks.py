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
            begin = number * _BLOCK
            kept = self._kept[number] = self._ask(begin, min(_BLOCK, self.size - begin))
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(number)
        return kept


class Part:
    """`size` bytes of something, from `offset` on."""

    def __init__(self, whole: Readable, offset: int, size: int) -> None:
        self._whole = whole
        self._offset = offset
        self.size = max(0, min(size, whole.size - offset))

    def read(self, offset: int, length: int) -> bytes:
        """See `Readable`."""
        return self._whole.read(self._offset + offset, max(0, min(length, self.size - offset)))
