# SPDX-License-Identifier: Apache-2.0
"""A disk into a new image, cell by cell, in whatever order it comes.

Invariants
* A cell of the disk that holds only zeros takes no room, whoever says so: `zero`, or a write of zeros.
* A cell gets its place in the file with the first bytes of it; what of it is not written is a hole, which reads as
  zeros.
* The tables are in memory until `finish`; before that the file is no image.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from keepstone.disks.writing.cells import Cells
from keepstone.disks.writing.file import NewFile, Piece
from keepstone.env import Env
from keepstone.errors import UsageError
from keepstone.objects import Buffer, is_zero

__all__ = ["ImageSink", "Layout", "whole"]


def whole(size: int, unit: int) -> int:
    """`size` in whole units: the next multiple, at least one."""
    return max(1, -(-size // unit)) * unit


class Layout(Protocol):
    """How a format lays out a disk: values alone, nothing is written here. In bytes, but for `page`: in cells."""

    @property
    def size(self) -> int:
        """Length of the disk as the image has it: whole sectors, see `whole`."""

    @property
    def cell(self) -> int:
        """What is allocated at once."""

    @property
    def page(self) -> int:
        """How many cells one of its tables describes."""

    def place(self, number: int) -> int:
        """Where in the file the data of the stored cell of this number begins."""

    def length(self, cells: Cells) -> int:
        """Of the whole file."""

    def body(self, cells: Cells) -> Iterable[Piece]:
        """The tables."""

    def head(self, cells: Cells) -> Iterable[Piece]:
        """What makes the file an image."""


class ImageSink:
    """A `BlockSink` of `size` bytes into a new file of this layout. `TargetExists`; `UsageError` for what is not in
    the disk."""

    def __init__(self, env: Env, path: Path, size: int, layout: Layout) -> None:
        self.size = size
        self._layout = layout
        self._cells = Cells(layout.page)
        self._lock = threading.Lock()
        self._file = NewFile(env, path)

    def __enter__(self) -> ImageSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.abort()

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        self._check(offset, len(view))
        for at, piece in self._placed(offset, view):
            self._file.write(at, piece)

    def _placed(self, offset: int, view: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The parts of `view` that are not zero, and where in the file they belong; neighbours there as one."""
        pieces = list(self._pieces(offset, view))
        with self._lock:  # all at once, so that those that are new are neighbours in the file
            numbers = [self._cells.take(cell) for cell, _, _ in pieces]
        first = end = place = 0  # a run of `view`, and where in the file it begins
        for number, (_, start, stop) in zip(numbers, pieces, strict=True):
            at = self._layout.place(number) + (offset + start) % self._layout.cell
            if end != start or at - place != start - first or first == end:
                if end > first:
                    yield place, view[first:end]
                first, place = start, at
            end = stop
        if end > first:
            yield place, view[first:end]

    def _pieces(self, offset: int, view: memoryview) -> Iterator[tuple[int, int, int]]:
        """Of each cell that `view` touches: which one, and the part of `view`; leaves out zeros."""
        step, start = self._layout.cell, 0
        while start < len(view):
            cell = (offset + start) // step
            stop = min(len(view), (cell + 1) * step - offset)
            if not is_zero(view[start:stop]):
                yield cell, start, stop
            start = stop

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)

    def finish(self) -> None:
        self._file.check()
        layout, cells = self._layout, self._cells
        self._file.seal(layout.length(cells), layout.body(cells), layout.head(cells))

    def abort(self) -> None:
        self._file.abort()

    def _check(self, offset: int, length: int) -> None:
        self._file.check()
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UsageError(f"bytes {offset} to {offset + length} are not in {self._file.path} ({self.size} bytes)")
