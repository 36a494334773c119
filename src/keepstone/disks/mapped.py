# SPDX-License-Identifier: Apache-2.0
"""A disk that is read through a layout: its blocks out of the files of its image, the rest out of its parent.

Invariants
* Nothing is read but what was asked for and is stored: what the layout or a hole of a file says is zero costs no read.
* The layout was checked; nothing here looks at a table of an image. Of a compressed grain no more is unpacked than a
  grain has.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np

from keepstone.disks.holes import Stored
from keepstone.disks.layout import DATA, DEFLATED, PARENT, ZERO, Layout
from keepstone.disks.port import Extent
from keepstone.errors import SourceFailed, SourceMissing, UsageError
from keepstone.objects import PAGE, BufferPool, DirectFile, failure, round_up

__all__ = ["MappedSource"]

_MARKER = struct.Struct("<QI")  # Compressed Grain: which one, and the bytes that follow
_SPARE = 4096  # more than a grain, for what cannot be compressed
_BATCH = 4096  # runs that are taken out of the arrays at once

_Known = dict[DirectFile, Stored]  # of the files of a disk and its parents, in one walk


class MappedSource:
    """A `BlockSource` over `files`, which it closes, with the layout's parent, which it closes too."""

    block_size = PAGE

    def __init__(self, layout: Layout, files: Sequence[tuple[str, DirectFile]], parent: MappedSource | None) -> None:
        self.size = layout.size
        self.id = layout.id
        self._layout = layout
        self._files = files
        self._parent = parent
        self._rooms = BufferPool(_MARKER.size + layout.unit + _SPARE)

    def __enter__(self) -> MappedSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for _, file in self._files:
            file.close()
        if self._parent is not None:
            self._parent.close()

    def token(self) -> str | None:
        """None: no format has a log of what changed that anybody but its writer could trust."""
        return None

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """The whole disk, whatever `since` says."""
        end = 0  # of what was said to be data
        for start, stop in self._data(0, self.size, {}):
            start, stop = max(end, start // PAGE * PAGE), min(self.size, round_up(stop))
            if start > end:
                yield Extent(end, start - end, zero=True)
            if stop > start:
                yield Extent(start, stop - start, zero=False)
                end = stop
        if end < self.size:
            yield Extent(end, self.size - end, zero=True)

    def _data(self, begin: int, end: int, known: _Known) -> Iterator[tuple[int, int]]:
        """(start, end) of what has to be read, in ascending order; neighbours as one."""
        last: tuple[int, int] | None = None
        for start, stop in self._pieces(begin, end, known):
            if last is not None and last[1] >= start:
                last = last[0], stop
                continue
            if last is not None:
                yield last
            last = start, stop
        if last is not None:
            yield last

    def _pieces(self, begin: int, end: int, known: _Known) -> Iterator[tuple[int, int]]:
        for start, stop, kind, file, place, cut in self._runs(begin, end):
            if kind == DATA:
                shift = start - place - cut
                for at, to in self._stored(file, start - shift, stop - shift, known):
                    yield at + shift, to + shift
            elif kind == DEFLATED:
                yield start, stop
            elif kind == PARENT:
                assert self._parent is not None
                yield from self._parent._data(start, min(stop, self._parent.size), known)

    def _runs(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int, int, int]]:
        """(start, end, kind, file, place, cut) of the runs of a range, cut to it; so much was cut off at the start."""
        layout = self._layout
        first = int(np.searchsorted(layout.starts, begin, "right")) - 1
        last = int(np.searchsorted(layout.starts, end, "left"))
        for index in range(max(0, first), last, _BATCH):
            to = min(last, index + _BATCH)
            starts = layout.starts[index : to + 1].tolist()
            if to == len(layout.starts):
                starts.append(self.size)
            kinds, places, files = (column[index:to].tolist() for column in (layout.kinds, layout.places, layout.files))
            for number, kind in enumerate(kinds):
                start = max(begin, starts[number])
                yield start, min(end, starts[number + 1]), kind, files[number], places[number], start - starts[number]

    def _stored(self, file: int, begin: int, end: int, known: _Known) -> Iterator[tuple[int, int]]:
        """The parts of a range of a file that are no holes."""
        name, opened = self._files[file]
        if opened not in known:
            known[opened] = Stored(opened)
        with _failures(name):
            try:
                yield from known[opened].within(begin, end)
            except EOFError:
                raise _shrank(name) from None

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        wanted = min(len(buffer), self.size - offset)
        if offset < 0 or wanted <= 0:
            if 0 <= offset <= self.size:
                return 0
            raise UsageError(f"there is no byte {offset} on a disk of {self.size} bytes")
        for start, stop, kind, file, place, cut in self._runs(offset, offset + wanted):
            view = buffer[start - offset : stop - offset]
            if kind == ZERO:
                view[:] = bytes(len(view))
            elif kind == PARENT:
                assert self._parent is not None
                count = self._parent.pread_into(view, start) if start < self._parent.size else 0
                view[count:] = bytes(len(view) - count)
            elif kind == DATA:
                self._fill(file, view, place + cut)
            else:
                self._inflate(file, view, place, cut)
        return wanted

    def _fill(self, file: int, view: memoryview, place: int) -> None:
        name, opened = self._files[file]
        with _failures(name):
            count = opened.pread_into(place, view)
        if count < len(view):
            raise _shrank(name)

    def _inflate(self, file: int, view: memoryview, place: int, within: int) -> None:
        """A part of a grain, which is unpacked whole."""
        name, opened = self._files[file]
        unit = self._layout.unit
        room = self._rooms.take()
        with _failures(name):
            count = opened.pread_into(place, room[:PAGE])
            length = _MARKER.size + _MARKER.unpack_from(room)[1] if count >= _MARKER.size else 0
            if count == PAGE and PAGE < length <= len(room):
                count += opened.pread_into(place + PAGE, room[PAGE:length])
        try:
            grain = zlib.decompressobj().decompress(room[_MARKER.size : min(count, length)], unit)
        except zlib.error:
            grain = b""
        self._rooms.give(room)
        if len(grain) < within + len(view):
            raise SourceFailed(f"{name} has a grain at {place} that cannot be unpacked; take another copy of it")
        view[:] = grain[within : within + len(view)]


def _shrank(name: str) -> SourceFailed:
    return SourceFailed(f"{name} became shorter while it was read; stop what writes to it, or copy it first")


@contextlib.contextmanager
def _failures(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(error, name, missing=SourceMissing, other=SourceFailed) from error
