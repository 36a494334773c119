# SPDX-License-Identifier: Apache-2.0
"""Reading every byte of packs: frames, chunk ids, checksums.

The calling thread reads, span by span, and feeds the checksum, which goes in order; workers open what was read. So all
processors work until the end, however few packs there are. Damage ends nothing: where a frame cannot be read or opened
the next one is, so that all that is lost is known, chunk by chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128

from keepstone.env import Pool
from keepstone.errors import CorruptObject, KeepstoneError, StorageError
from keepstone.objects import aligned
from keepstone.store.context import Context
from keepstone.store.footer import HEADER_SIZE, TRAILER_SIZE, Footer, parse_trailer
from keepstone.store.layout import pack_name
from keepstone.store.packs import Packs

__all__ = ["Scrubbed", "scrub"]

_READ = 8 << 20  # bytes of one span, unless a single frame is longer
_AHEAD = 1  # spans beside those that the workers have in hand: each takes memory that was in no cache
_PAGE = 4096
_BEHIND = 24  # bytes of the checksum and of what follows it
_ALL = np.ones(1, np.bool_)  # goes with the marks of a pack of any length

_Loss = tuple[int, int, KeepstoneError]


class Scrubbed(msgspec.Struct):
    """What is known of a pack of so many chunks. `read`: bytes of chunks that the storage gave. `lost`: by position,
    which chunks can be had no more, all of them where it is one long; None while all can. `error`: the first thing
    that is wrong."""

    pack: bytes
    chunks: int
    read: int = 0
    lost: npt.NDArray[np.bool_] | None = None
    error: KeepstoneError | None = None

    def lose(self, first: int, end: int, error: KeepstoneError) -> None:
        """The chunks at these positions cannot be had."""
        if self.lost is None:
            self.lost, self.error = np.zeros(self.chunks, np.bool_), error
        self.lost[first:end] = True


class _Span(msgspec.Struct):
    """Neighbouring frames that were read: `sealed` lies in `buffer`."""

    scrubbed: Scrubbed
    footer: Footer
    first: int
    last: int
    buffer: memoryview
    sealed: memoryview


class _Unread(msgspec.Struct):
    """A frame that the storage does not give."""

    scrubbed: Scrubbed
    loss: _Loss


class _End(msgspec.Struct):
    """A pack of `size` bytes was read to its end, where `error` is wrong: that counts where no chunk is lost."""

    scrubbed: Scrubbed
    size: int
    error: KeepstoneError | None


def scrub(
    context: Context, packs: Packs, sizes: Mapping[bytes, int], tick: Callable[[int, int], None] | None = None
) -> Iterator[Scrubbed]:
    """Read packs of these sizes whole. `tick(done, all)` tells stored bytes.

    Where a pack is gone, or its header or footer cannot be read, all of its chunks are lost.
    """
    pool = context.env.pool()
    try:
        yield from _Scrub(context, packs, pool, tick or (lambda done, whole: None)).run(sizes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Scrub:
    """One run; the buffers of spans that are over serve the next ones."""

    def __init__(self, context: Context, packs: Packs, pool: Pool, tick: Callable[[int, int], None]) -> None:
        self._context = context
        self._packs = packs
        self._pool = pool
        self._tick = tick
        self._free: list[memoryview] = []

    def run(self, sizes: Mapping[bytes, int]) -> Iterator[Scrubbed]:
        whole, done, within = sum(sizes.values()), 0, 0
        for step, losses in self._in_order(self._steps(sizes)):
            for loss in losses:
                step.scrubbed.lose(*loss)
            if isinstance(step, _Span):
                within += len(step.sealed)
                self._free.append(step.buffer)
            elif isinstance(step, _End):
                done, within = done + step.size, 0
                if step.scrubbed.lost is None:
                    step.scrubbed.error = step.error
                yield step.scrubbed
            self._tick(done + within, whole)

    def _in_order(
        self, steps: Iterator[_Span | _Unread | _End]
    ) -> Iterator[tuple[_Span | _Unread | _End, list[_Loss]]]:
        """Each step with what it lost; spans are opened by the workers, so many at a time."""
        waiting: deque[tuple[_Span | _Unread | _End, Future[list[_Loss]] | None]] = deque()
        for step in steps:
            waiting.append((step, self._pool.submit(self._open, step) if isinstance(step, _Span) else None))
            while len(waiting) > self._context.env.threads + _AHEAD:
                yield self._settled(*waiting.popleft())
        while waiting:
            yield self._settled(*waiting.popleft())

    @staticmethod
    def _settled(
        step: _Span | _Unread | _End, opened: Future[list[_Loss]] | None
    ) -> tuple[_Span | _Unread | _End, list[_Loss]]:
        if opened is not None:
            return step, opened.result()
        return step, [step.loss] if isinstance(step, _Unread) else []

    def _steps(self, sizes: Mapping[bytes, int]) -> Iterator[_Span | _Unread | _End]:
        for pack, size in sizes.items():
            try:
                yield from self._pack(pack, size)
            except KeepstoneError as error:
                yield _End(Scrubbed(pack, 0, lost=_ALL, error=error), size, None)

    def _pack(self, pack: bytes, size: int) -> Iterator[_Span | _Unread | _End]:
        footer = self._packs.footer(pack)
        checksum = xxh3_128()
        checksum.update(self._context.storage.read(pack_name(pack), 0, HEADER_SIZE))
        scrubbed = Scrubbed(pack, footer.chunks)
        frame = 0
        while frame < footer.frames:
            last = frame
            while last + 1 < footer.frames and footer.offsets[last + 2] - footer.offsets[frame] <= _READ:
                last += 1
            yield from self._spans(scrubbed, footer, frame, last, checksum)
            frame = last + 1
        yield _End(scrubbed, size, self._behind(footer, size, checksum))

    def _spans(
        self, scrubbed: Scrubbed, footer: Footer, first: int, last: int, checksum: xxh3_128
    ) -> Iterator[_Span | _Unread]:
        """Read some neighbouring frames, by one read where the storage gives them."""
        begin, end = footer.offsets[first], footer.offsets[last + 1]
        skip = begin % _PAGE
        size = -(-(end - begin + skip) // _PAGE) * _PAGE
        buffer = self._free.pop() if self._free else aligned(_READ + 2 * _PAGE)
        if len(buffer) < size:
            buffer = aligned(size)
        name = pack_name(footer.pack)
        try:
            if self._context.storage.read_into(name, begin - skip, buffer[:size]) < end - begin + skip:
                raise CorruptObject(f"{name} is shorter than its footer says; restore it from a copy")
        except (StorageError, CorruptObject) as error:
            self._free.append(buffer)
            if first == last:
                yield _Unread(scrubbed, (footer.first_chunk[first], footer.first_chunk[first + 1], error))
            else:  # one bad sector is no reason to give up its neighbours
                for frame in range(first, last + 1):
                    yield from self._spans(scrubbed, footer, frame, frame, checksum)
            return
        sealed = buffer[skip : skip + end - begin]
        checksum.update(sealed)
        scrubbed.read += sum(footer.frame_raw[first : last + 1])
        yield _Span(scrubbed, footer, first, last, buffer, sealed)

    def _behind(self, footer: Footer, size: int, checksum: xxh3_128) -> KeepstoneError | None:
        """What is wrong behind the frames, or with the checksum of all; no chunk depends on either."""
        frames, name = footer.offsets[-1], pack_name(footer.pack)
        try:
            rest = self._context.storage.read(name, frames)
            checksum.update(rest[:-_BEHIND])
            length, _, expected = parse_trailer(rest[-TRAILER_SIZE:], name)
            if frames + length + TRAILER_SIZE != size:
                raise CorruptObject(f"{name} has bytes that belong to nothing; restore it from a copy")
            if checksum.digest() != expected:
                raise CorruptObject(f"{name} does not match its checksum; restore it from a copy")
        except (CorruptObject, StorageError) as error:
            return error
        return None

    def _open(self, span: _Span) -> list[_Loss]:
        """Open the frames of a span and compare their chunks with their ids."""
        losses: list[_Loss] = []
        at = 0
        for frame in range(span.first, span.last + 1):
            length = span.footer.frame_lengths[frame]
            losses += self._frame(span.footer, frame, span.sealed[at : at + length])
            at += length
        return losses

    def _frame(self, footer: Footer, frame: int, sealed: memoryview) -> list[_Loss]:
        try:
            data = memoryview(self._packs.open_sealed(footer, frame, sealed))
        except CorruptObject as error:
            return [(footer.first_chunk[frame], footer.first_chunk[frame + 1], error)]
        return [(position, position + 1, error) for position, error in self._packs.check_ids(footer, frame, data)]
