# SPDX-License-Identifier: Apache-2.0
"""Which bytes of a file are stored, for a disk whose blocks lie in it in any order.

A system that is asked where the data ends (SEEK_HOLE) looks at all of it up to there. So whoever asks block by block
has a file without holes looked at once for every block, which takes longer than to read it. Here it is asked in order
and once, and what it said is kept.
"""

from __future__ import annotations

import errno
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from keepstone.objects import DirectFile

__all__ = ["Stored"]

_UNKNOWN = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}
_KEPT = 1 << 20  # pieces of data between holes, of 16 bytes here; of those behind them, nothing is kept
_FAR = 1 << 62  # behind the end of every file


class Stored:
    """What is stored of a file that does not change. For one thread."""

    def __init__(self, file: DirectFile) -> None:
        self._file = file
        self._begins = array("q")
        self._ends = array("q")
        self._known = 0  # up to here all is known

    def within(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """(begin, end) of the parts of a range that are no holes, in order; all of it where holes are not known.
        `EOFError` where the file ends within; `OSError`."""
        while self._known < end and len(self._ends) < _KEPT:
            start, stop = self._next(self._known, end)
            if start < stop:
                self._begins.append(start)
                self._ends.append(stop)
            self._known = stop
        at = bisect_right(self._ends, begin)
        while at < len(self._ends) and self._begins[at] < end:
            yield max(begin, self._begins[at]), min(end, self._ends[at])
            at += 1
        begin = max(begin, self._known)
        while begin < end:
            start, stop = self._next(begin, end)
            if start < min(end, stop):
                yield start, min(end, stop)
            begin = stop

    def _next(self, at: int, end: int) -> tuple[int, int]:
        """The first data at or behind `at`; none at the end of the file, which is not before `end`."""
        try:
            start = self._file.seek(at, os.SEEK_DATA)
            return start, self._file.seek(start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno in _UNKNOWN:
                return at, _FAR
            if error.errno != errno.ENXIO:
                raise
        size = self._file.size()
        if size < end:
            raise EOFError
        return size, size
