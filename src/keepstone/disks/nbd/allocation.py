# SPDX-License-Identifier: Apache-2.0
"""Where the data of a disk is, for whoever asks about any range of it."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from keepstone.disks.port import BlockSource
from keepstone.errors import KeepstoneError

__all__ = ["Allocation"]

_MOST = 4 << 20  # runs that are kept, 8 bytes each


class Allocation:
    """The extents of a source, asked for as far as somebody wants to know. Safe for several threads.

    What is not known, or is too much to be kept, is called data, which is never wrong.
    """

    def __init__(self, source: BlockSource) -> None:
        self._size = source.size
        self._extents = source.extents()
        self._starts = array("Q", [0])  # of runs: data, zeros, data …; the first one may be empty
        self._known = 0
        self._lock = threading.Lock()

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """(length, whether it is zero) of what this range, which is within the size, consists of."""
        end = offset + length
        with self._lock:
            self._learn(end)
        place = bisect_right(self._starts, offset) - 1
        while offset < end:
            stop = self._starts[place + 1] if place + 1 < len(self._starts) else end
            stop = min(stop, end)
            if stop > offset:
                yield stop - offset, place % 2 == 1
            offset, place = stop, place + 1

    def _learn(self, end: int) -> None:
        while self._known < end:
            try:
                extent = next(self._extents, None) if len(self._starts) < _MOST else None
            except KeepstoneError:  # whoever reads there is told so
                extent = None
            if extent is None:
                self._turn(self._known, zero=False)
                self._known = self._size
                return
            self._turn(self._known, zero=False)
            self._turn(extent.offset, extent.zero)
            self._known = extent.end

    def _turn(self, offset: int, zero: bool) -> None:
        """From here on it is of this kind."""
        if (len(self._starts) % 2 == 0) != zero:
            self._starts.append(offset)
