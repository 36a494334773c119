# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a disk are in the files of its image: what a parser finds out, and all that a reader needs.

Invariants
* The runs cover the disk once, in ascending order, and neighbours that are one are one run.
* A layout that `check` has passed names no byte outside of its files. So a parser is believed in nothing: whoever gets
  a layout from elsewhere checks it again.
* Memory is bounded: at most `MOST_RUNS` runs of 19 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepstone.errors import SourceFailed

__all__ = [
    "DATA",
    "DEFLATED",
    "LARGEST",
    "MOST_RUNS",
    "PARENT",
    "ZERO",
    "Layout",
    "Link",
    "Runs",
    "check",
    "check_apart",
]

ZERO, PARENT, DATA, DEFLATED = range(4)
"""Kinds of a run: zeros; what the parent has at this offset; bytes of a file as they are; a grain, compressed by zlib
behind a marker of twelve bytes (VMDK only)."""

LARGEST = 64 << 40
"""Bytes of the largest disk: what VHDX can have (MS-VHDX 2.6.2.2)."""
MOST_RUNS = 1 << 24
"""A disk of 1 TiB in grains of 64 KiB, none beside its neighbour."""


@dataclass(frozen=True, slots=True)
class Link:
    """The parent of an image, as the image has it: file names (never paths) to try in this order, and the ids one of
    which the parent must have."""

    names: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One disk, or one file of several that make a disk.

    `size`: bytes of the disk. `unit`: bytes of a compressed grain, 0 where there are none. `id`: what a child of this
    image names it by. Of each run: `starts`, its offset in the disk; `kinds`; `places`, its offset in the file where
    it has one, else 0; `files`, which file. A run ends where the next one starts.
    """

    size: int
    starts: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    places: NDArray[np.int64]
    files: NDArray[np.uint16]
    unit: int = 0
    id: str = ""
    parent: Link | None = None

    def ends(self) -> NDArray[np.int64]:
        """Where each run ends."""
        return np.append(self.starts[1:], self.size).astype(np.int64)


class Runs:
    """A layout while it is made, from the start of the disk on. `SourceFailed` where it becomes too large."""

    def __init__(self, size: int) -> None:
        if not 0 <= size <= LARGEST:
            raise SourceFailed(f"it says that its disk has {size} bytes; a disk has at most {LARGEST}")
        self.size = size
        self._end = 0
        self._count = 0
        self._parts: list[_Columns] = []
        self._fresh: list[_Columns] = []  # not merged with one another yet

    def run(self, kind: int, length: int, place: int = 0) -> None:
        """The next `length` bytes."""
        self.blocks(np.array([kind], np.uint8), np.array([place], np.int64), length)

    def blocks(self, kinds: NDArray[np.uint8], places: NDArray[np.int64], unit: int) -> None:
        """The next blocks, of `unit` bytes each. What is behind the end of the disk does not count."""
        needed = min(len(kinds), -(-(self.size - self._end) // unit)) if unit else 0
        if not needed:
            return
        starts = self._end + np.arange(needed, dtype=np.int64) * unit
        self._end = min(self.size, self._end + needed * unit)
        self._add(starts, kinds[:needed], places[:needed], np.zeros(needed, np.uint16))

    def pieces(self, kinds: NDArray[np.uint8], places: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """The next pieces, each of its own length, as `blocks`."""
        ends = self._end + np.cumsum(lengths)
        starts = ends - lengths
        needed = int(np.searchsorted(starts, self.size))
        if needed:
            self._end = min(self.size, int(ends[needed - 1]))
            self._add(starts[:needed], kinds[:needed], places[:needed], np.zeros(needed, np.uint16))

    def layout_of(self, part: Layout, file: int) -> None:
        """The next bytes: all of `part`, whose file is this one of several."""
        files = np.full(len(part.starts), file, np.uint16)
        starts = part.starts + self._end
        self._end += part.size
        self._add(starts, part.kinds, part.places, files)

    def _add(
        self,
        starts: NDArray[np.int64],
        kinds: NDArray[np.uint8],
        places: NDArray[np.int64],
        files: NDArray[np.uint16],
    ) -> None:
        self._fresh.append(_merged(starts, kinds, np.where(kinds >= DATA, places, 0), files))
        if len(self._fresh) == _FRESH:
            self._gather()

    def _gather(self) -> None:
        if self._fresh:
            part = _joined(self._fresh)
            self._fresh = []
            self._parts.append(part)
            self._count += len(part[0])
        if self._count > MOST_RUNS:
            raise SourceFailed(f"its disk is in more than {MOST_RUNS:,} pieces; convert it with `qemu-img convert`")

    def layout(self, *, unit: int = 0, id: str = "", parent: Link | None = None) -> Layout:
        """What was added; zeros behind it, as far as the disk goes."""
        if self._end < self.size:
            self.run(ZERO, self.size - self._end)
        self._gather()
        columns = _joined(self._parts) if self._parts else _NOTHING
        return Layout(self.size, *columns, unit=unit, id=id, parent=parent)


_Columns = tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint16]]
_NOTHING: _Columns = (np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.uint16))
_FRESH = 1024
_SLICE = 1 << 20


def _joined(parts: list[_Columns]) -> _Columns:
    starts, kinds, places, files = zip(*parts, strict=True)
    return _merged(np.concatenate(starts), np.concatenate(kinds), np.concatenate(places), np.concatenate(files))


def _merged(
    starts: NDArray[np.int64], kinds: NDArray[np.uint8], places: NDArray[np.int64], files: NDArray[np.uint16]
) -> _Columns:
    """The same runs without those that only go on with the one before."""
    if len(starts) < 2:
        return starts, kinds, places, files
    same = (kinds[1:] == kinds[:-1]) & (kinds[1:] != DEFLATED)
    beside = (places[1:] - places[:-1] == starts[1:] - starts[:-1]) & (files[1:] == files[:-1])
    first = np.append(True, ~(same & ((kinds[1:] < DATA) | beside)))
    return starts[first], kinds[first], places[first], files[first]


def check(layout: Layout, sizes: Sequence[int]) -> Layout:
    """The same layout, if it can be true of files of these `sizes`; else `SourceFailed`. Takes little memory."""
    count = len(layout.starts)
    if not all(len(column) == count for column in (layout.kinds, layout.places, layout.files)) or count > MOST_RUNS:
        raise SourceFailed("its tables do not fit together")
    if not 0 <= layout.size <= LARGEST or (count == 0) != (layout.size == 0):
        raise SourceFailed(f"its tables do not fit a disk of {layout.size} bytes")
    if count and layout.starts[0] != 0:
        raise SourceFailed("its tables are not in order")
    limits = np.array(sizes, np.int64)
    for first in range(0, count, _SLICE):
        _check_part(layout, slice(first, first + _SLICE), limits)
    return layout


def _check_part(layout: Layout, part: slice, sizes: NDArray[np.int64]) -> None:
    starts, kinds, places, files = layout.starts[part], layout.kinds[part], layout.places[part], layout.files[part]
    ends = np.append(starts[1:], layout.starts[part.stop] if part.stop < len(layout.starts) else layout.size)
    if not bool(np.all(starts < ends)):
        raise SourceFailed("its tables are not in order")
    if int(kinds.max()) > DEFLATED or int(files.max()) >= len(sizes):
        raise SourceFailed("its tables name what there is not")
    if layout.parent is None and bool(np.any(kinds == PARENT)):
        raise SourceFailed("it leaves out what its parent has, and has no parent")
    if bool(np.any((kinds == DEFLATED) & (ends - starts > layout.unit))):
        raise SourceFailed("its compressed grains do not fit its tables")
    room = _room(kinds, ends - starts)
    outside = (kinds >= DATA) & ((places < 0) | (places > sizes[files] - room))
    if bool(np.any(outside)):
        worst = int(np.argmax(outside))
        raise SourceFailed(
            f"its table places a block at {int(places[worst])}, and the file has {int(sizes[files[worst]])} bytes; it "
            "was cut short or damaged"
        )


def _room(kinds: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bytes of the file that are a run's own as far as its layout tells: of a grain, it is the marker that does."""
    return np.where(kinds == DEFLATED, 1, lengths)


def check_apart(layout: Layout) -> Layout:
    """The same layout of one file, if no byte of that is given out twice; else `SourceFailed`. For parsers: whoever
    believes them in nothing loses nothing where they are wrong in this."""
    stored = layout.kinds >= DATA
    places, room = layout.places[stored], _room(layout.kinds, layout.ends() - layout.starts)[stored]
    order = np.argsort(places)
    places, room = places[order], room[order]
    twice = places[:-1] + room[:-1] > places[1:]
    if bool(np.any(twice)):
        raise SourceFailed(
            f"its table gives the bytes at {int(places[1:][np.argmax(twice)])} to two blocks; it is damaged"
        )
    return layout
