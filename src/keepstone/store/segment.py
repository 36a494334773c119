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
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from keepstone.env import Env

__all__ = ["Segment", "merge_segments", "prefixes", "read_segment", "write_segment"]

U64 = npt.NDArray[np.uint64]

_MAGIC = b"KSINDEX1"
_HEADER = struct.Struct("<8sIIQ")
_PAGE = 4096
_FENCE = 512  # values of a page
_ID = 32
_SLICES = 64  # a merge works through this many equal parts of the key space, to bound its memory


def prefixes(ids: bytes | bytearray) -> U64:
    """The first eight bytes of each of these 32-byte ids as sortable numbers."""
    column: U64 = np.frombuffer(ids, dtype=">u8")[::4].astype(np.uint64)
    return column


class Segment:
    """Sorted hints. `packs` is the table that the places' upper halves index."""

    __slots__ = ("_fences", "_owner", "packs", "place", "prefix")

    def __init__(self, packs: list[bytes], prefix: U64, place: U64, owner: mmap.mmap | None = None) -> None:
        self.packs = packs
        self.prefix = prefix
        self.place = place
        self._owner = owner  # keeps the mapping alive
        self._fences: U64 = np.ascontiguousarray(prefix[::_FENCE])

    def __len__(self) -> int:
        return len(self.prefix)

    @classmethod
    def build(cls, packs: list[bytes], ids: bytes | bytearray, place: U64) -> Segment:
        """Sort ids (32 bytes each) and their places."""
        unsorted = prefixes(ids)
        order = np.argsort(unsorted, kind="stable")
        return cls(packs, unsorted[order], place[order])

    def find(self, wanted: U64) -> list[tuple[int, int]]:
        """(which, place): for each hit the position in `wanted` and the place. Several hits for one value are possible.

        Fences in memory, every 512th prefix, lead to one page of the column. In the pages all are looked for at once,
        by halves: for batches of 64 twice as fast as one after the other, for batches of 1,000 five times.
        """
        prefix, rows = self.prefix, len(self)
        if not rows:
            return []
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
            hits += zip(which.tolist(), self.place.take(at).tolist(), strict=True)
            at += 1
            more = (at < rows) & (prefix.take(at, mode="clip") == wanted[which])
            which, at = which[more], at[more]
        return hits


def _aligned(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _write(env: Env, fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = env.fs.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def write_segment(env: Env, path: str, packs: list[bytes], rows: int, parts: Iterable[tuple[U64, U64]]) -> None:
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
            _write(env, fd, prefix.astype("<u8", copy=False).tobytes(), table + 8 * at)
            _write(env, fd, place.astype("<u8", copy=False).tobytes(), table + _aligned(8 * rows) + 8 * at)
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
    prefix = np.frombuffer(mapped, "<u8", rows, table)
    place = np.frombuffer(mapped, "<u8", rows, table + _aligned(8 * rows))
    return Segment([ids[at : at + _ID] for at in range(0, len(ids), _ID)], prefix, place, mapped)


def _numbers(mapping: npt.NDArray[np.int64], place: U64) -> npt.NDArray[np.int64]:
    """The new number of the pack of each place; -1 for none, also where a damaged segment names a pack it has not."""
    if not len(mapping):
        return np.full(len(place), -1, np.int64)
    old = (place >> np.uint64(32)).astype(np.int64)
    return np.where((old >= 0) & (old < len(mapping)), mapping[np.clip(old, 0, len(mapping) - 1)], -1)


def merge_segments(segments: list[Segment], dead: set[bytes]) -> tuple[list[bytes], int, Iterator[tuple[U64, U64]]]:
    """(packs, rows, sorted parts) of one segment in place of these, without the packs in `dead`; memory is bounded
    by 1/64 of the result."""
    packs: list[bytes] = []
    numbers: dict[bytes, int] = {}
    maps: list[npt.NDArray[np.int64]] = []
    for segment in segments:
        for pack in segment.packs:
            if pack not in dead and pack not in numbers:
                numbers[pack] = len(packs)
                packs.append(pack)
        maps.append(np.array([numbers.get(pack, -1) for pack in segment.packs], np.int64))

    def parts() -> Iterator[tuple[U64, U64]]:
        for part in range(_SLICES):
            low = np.uint64(part << 58)
            prefix_parts, place_parts = [], []
            for segment, mapping in zip(segments, maps, strict=True):
                begin = int(np.searchsorted(segment.prefix, low, side="left"))
                last = part == _SLICES - 1
                end = (
                    len(segment)
                    if last
                    else int(np.searchsorted(segment.prefix, np.uint64(part + 1 << 58), side="left"))
                )
                place = segment.place[begin:end]
                number = _numbers(mapping, place)
                kept = number >= 0
                prefix_parts.append(segment.prefix[begin:end][kept])
                place_parts.append(
                    number[kept].astype(np.uint64) << np.uint64(32) | place[kept] & np.uint64(0xFFFFFFFF)
                )
            prefix = np.concatenate(prefix_parts)
            order = np.argsort(prefix, kind="stable")
            yield prefix[order], np.concatenate(place_parts)[order]

    rows = 0
    for segment, mapping in zip(segments, maps, strict=True):
        rows += int((_numbers(mapping, segment.place) >= 0).sum())
    return packs, rows, parts()
