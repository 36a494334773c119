# SPDX-License-Identifier: Apache-2.0
"""Which parts of a disk have to be read: whole chunks that are not known to be zero, in pieces of `SEGMENT`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keepstone.disks import Extent
from keepstone.store import DISK_CHUNK, SEGMENT

__all__ = ["segments"]


def segments(extents: Iterable[Extent], size: int, chunk: int = DISK_CHUNK) -> Iterator[list[tuple[int, int]]]:
    """For each segment of the disk that has data: (offset, length) of its data, in ascending order.

    Ranges begin on chunks and end on chunks or at the end of the disk (`size`), and do not overlap.
    """
    current: list[tuple[int, int]] = []
    for start, end in _chunked(extents, size, chunk):
        while start < end:
            stop = min(end, (start // SEGMENT + 1) * SEGMENT)
            if current and current[0][0] // SEGMENT != start // SEGMENT:
                yield current
                current = []
            current.append((start, stop - start))
            start = stop
    if current:
        yield current


def _chunked(extents: Iterable[Extent], size: int, chunk: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the data, widened to chunks; none of them is given twice."""
    end = 0
    for extent in extents:
        start = max(end, extent.offset // chunk * chunk)
        stop = min(size, -(-extent.end // chunk) * chunk)
        if not extent.zero and start < stop:
            yield start, stop
            end = stop
