# SPDX-License-Identifier: Apache-2.0
"""Which chunks of a disk are not what they should be: what an in-place restore has to write.

What the disk holds is read, holes left out, and compared by chunk id, so nothing is fetched from the store for it.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future

from keepstone.disks import BlockSource
from keepstone.env import Env
from keepstone.objects import BufferPool, is_zero, round_up
from keepstone.store import SEGMENT, ZERO_REF, Reader
from keepstone.workloads.images.leaf import LEAF_SPAN, Image
from keepstone.workloads.images.segments import segments
from keepstone.workloads.salvage import DAMAGE

__all__ = ["Comparison"]


class Comparison:
    """Compares a disk with a point, leaf by leaf in ascending order."""

    def __init__(self, env: Env, reader: Reader, image: Image, existing: BlockSource) -> None:
        self._reader = reader
        self._image = image
        self._existing = existing
        self._buffers = BufferPool(SEGMENT)
        self._pool = env.pool()
        self._limit = 2 * env.threads
        self._pieces = segments(existing.extents(), min(existing.size, image.size), image.chunk)
        self._piece = next(self._pieces, None)

    def differing(self, index: int, refs: list[int]) -> list[int]:
        """Which chunks of the leaf with this index, whose places are `refs`, the disk does not hold; ascending."""
        start = index * LEAF_SPAN
        held = [ref == ZERO_REF for ref in refs]  # right where nobody reads anything
        queue: deque[Future[list[tuple[int, bool]]]] = deque()
        while self._piece is not None and self._piece[0][0] < start + LEAF_SPAN:
            queue.append(self._pool.submit(self._compare, start, self._piece, refs))
            self._piece = next(self._pieces, None)
            while len(queue) > self._limit:
                _note(held, queue.popleft().result())
        for future in queue:
            _note(held, future.result())
        return [place for place, same in enumerate(held) if not same]

    def _compare(self, start: int, ranges: list[tuple[int, int]], refs: list[int]) -> list[tuple[int, bool]]:
        """(index, whether the disk holds it) of each chunk in these ranges."""
        step = self._image.chunk
        found: list[tuple[int, bool]] = []
        buffer = self._buffers.take()
        for offset, length in ranges:
            self._existing.pread_into(buffer[: round_up(length)], offset)
            for place, at in enumerate(range(0, length, step), (offset - start) // step):
                found.append((place, self._holds(refs[place], buffer[at : min(at + step, length)])))
        self._buffers.give(buffer)
        return found

    def _holds(self, ref: int, chunk: memoryview) -> bool:
        if ref == ZERO_REF:
            return is_zero(chunk)
        try:
            return self._reader.identify(chunk) == self._reader.chunk_id(ref)
        except DAMAGE:
            return False  # it will be fetched, which tells what is wrong

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _note(held: list[bool], found: list[tuple[int, bool]]) -> None:
    for place, same in found:
        held[place] = same
