# SPDX-License-Identifier: Apache-2.0
"""Memory for bulk data: page aligned, so that the disk can fill it without a copy, and used again and again.

A fresh megabyte costs its page faults, more than encrypting it; so whoever moves much data takes its buffers from a
`BufferPool` and gives them back.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections import deque

__all__ = ["PAGE", "BufferPool", "address", "aligned", "is_aligned", "is_zero", "round_up"]

PAGE = 4096
"""Unit of direct I/O, in bytes: address, offset and length are multiples of it."""

_HUGE = 2 << 20
_ZERO = bytearray(256 << 10)
_page = bytearray(PAGE)


def round_up(count: int) -> int:
    """The next multiple of `PAGE`."""
    return -(-count // PAGE) * PAGE


def aligned(count: int) -> memoryview:
    """`count` writable zero bytes that begin on a page."""
    size = max(PAGE, round_up(count))
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE:
        with contextlib.suppress(OSError):  # a kernel without huge pages
            area.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(area)[:count]


def address(view: memoryview) -> int | None:
    """Where in this process's memory `view` begins; None for an empty one and for read-only memory, whose address
    Python does not tell."""
    if view.readonly or not view.nbytes:
        return None
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def is_aligned(view: memoryview) -> bool:
    """Whether `view` begins on a page. False for read-only memory."""
    begin = address(view)
    return begin is not None and begin % PAGE == 0


def is_zero(view: memoryview) -> bool:
    """Whether all bytes of `view` are zero; stops at the first piece that has another one."""
    if len(view) >= PAGE and _page != view[:PAGE]:  # most data shows at once, before a piece has to be made
        return False
    step = len(_ZERO)
    for at in range(0, len(view), step):
        piece = view[at : at + step]
        # The bytearray stands on the left: it compares with memcmp, a memoryview goes item by item.
        if (_ZERO if len(piece) == step else bytearray(len(piece))) != piece:
            return False
    return True


class BufferPool:
    """Aligned buffers of `size` bytes for many threads; at most `keep` idle ones are held."""

    def __init__(self, size: int, keep: int = 4) -> None:
        self.size = size
        self._idle: deque[memoryview] = deque(maxlen=keep)

    def take(self) -> memoryview:
        """A buffer of the caller's own, with any content."""
        try:
            return self._idle.pop()
        except IndexError:
            return aligned(self.size)

    def give(self, buffer: memoryview) -> None:
        """Hand a buffer back; the caller keeps no view of it."""
        self._idle.append(buffer)
