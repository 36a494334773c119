# SPDX-License-Identifier: Apache-2.0
"""A segment of the chunk index: an immutable, sorted run of hints from chunk id to place.

Columns, all little-endian: `prefix` u64, sorted: the first eight bytes of each chunk id (big-endian value, so that
order of values is order of ids); `place` u64: index into the segment's own table of packs << 32 | position. Sixteen
bytes a chunk.

A segment is a hint and nothing more: every hit is compared with the pack's footer before it is used, so a stale,
damaged or forged segment can cost deduplication but never data. That is also why the whole id need not be in it.

File: magic, u32 format, u32 number of packs, u64 number of rows, pack ids, prefix column, place column, each column
from a multiple of 4096. It is written beside and renamed, and lies in the cache folder of the machine, never in the
store.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from math import isqrt
from typing import TYPE_CHECKING, TypeAlias

from keepstone.env import Env

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Column", "Segment", "merge_segments", "prefixes", "read_segment", "write_segment"]

Column: TypeAlias = "array[int] | memoryview"
"""Values of u64, in the machine's own order of bytes."""

_MAGIC = b"KSINDEX1"
_HEADER = struct.Struct("<8sIIQ")
_PAGE = 4096
_FENCE = 512  # values of a page
_ID = 32
_SLICES = 64  # a merge of more than `_SHORT` works through so many equal parts of the key space, to bound its memory
_FEW = 64
"""As many values are looked for one by one. To import numpy costs a tenth of a second, a tenth of what a daily backup
of a disk takes; so it is left to larger batches and larger columns, where it is two to five times as fast."""
_SHORT = 1 << 16  # rows that are sorted without it


def prefixes(ids: bytes | bytearray) -> array[int]:
    """The first eight bytes of each of these 32-byte ids as sortable numbers."""
    column = array("Q", ids)[:: _ID // 8]
    if sys.byteorder == "little":
        column.byteswap()
    return column


class Segment:
    """Sorted hints. `packs` is the table that the places' upper halves index."""

    __slots__ = ("_fences", "packs", "place", "prefix")

    def __init__(self, packs: list[bytes], prefix: Column, place: Column) -> None:
        self.packs = packs
        self.prefix = memoryview(prefix)
        self.place = memoryview(place)
        self._fences: npt.NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.prefix)

    @classmethod
    def build(cls, packs: list[bytes], ids: bytes | bytearray, place: Column) -> Segment:
        """Sort ids (32 bytes each) and their places."""
        prefix = prefixes(ids)
        if len(prefix) <= _SHORT:
            order = sorted(range(len(prefix)), key=prefix.__getitem__)
            return cls(packs, array("Q", [prefix[at] for at in order]), array("Q", [place[at] for at in order]))
        import numpy as np

        sorting = np.argsort(prefix, kind="stable")
        return cls(packs, np.asarray(prefix)[sorting].data, np.asarray(place)[sorting].data)

    def find(self, wanted: Column) -> list[tuple[int, int]]:
        """(which, place): for each hit the position in `wanted` and the place. A value can have several hits."""
        if not len(self):
            return []
        return self._one_by_one(wanted.tolist()) if len(wanted) < _FEW else self._together(wanted)

    def _one_by_one(self, wanted: list[int]) -> list[tuple[int, int]]:
        """Ids are spread evenly, so a value tells where it is, but for the square root of the rows; and what stands
        there tells how far it is from there, but for the square root of that. Where this is wrong, in a damaged or
        odd column, all of it is searched.
        """
        prefix, place, rows = self.prefix, self.place, len(self)
        reach = 8 * isqrt(isqrt(rows)) + 8
        hits = []
        for which, key in enumerate(wanted):
            guess = key * rows >> 64
            guess = min(max(guess + ((key - prefix[guess]) * rows >> 64), 0), rows)
            low, high = max(0, guess - reach), min(rows, guess + reach)
            if low and prefix[low - 1] >= key:
                low = 0
            if high < rows and prefix[high] < key:
                high = rows
            at = bisect_left(prefix, key, low, high)
            while at < rows and prefix[at] == key:
                hits.append((which, place[at]))
                at += 1
        return hits

    def _together(self, values: Column) -> list[tuple[int, int]]:
        """Fences in memory, every 512th prefix, lead to one page of the column each; in the pages all values are looked
        for at once, by halves.
        """
        import numpy as np

        wanted, prefix, rows = np.asarray(values), np.asarray(self.prefix), len(self)
        if self._fences is None:
            self._fences = np.ascontiguousarray(prefix[::_FENCE])
        at = np.maximum(np.searchsorted(self._fences, wanted, side="left") - 1, 0) * _FENCE
        step = _FENCE // 2
        while step:
            at += (prefix.take(at + (step - 1), mode="clip") < wanted) * step
            step //= 2
        at += prefix.take(at, mode="clip") < wanted  # the first that is not less; past the end, where all are
        hits: list[tuple[int, int]] = []
        which = np.flatnonzero(prefix.take(at, mode="clip") == wanted)
        at = at[which]
        while len(at):
            hits += zip(which.tolist(), np.asarray(self.place).take(at).tolist(), strict=True)
            at += 1
            more = (at < rows) & (prefix.take(at, mode="clip") == wanted[which])
            which, at = which[more], at[more]
        return hits


