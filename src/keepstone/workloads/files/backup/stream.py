# SPDX-License-Identifier: Apache-2.0
"""A file that is longer than one piece of work.

Its data, without the holes, is one stream that is cut where the writer says, by several workers at once: a piece
begins where the last cut of the piece before lies. It waits to be told that, which happens right after cutting, before
the slow work of hashing and compressing. Work begins in the order of submission, so the piece that is waited for is
always being worked on.

The file is read past the page cache where the file system allows it.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import accumulate

from keepstone.objects import PAGE, DirectFile, round_up
from keepstone.store import SEGMENT, Chunks, Scratch
from keepstone.workloads.files.backup.intake import (
    Intake,
    Item,
    Taken,
    check_kind,
    is_unchanged,
    shortened,
    whole,
)
from keepstone.workloads.files.backup.tally import is_fatal
from keepstone.workloads.files.page import CHANGED

__all__ = ["Stream"]

_OVER = -1


class Stream:
    """An open file. `OSError` where it cannot be opened or is no regular file any more.

    `refs`: of its chunks, gathered by the traversal. `pending`: pieces under way. `over`: whether its end has been
    seen.
    """

    def __init__(self, intake: Intake, item: Item) -> None:
        self.item = item
        self.refs: list[int] = []
        self.pending = 0
        self._intake = intake
        self._fs = intake.fs
        self._error: OSError | None = None
        folder = intake.folders.pin(item.folder)
        try:
            self._fd = intake.open(folder, item.name)
        finally:
            intake.folders.unpin(item.folder)
        try:
            self._status = self._fs.fstat(self._fd)
            check_kind(self._status)
            self._extents = intake.extents(self._fd, self._status)
            self._file = self._opened()
        except BaseException:
            self._fs.close(self._fd)
            raise
        self._ranges = whole(self._status) if self._extents is None else self._extents
        self._starts = [0, *accumulate(length for _, length in self._ranges)]
        self._got = 0
        self.over = not self._ranges
        self._last: Future[int] = Future()
        self._last.set_result(0)

    def _opened(self) -> DirectFile:
        path = f"/proc/self/fd/{self._fd}"
        try:
            return DirectFile(self._fs, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
        except PermissionError:
            return DirectFile(self._fs, path, os.O_RDONLY | os.O_CLOEXEC)

    def piece(self) -> Callable[[Scratch], Chunks]:
        """The reading of the next piece; there may be one or two more than the file needs, which give nothing."""
        begins, self._last = self._last, Future()
        self.pending += 1
        return partial(self._read, begins, self._last)

    def _read(self, begins: Future[int], ends: Future[int], scratch: Scratch) -> Chunks:
        start = begins.result()
        data, lengths, end = scratch.view[:0], [], _OVER
        try:
            if start != _OVER:
                data = self._data(start, scratch.view)
                last = len(data) < SEGMENT or start + len(data) == self._starts[-1]
                lengths = self._intake.cut(data, last) if data else []
                if last:
                    self._got = start + len(data)
                else:
                    end = start + sum(lengths)
        except OSError as error:
            if is_fatal(error):
                raise
            self._error = error
        finally:
            self.over = end == _OVER
            ends.set_result(end)
        size = sum(lengths)
        return Chunks(data[:size], lengths, [], size)

    def _data(self, start: int, view: memoryview) -> memoryview:
        """What there is of the stream from `start`, up to a segment."""
        wanted = min(SEGMENT, self._starts[-1] - start)
        index = bisect_right(self._starts, start) - 1
        if start + wanted <= self._starts[index + 1]:
            offset = self._ranges[index][0] + start - self._starts[index]
            skip = offset % PAGE  # from a page on, so that it can be read directly
            got = self._file.pread_into(offset - skip, view[: round_up(skip + wanted)])
            return view[skip : max(skip, min(got, skip + wanted))]
        at = 0
        while at < wanted:
            offset, length = self._ranges[index]
            within = start + at - self._starts[index]
            piece = view[at : min(wanted, at + length - within)]
            got = self._file.pread_into(offset + within, piece)
            at += got
            if got < len(piece):
                break
            index += 1
        return view[:at]

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        if self._fd >= 0:
            self._file.close()
            self._fs.close(self._fd)
            self._fd = -1

    def taken(self) -> Taken:
        """What became of the file, after its last piece."""
        if self._error is not None:
            return Taken(error=self._error)
        status = self._status
        xattrs, error = self._intake.xattrs(self._fd, status.st_dev)
        taken = Taken(count=len(self.refs), xattrs=xattrs, extents=self._extents, unattributed=error)
        if self._got < self._starts[-1] or not is_unchanged(self._fs.fstat(self._fd), status):
            taken.flags = CHANGED
            taken.extents, taken.size = shortened(self._ranges, self._got, status.st_size)
        if not is_unchanged(status, self.item.status):
            taken.status = status
        return taken
