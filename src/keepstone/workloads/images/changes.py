# SPDX-License-Identifier: Apache-2.0
"""What a source lists of its disk, in whole chunks.

A chunk that is listed in part, or as zeros in part, has to be read whole: what is stored of it is one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from keepstone.disks import BlockSource, Extent

__all__ = ["Listing", "listed"]


def listed(source: BlockSource, since: str | None, kept: int, chunk: int) -> Iterator[Extent]:
    """Ascending ranges of whole chunks, none of them twice: what changed `since` that state in the first `kept` bytes,
    and everything behind them; without `since` everything."""
    if since is None:
        kept = 0
    before = _within(source.extents(since), 0, kept) if kept else ()
    behind = _within(source.extents(), kept, source.size) if kept < source.size else ()
    return _whole(chain(before, behind), source.size, chunk)


def _within(extents: Iterable[Extent], start: int, end: int) -> Iterator[Extent]:
    for extent in extents:
        begin, stop = max(start, extent.offset), min(end, extent.end)
        if begin < stop:
            yield Extent(begin, stop - begin, extent.zero)


def _whole(extents: Iterable[Extent], size: int, chunk: int) -> Iterator[Extent]:
    end = 0
    for extent in extents:
        for begin, stop, zero in _parts(extent, size, chunk):
            begin = max(end, begin // chunk * chunk)
            stop = min(size, -(-stop // chunk) * chunk)
            if begin < stop:
                yield Extent(begin, stop - begin, zero)
                end = stop


def _parts(extent: Extent, size: int, chunk: int) -> list[tuple[int, int, bool]]:
    """(start, end, zero): the whole chunks of a range of zeros, and what is not whole beside them."""
    start, stop = extent.offset, extent.end
    first = -(-start // chunk) * chunk
    last = stop if stop == size else stop // chunk * chunk
    if not extent.zero or first >= last:
        return [(start, stop, False)]
    return [(start, first, False), (first, last, True), (last, stop, False)]


class Listing:
    """Ranges that are taken leaf by leaf."""

    def __init__(self, extents: Iterator[Extent]) -> None:
        self._extents = extents
        self._next: Extent | None = None

    def before(self, end: int) -> list[Extent]:
        """What comes next, up to this offset."""
        taken = []
        while (extent := self._next or next(self._extents, None)) is not None:
            self._next = None
            if extent.end > end:
                cut = max(end, extent.offset)
                self._next = Extent(cut, extent.end - cut, extent.zero)
                if cut > extent.offset:
                    taken.append(Extent(extent.offset, cut - extent.offset, extent.zero))
                break
            taken.append(extent)
        return taken