def _aligned(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _write(env: Env, fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = env.fs.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _stored(column: Column) -> memoryview:
    """The bytes of a column in a file."""
    if sys.byteorder == "big":
        column = array("Q", column.tolist())
        column.byteswap()
    return memoryview(column).cast("B")


def write_segment(env: Env, path: str, packs: list[bytes], rows: int, parts: Iterable[tuple[Column, Column]]) -> None:
    """Write a segment of `rows` rows whose sorted parts come one after the other; renamed into place at the end.

    Raises OSError; a segment is a cache, the caller goes on without it.
    """
    beside = path + ".new"
    table = _aligned(_HEADER.size + _ID * len(packs))
    fd = env.fs.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(env, fd, _HEADER.pack(_MAGIC, 1, len(packs), rows) + b"".join(packs), 0)
        at = 0
        for prefix, place in parts:
            _write(env, fd, _stored(prefix), table + 8 * at)
            _write(env, fd, _stored(place), table + _aligned(8 * rows) + 8 * at)
            at += len(prefix)
        env.fs.ftruncate(fd, table + _aligned(8 * rows) + 8 * rows)
        env.fs.fsync(fd)
    finally:
        env.fs.close(fd)
    env.fs.rename(beside, path)


def read_segment(env: Env, path: str) -> Segment | None:
    """Map a segment; None where the file is not one (the packs it covered are then read again)."""
    try:
        fd = env.fs.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = env.fs.fstat(fd).st_size
        if size < _HEADER.size:
            return None
        mapped = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    except OSError:
        return None
    finally:
        env.fs.close(fd)
    magic, version, packs, rows = _HEADER.unpack_from(mapped)
    table = _aligned(_HEADER.size + _ID * packs)
    if magic != _MAGIC or version != 1 or size != table + _aligned(8 * rows) + 8 * rows:
        return None
    ids = mapped[_HEADER.size : _HEADER.size + _ID * packs]
    table_of_packs = [ids[at : at + _ID] for at in range(0, len(ids), _ID)]
    return Segment(table_of_packs, _loaded(mapped, table, rows), _loaded(mapped, table + _aligned(8 * rows), rows))


def _loaded(mapped: mmap.mmap, offset: int, rows: int) -> memoryview | array[int]:
    column = memoryview(mapped)[offset : offset + 8 * rows]
    if sys.byteorder == "little":
        return column.cast("Q")
    copied = array("Q", column)
    copied.byteswap()
    return copied


def _numbers(mapping: npt.NDArray[np.int64], place: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The new number of the pack of each place; -1 for none, also where a damaged segment names a pack it has not."""
    import numpy as np

    if not len(mapping):
        return np.full(len(place), -1, np.int64)
    old = (place >> np.uint64(32)).astype(np.int64)
    return np.where((old >= 0) & (old < len(mapping)), mapping[np.clip(old, 0, len(mapping) - 1)], -1)


def merge_segments(
    segments: list[Segment], dead: set[bytes]
) -> tuple[list[bytes], int, Iterator[tuple[Column, Column]]]:
    """(packs, rows, sorted parts) of one segment in place of these, without the packs in `dead`; memory is bounded
    by 1/64 of the result, where that is large."""
    import numpy as np

    columns = [(np.asarray(segment.prefix), np.asarray(segment.place)) for segment in segments]
    packs: list[bytes] = []
    numbers: dict[bytes, int] = {}
    maps: list[npt.NDArray[np.int64]] = []
    for segment in segments:
        for pack in segment.packs:
            if pack not in dead and pack not in numbers:
                numbers[pack] = len(packs)
                packs.append(pack)
        maps.append(np.array([numbers.get(pack, -1) for pack in segment.packs], np.int64))

    slices = _SLICES if sum(map(len, segments)) > _SHORT else 1
    edges = np.array([part * ((1 << 64) // slices) for part in range(slices)], np.uint64)
    bounds = [[*np.searchsorted(prefixes, edges, side="left").tolist(), len(prefixes)] for prefixes, _ in columns]

    def parts() -> Iterator[tuple[Column, Column]]:
        for part in range(slices):
            prefix_parts, place_parts = [], []
            for (prefixes, places), mapping, bound in zip(columns, maps, bounds, strict=True):
                begin, end = bound[part : part + 2]
                place = places[begin:end]
                number = _numbers(mapping, place)
                kept = number >= 0
                prefix_parts.append(prefixes[begin:end][kept])
                place_parts.append(
                    number[kept].astype(np.uint64) << np.uint64(32) | place[kept] & np.uint64(0xFFFFFFFF)
                )
            prefix = np.concatenate(prefix_parts)
            order = np.argsort(prefix, kind="stable")
            yield prefix[order].data, np.concatenate(place_parts)[order].data

    rows = 0
    for (_, places), mapping in zip(columns, maps, strict=True):
        rows += int((_numbers(mapping, places) >= 0).sum())
    return packs, rows, parts()
