# SPDX-License-Identifier: Apache-2.0
"""From a recovery point to a block sink.

Several leaves at a time, so that memory stays bounded; within them chunks are read in the order of the packs and
written out of order, by the threads that opened them. What cannot be read from the store is narrowed down to single
chunks; only these are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from keepstone.disks import BlockSink, BlockSource
from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError, UsageError
from keepstone.store import ZERO_REF, Reader
from keepstone.workloads.images.differing import Comparison
from keepstone.workloads.images.gather import Gather
from keepstone.workloads.images.leaf import LEAF_SPAN, leaf_refs, read_root
from keepstone.workloads.progress import Progress
from keepstone.workloads.salvage import DAMAGE, fetch
from keepstone.workloads.undisturbed import undisturbed

__all__ = ["Lost", "image_size", "reported", "restore_image"]

_WINDOW = 8  # leaves whose chunks are read together


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes of the disk that were not restored, because of damage in the store."""

    offset: int
    length: int
    reason: str

    @property
    def where(self) -> str:
        """The range for people, both ends included."""
        return f"bytes {self.offset} to {self.offset + self.length - 1}"


def image_size(reader: Reader) -> int:
    """Length of the disk in a point, in bytes."""
    return read_root(reader, reader.root())[0].size


def restore_image(
    env: Env, reader: Reader, sink: BlockSink, progress: Progress, *, existing: BlockSource | None = None
) -> list[Lost]:
    """Write the whole disk into `sink` and finish it; on failure abort it.

    `existing` reads what the sink holds now: then only what differs from the point is written. Returns, in ascending
    order, what is damaged in the store and was left as it was in the sink, zeros in a new one. `UsageError` where the
    sink is too small, `CorruptObject` where the point is no sound one of a disk, and what the sink raises.
    """
    return undisturbed(env, progress, lambda told: _restored(env, reader, sink, told, existing))


def _restored(
    env: Env, reader: Reader, sink: BlockSink, progress: Progress, existing: BlockSource | None
) -> list[Lost]:
    comparison = None
    try:
        restore = _Restore(env, reader, sink, progress)
        try:
            if existing is not None:
                comparison = Comparison(env, reader, restore.image, existing)
            restore.run(comparison)
        finally:
            restore.close()
        sink.finish()
    except BaseException:
        sink.abort()
        raise
    finally:
        if comparison is not None:
            comparison.close()
    return reported(restore.lost, progress)


def reported(pieces: Iterable[Lost], progress: Progress) -> list[Lost]:
    """What is lost, in ascending order, after warning of each range."""
    lost = list(_joined(pieces))
    for piece in lost:
        progress.warn(b"", f"{piece.where} are not restored: {piece.reason}")
    return lost


def _joined(pieces: Iterable[Lost]) -> Iterator[Lost]:
    """Ascending, neighbours as one with the reason of the first."""
    last: Lost | None = None
    for piece in sorted(pieces, key=lambda piece: piece.offset):
        if last is not None and piece.offset == last.offset + last.length:
            last = Lost(last.offset, last.length + piece.length, last.reason)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


class _Forged(Exception):
    """Ends the restore of a point that is not sound; damage of the store is another thing."""


class _Restore:
    """One run, and the sink of its reader (`store.Roomy`). `lost`: what could not be read, in no order."""

    def __init__(self, env: Env, reader: Reader, sink: BlockSink, progress: Progress) -> None:
        self._reader = reader
        self._sink = sink
        self._progress = progress
        self.image, _, self._leaves = read_root(reader, reader.root())
        self.lost: list[Lost] = []
        self._done: set[int] = set()
        if sink.size < self.image.size:
            raise UsageError(f"the target has {sink.size} bytes, {self.image.size} are needed; choose a larger one")
        self._gather = Gather(env, sink)

    def close(self) -> None:
        """Nothing is written any more."""
        self._gather.close()

    def run(self, comparison: Comparison | None) -> None:
        """Write everything, or what the comparison finds to differ."""
        self._progress.expect(self.image.size)
        for first in range(0, len(self._leaves), _WINDOW):
            wanted: list[tuple[int, int]] = []
            for index in range(first, min(first + _WINDOW, len(self._leaves))):
                wanted += self._leaf(index, comparison)
            self._done.clear()
            try:
                fetch(self._reader, wanted, self, self._waits, self._lose)
            except _Forged as error:
                raise CorruptObject(str(error)) from error
            self._gather.flush()

    def _leaf(self, index: int, comparison: Comparison | None) -> list[tuple[int, int]]:
        """(place, offset) of what has to be fetched for a leaf; its zeros are written at once."""
        start, step = index * LEAF_SPAN, self.image.chunk
        try:
            node = self._reader.node(self._leaves[index])
        except DAMAGE as error:
            self.lost.append(Lost(start, min(LEAF_SPAN, self.image.size - start), str(error)))
            return []
        refs = leaf_refs(self._reader, self.image, node, index)
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

    def room(self, count: int) -> memoryview | None:
        return self._gather.room(count)

    def __call__(self, offset: int, chunk: memoryview) -> None:
        if len(chunk) != self._length(offset):
            raise _Forged(
                f"the chunk at byte {offset} of the disk has {len(chunk)} bytes; run `keepstone store verify`"
            )
        self._gather.write(offset, chunk)
        self._done.add(offset)
        self._progress.advance(len(chunk))

    def _waits(self, offset: int) -> bool:
        return offset not in self._done

    def _lose(self, offset: int, error: KeepstoneError) -> None:
        self.lost.append(Lost(offset, self._length(offset), str(error)))
