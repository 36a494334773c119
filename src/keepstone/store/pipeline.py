# SPDX-License-Identifier: Apache-2.0
"""The backup pipeline: read, cut, hash, look up, compress beside one another; append in order.

A piece of work (`submit`) is read and cut by the workload and then hashed, looked up and compressed by the store,
all on one worker thread and in one page-aligned buffer; the big calls run outside the interpreter lock. The caller's
thread alone appends frames to packs and calls `done`, in the order of submission.

Invariants
* A chunk id is claimed by at most one piece of work (`dict.setdefault`); a piece that finds a claim of another one
  refers to its chunk, and is settled after it. Claims are made only after reading succeeded, so a claim is always kept
  unless the whole backup fails.
* Where more than half of a piece is stored as it is, its buffer is nobody else's before its frames are appended: they
  lie there still. Less than that is copied.
* At most `2 * threads + 1` pieces are in flight: memory is bounded by their buffers. Beyond `spill` claims those that
  are settled become sorted columns.
* What a piece does with many short calls, and what the caller's thread does between its waits, is done in one lane
  (`lane.py`).
* After any failure the pipeline is dead: every later call raises `WriterFailed` or the first error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from keepstone.env import Env
from keepstone.objects import aligned
from keepstone.store.frame import CODEC_RAW, FRAME_LIMIT, Frame
from keepstone.store.lane import Lane

if TYPE_CHECKING:
    from keepstone.store.spilled import SpilledIds

__all__ = ["SEGMENT", "ChunkStore", "Chunks", "Pipeline", "Pipelined", "Scratch"]

SEGMENT = 8 << 20
"""Bytes that one piece of work should read at most."""
_SLACK = 1 << 20
_SPILL = 1 << 16  # chunk ids that are held as Python objects before they become a sorted column


class Scratch:
    """The buffer of a piece of work: `SEGMENT` bytes and some slack, page aligned; one after the other has it."""

    __slots__ = ("view",)

    def __init__(self) -> None:
        self.view = aligned(SEGMENT + _SLACK)


class Chunks(NamedTuple):
    """What a piece of work read: `data`, in its scratch, cut into chunks of these `lengths`.

    `hints`: places where the chunks may already be (the parent's), or empty. `info` is handed to `done` untouched.
    `frame_limit`: bytes of new chunks after which a frame is closed.
    """

    data: memoryview
    lengths: list[int]
    hints: list[int]
    info: Any
    frame_limit: int = FRAME_LIMIT


class ChunkStore(Protocol):
    """What the pipeline asks of the store: this is the seam between local and remote writing."""

    def identify(self, chunk: memoryview) -> bytes:
        """The chunk's id."""

    def known(self, ids: list[bytes], hints: list[int]) -> list[int | None]:
        """Where these chunks are already, None where they are not. Called by workers."""

    def compress(self, data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool) -> Frame:
        """Make a frame, which may refer to `data` until it is appended. `sample`: what was beside it did not get
        smaller, so a sample of it may be enough of a try. Called by workers."""

    def append(self, frame: Frame) -> int:
        """Store a frame; the place of its first chunk. Called by one thread."""

    def appended(self, place: int) -> bytes | None:
        """The id of a chunk that was appended. Called by workers."""


class _Piece:
    """Work in flight. `placed`: where its own new chunks went; `depends`: by index, the piece that brings a chunk
    which this one needs. `scratch`: its buffer, as long as frames refer to it."""

    __slots__ = ("depends", "done", "frames", "future", "ids", "info", "placed", "refs", "scratch")

    def __init__(self, done: Callable[[list[int], Any], None]) -> None:
        self.done = done
        self.future: Future[None]
        self.frames: list[Frame] = []
        self.ids: list[bytes] = []
        self.refs: list[int | None] = []
        self.depends: dict[int, _Piece] = {}
        self.placed: dict[bytes, int] | None = None
        self.scratch: Scratch | None = None
        self.info: Any = None


class Pipeline:
    """See the module. One thread calls `submit` and `drain`, and takes the `lane` if it makes many short calls."""

    def __init__(self, env: Env, store: ChunkStore, *, spill: int | None = None) -> None:
        self.lane = Lane()
        self._store = store
        self._spill = _SPILL if spill is None else spill
        self._spilled: SpilledIds | None = None
        self._pool = env.pool()
        self._limit = 2 * env.threads
        self._queue: deque[_Piece] = deque()
        self._claims: dict[bytes, int | _Piece] = {}
        self._free: list[Scratch] = []
        self._failed: BaseException | None = None

    def submit(
        self, read: Callable[[Scratch], Chunks], done: Callable[[list[int], Any], None], *, short_calls: bool = False
    ) -> None:
        """Queue a piece of work; `done(places, info)` is called later on this thread.

        `short_calls`: reading it takes many of them, and its chunks are small. An exception of `read` comes out of this
        or a later call.
        """
        if self._failed is not None:
            raise self._failed
        piece = _Piece(done)
        piece.future = self._pool.submit(self._work, piece, read, short_calls)
        self._queue.append(piece)
        while len(self._queue) > self._limit:
            self._settle_first()
        if len(self._claims) > self._spill:
            self._spill_claims()

    def drain(self) -> None:
        """Settle everything that was submitted, and what its `done` submits."""
        if self._failed is not None:
            raise self._failed
        while self._queue:
            self._settle_first()

    def close(self) -> None:
        """Stop the workers; what is in flight is dropped, and so are the buffers: the pipeline and its store know each
        other, and are there until somebody collects garbage."""
        self._failed = self._failed or RuntimeError("the pipeline is closed")
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._queue.clear()
        self._claims.clear()
        self._free.clear()

    def _spill_claims(self) -> None:
        """Put those whose place is final into the columns, and only then out of the claims: nobody misses them."""
        from keepstone.store.spilled import SpilledIds

        if self._spilled is None:
            self._spilled = SpilledIds(self._store.appended)
        settled = {identity: place for identity, place in self._claims.copy().items() if isinstance(place, int)}
        self._spilled.add(settled)
        for identity in settled:
            del self._claims[identity]

    def _work(self, piece: _Piece, read: Callable[[Scratch], Chunks], short_calls: bool) -> None:
        try:
            scratch = self._free.pop()
        except IndexError:
            scratch = Scratch()
        identify = self._store.identify
        with self.lane.taken() if short_calls else nullcontext():
            data, lengths, hints, piece.info, frame_limit = read(scratch)
            ends = list(accumulate(lengths))
            ids = piece.ids = [identify(data[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
        if lengths:
            piece.refs = refs = self._look_up(ids, hints)
            self._compress(piece, data, lengths, ends, self._claim(piece, ids, refs), frame_limit)
        lent = [index for index, frame in enumerate(piece.frames) if isinstance(frame.payload, memoryview)]
        if 2 * sum(len(piece.frames[index].payload) for index in lent) > SEGMENT:
            piece.scratch = scratch
            return
        for index in lent:
            piece.frames[index] = replace(piece.frames[index], payload=bytes(piece.frames[index].payload))
        self._free.append(scratch)

    def _claim(self, piece: _Piece, ids: list[bytes], refs: list[int | None]) -> list[int]:
        """Which chunks are this piece's to bring, by index, the first of each; what else it needs is noted."""
        new: dict[bytes, int] = {}
        for index, ref in enumerate(refs):
            if ref is None:
                identity = ids[index]
                claim = self._claims.setdefault(identity, piece)
                if claim is piece:
                    new.setdefault(identity, index)
                elif isinstance(claim, int):
                    refs[index] = claim
                else:
                    piece.depends[index] = claim
        return list(new.values())

    def _look_up(self, ids: list[bytes], hints: list[int]) -> list[int | None]:
        claims = self._claims
        claimed = [claims.get(identity) for identity in ids]
        if not any(claim is None for claim in claimed):
            return [claim if isinstance(claim, int) else None for claim in claimed]
        refs = self._known(
            ids, hints, [identity for identity, claim in zip(ids, claimed, strict=True) if claim is None]
        )
        return [
            claim if isinstance(claim, int) else None if claim is not None else ref
            for claim, ref in zip(claimed, refs, strict=True)
        ]

    def _known(self, ids: list[bytes], hints: list[int], unclaimed: list[bytes]) -> list[int | None]:
        """Where the chunks are that nobody has claimed: in a column, or where the store says."""
        spilled = self._spilled.find(unclaimed) if self._spilled is not None else {}
        if not spilled:
            return self._store.known(ids, hints)
        rest = [index for index, identity in enumerate(ids) if identity not in spilled]
        refs = [spilled.get(identity) for identity in ids]
        if rest:
            found = self._store.known([ids[index] for index in rest], [hints[index] for index in rest] if hints else [])
            for index, ref in zip(rest, found, strict=True):
                refs[index] = ref
        return refs

    def _compress(
        self, piece: _Piece, data: memoryview, lengths: list[int], ends: list[int], new: list[int], limit: int
    ) -> None:
        at = 0
        while at < len(new):
            group: list[int] = []
            size = 0
            while at < len(new) and (not group or size + lengths[new[at]] <= limit):
                group.append(new[at])
                size += lengths[new[at]]
                at += 1
            first, last = group[0], group[-1]
            whole: bytes | memoryview
            if last - first + 1 == len(group):
                whole = data[ends[first] - lengths[first] : ends[last]]
            else:
                whole = b"".join([data[ends[index] - lengths[index] : ends[index]] for index in group])
            sample = bool(piece.frames) and piece.frames[-1].codec == CODEC_RAW
            ids = [piece.ids[index] for index in group]
            piece.frames.append(self._store.compress(whole, ids, [lengths[index] for index in group], sample=sample))

    def _append(self, piece: _Piece) -> dict[bytes, int]:
        if piece.placed is None:
            with self.lane.left():
                piece.future.result()
            placed: dict[bytes, int] = {}
            for frame in piece.frames:
                first = self._store.append(frame)
                placed.update(zip(frame.ids, range(first, first + len(frame.ids)), strict=True))
            piece.frames = []
            if piece.scratch is not None:
                self._free.append(piece.scratch)
                piece.scratch = None
            self._claims.update(placed)
            piece.placed = placed
        return piece.placed

    def _settle_first(self) -> None:
        piece = self._queue.popleft()
        try:
            placed = self._append(piece)
            refs = []
            for index, (identity, ref) in enumerate(zip(piece.ids, piece.refs, strict=True)):
                if ref is None:
                    other = piece.depends.get(index)
                    ref = (placed if other is None else self._append(other))[identity]
                refs.append(ref)
            piece.done(refs, piece.info)
        except BaseException as error:
            self._failed = self._failed or error
            raise


class Pipelined:
    """What a writer leaves to its pipeline."""

    _pipeline: Pipeline

    @property
    def lane(self) -> Lane:
        """That of the pipeline."""
        return self._pipeline.lane

    def submit(
        self, read: Callable[[Scratch], Chunks], done: Callable[[list[int], Any], None], *, short_calls: bool = False
    ) -> None:
        """As `Pipeline.submit`."""
        self._pipeline.submit(read, done, short_calls=short_calls)

    def drain(self) -> None:
        """As `Pipeline.drain`."""
        self._pipeline.drain()
