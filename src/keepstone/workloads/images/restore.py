# SPDX-License-Identifier: Apache-2.0
"""From a recovery point to a block sink.

Several leaves at a time, so that memory stays bounded; within them chunks are read in the order of the packs and
written out of order, by the threads that opened them.
"""

from __future__ import annotations

from itertools import groupby

from keepstone.disks import BlockSink, BlockSource
from keepstone.env import Env
from keepstone.errors import CorruptObject, UsageError
from keepstone.store import ZERO_REF, Reader
from keepstone.workloads.images.differing import Comparison
from keepstone.workloads.images.gather import Gather
from keepstone.workloads.images.leaf import LEAF_SPAN, read_leaf, read_root
from keepstone.workloads.progress import Progress

__all__ = ["image_size", "restore_image"]

_WINDOW = 8  # leaves whose chunks are read together


def image_size(reader: Reader) -> int:
    """Length of the disk in a point, in bytes."""
    return read_root(reader, reader.root())[0].size


def restore_image(
    env: Env, reader: Reader, sink: BlockSink, progress: Progress, *, existing: BlockSource | None = None
) -> None:
    """Write the whole disk into `sink` and finish it; on failure abort it.

    `existing` reads what the sink holds now: then only what differs from the point is written. `UsageError` where the
    sink is too small, `CorruptObject`, and what the sink raises.
    """
    comparison = None
    try:
        restore = _Restore(reader, sink, progress)
        if existing is not None:
            comparison = Comparison(env, reader, restore.image, existing)
        restore.run(comparison)
        sink.finish()
    except BaseException:
        sink.abort()
        raise
    finally:
        if comparison is not None:
            comparison.close()


class _Restore:
    """One run."""

    def __init__(self, reader: Reader, sink: BlockSink, progress: Progress) -> None:
        self._reader = reader
        self._sink = sink
        self._gather = Gather(sink)
        self._progress = progress
        self.image, _, self._leaves = read_root(reader, reader.root())
        if sink.size < self.image.size:
            raise UsageError(f"the target has {sink.size} bytes, {self.image.size} are needed; choose a larger one")

    def run(self, comparison: Comparison | None) -> None:
        """Write everything, or what the comparison finds to differ."""
        self._progress.expect(self.image.size)
        for first in range(0, len(self._leaves), _WINDOW):
            wanted: list[tuple[int, int]] = []
            for index in range(first, min(first + _WINDOW, len(self._leaves))):
                wanted += self._leaf(index, comparison)
            self._reader.fetch(wanted, self._write)
            self._gather.flush()

    def _leaf(self, index: int, comparison: Comparison | None) -> list[tuple[int, int]]:
        """(place, offset) of what has to be fetched for a leaf; its zeros are written at once."""
        _, refs = read_leaf(self._reader, self.image, self._leaves, index)
        start, step = index * LEAF_SPAN, self.image.chunk
        places: range | list[int] = range(len(refs))
        if comparison is not None:
            places = comparison.differing(index, refs)
            same = min(LEAF_SPAN, self.image.size - start) - sum(self._length(start + place * step) for place in places)
            self._progress.advance(same, reused=same)
        zeros = [place for place in places if refs[place] == ZERO_REF]
        for _, run in groupby(enumerate(zeros), lambda numbered: numbered[1] - numbered[0]):
            numbers = [place for _, place in run]
            offset = start + numbers[0] * step
            end = min(start + (numbers[-1] + 1) * step, self.image.size)
            self._sink.zero(offset, end - offset)
            self._progress.advance(end - offset, reused=end - offset)
        return [(refs[place], start + place * step) for place in places if refs[place] != ZERO_REF]

    def _length(self, offset: int) -> int:
        return min(self.image.chunk, self.image.size - offset)

    def _write(self, offset: int, chunk: memoryview) -> None:
        if len(chunk) != self._length(offset):
            raise CorruptObject(f"the chunk at byte {offset} of the disk has {len(chunk)} bytes; run verify")
        self._gather.write(offset, chunk)
        self._progress.advance(len(chunk))
