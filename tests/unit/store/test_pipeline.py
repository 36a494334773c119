# SPDX-License-Identifier: Apache-2.0
"""The backup pipeline over a store that is a list."""

from __future__ import annotations

import gc
import hashlib
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.crypto import hashing
from keepstone.errors import KeepstoneError, SourceFailed, StorageFull
from keepstone.store.frame import CODEC_RAW, CODEC_ZSTD, Frame, expand, make_frame
from keepstone.store.pipeline import SEGMENT, Chunks, Pipeline, Scratch
from tests.unit.store.known import Machine, piece

pytestmark = pytest.mark.store

Work = Callable[[Scratch], Chunks]

WAIT = 20  # seconds after which a test that hangs gives up


class Shelf:
    """A `ChunkStore`: chunks get their places in the order in which they are appended."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.old: dict[bytes, int] = {}
        self.frames: list[Frame] = []
        self.asked: list[list[bytes]] = []
        self.sampled: list[bool] = []
        self.appender: set[int] = set()
        self.full_after = 1 << 30
        self.slow: Callable[[], object] = lambda: None

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return hashlib.sha256(chunk).digest()

    def known(self, ids: list[bytes], hints: list[int]) -> list[int | None]:
        self.asked.append(ids)
        self.slow()
        hinted = [hint if 0 <= hint < len(self.chunks) else None for hint in hints]
        return [
            self.old[identity]
            if identity in self.old
            else hint
            if hint is not None and self.identify(self.chunks[hint]) == identity
            else None
            for identity, hint in zip(ids, hinted or [None] * len(ids), strict=True)
        ]

    def appended(self, place: int) -> bytes:
        return self.identify(self.chunks[place])

    def compress(self, data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool) -> Frame:
        self.sampled.append(sample)
        return make_frame(hashing("blake3"), 1, data, ids, lengths, sample=sample)

    def append(self, frame: Frame) -> int:
        self.appender.add(threading.get_ident())
        if len(self.frames) >= self.full_after:
            raise StorageFull("no room left")
        self.frames.append(frame)
        first, at = len(self.chunks), 0
        data = bytes(expand(frame.payload, frame.codec, frame.raw_length))
        for length in frame.lengths:
            self.chunks.append(data[at : at + length])
            at += length
        return first


@pytest.fixture(params=[0, 1, 4], ids=lambda count: f"{count} threads")
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def pipeline(shelf: Shelf, threads: int) -> Iterator[Pipeline]:
    made = Pipeline(Machine(threads=threads), shelf)
    yield made
    made.close()


def failing(error: BaseException) -> Callable[[Scratch], Chunks]:
    def read(scratch: Scratch) -> Chunks:
        raise error

    return read


def results(pipeline: Pipeline, pieces: Sequence[Sequence[bytes]], limit: int = 100) -> list[list[int]]:
    """The places of each piece, in the order in which `done` told them."""
    told: list[list[int]] = []
    for chunks in pieces:
        pipeline.submit(piece(chunks, frame_limit=limit), lambda refs, _: told.append(refs))
    pipeline.drain()
    return told


def test_done_in_order_on_the_callers_thread(pipeline: Pipeline, shelf: Shelf) -> None:
    """However long each piece takes to read."""
    told: list[tuple[int, int]] = []
    delays = [0.02, 0, 0.01, 0, 0, 0.015, 0, 0, 0, 0.005, 0, 0]
    for number, delay in enumerate(delays):

        def read(scratch: Scratch, number: int = number, delay: float = delay) -> Chunks:
            time.sleep(delay)
            return piece([b"%d" % number])(scratch)._replace(info=number)

        pipeline.submit(read, lambda refs, info: told.append((info, threading.get_ident())))
    pipeline.drain()

    assert told == [(number, threading.get_ident()) for number in range(len(delays))]
    assert shelf.appender == {threading.get_ident()}


def test_places(pipeline: Pipeline, shelf: Shelf) -> None:
    told = results(pipeline, [[b"a", b"b"], [], [b"c"], [b"a", b"d", b"a"]])

    assert [[shelf.chunks[ref] for ref in refs] for refs in told] == [[b"a", b"b"], [], [b"c"], [b"a", b"d", b"a"]]
    assert sorted(shelf.chunks) == [b"a", b"b", b"c", b"d"]


def test_duplicates_within_a_piece(pipeline: Pipeline, shelf: Shelf) -> None:
    (refs,) = results(pipeline, [[b"x", b"y", b"x", b"x", b"y"]])

    assert [shelf.chunks[ref] for ref in refs] == [b"x", b"y", b"x", b"x", b"y"]
    assert shelf.chunks == [b"x", b"y"]


def test_duplicates_across_pieces_in_flight(pipeline: Pipeline, shelf: Shelf) -> None:
    told = results(pipeline, [[b"same", b"%d" % number] for number in range(40)])

    assert [[shelf.chunks[ref] for ref in refs] for refs in told] == [[b"same", b"%d" % number] for number in range(40)]
    assert shelf.chunks.count(b"same") == 1
    assert len(shelf.chunks) == 41


def test_a_piece_that_depends_on_a_later_one() -> None:
    """The second piece is quicker and claims the common chunk; the first one is settled first all the same, and both
    get its place."""
    shelf = Shelf()
    pipeline = Pipeline(Machine(threads=2), shelf)
    claimed = threading.Event()
    told: list[tuple[str, list[int]]] = []

    def first(scratch: Scratch) -> Chunks:
        assert claimed.wait(WAIT)
        return piece([b"mine", b"common", b"end"])(scratch)

    def second(scratch: Scratch) -> Chunks:
        return piece([b"common", b"yours"])(scratch)

    compress = shelf.compress

    def noticed(data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool) -> Frame:
        claimed.set()  # claims are made before anything is compressed
        return compress(data, ids, lengths, sample=sample)

    shelf.compress = noticed  # type: ignore[method-assign]
    pipeline.submit(first, lambda refs, _: told.append(("first", refs)))
    pipeline.submit(second, lambda refs, _: told.append(("second", refs)))
    pipeline.drain()
    pipeline.close()

    assert [(name, [shelf.chunks[ref] for ref in refs]) for name, refs in told] == [
        ("first", [b"mine", b"common", b"end"]),
        ("second", [b"common", b"yours"]),
    ]
    assert len(shelf.chunks) == 4


def test_two_pieces_that_depend_on_each_other() -> None:
    """Each brings a chunk that the other one needs: no knot."""
    shelf = Shelf()
    pipeline = Pipeline(Machine(threads=2), shelf)
    barrier = threading.Barrier(2)
    shelf.slow = lambda: barrier.wait(WAIT)  # both have looked up before either claims
    told: list[list[int]] = []
    pipeline.submit(piece([b"a", b"b"]), lambda refs, _: told.append(refs))
    pipeline.submit(piece([b"b", b"a"]), lambda refs, _: told.append(refs))
    pipeline.drain()
    pipeline.close()

    assert [[shelf.chunks[ref] for ref in refs] for refs in told] == [[b"a", b"b"], [b"b", b"a"]]
    assert len(shelf.chunks) == 2


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=3), max_size=12), max_size=20),
    st.sampled_from([0, 1, 3]),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_against_a_dict(pieces: list[list[bytes]], threads: int, limit: int, chance: random.Random) -> None:
    shelf = Shelf()
    shelf.chunks = [b"old", b"older"]
    shelf.old = {shelf.identify(chunk): place for place, chunk in enumerate(shelf.chunks)}
    pieces = [
        [chance.choice([b"old", b"older"]) if chance.random() < 0.1 else chunk for chunk in chunks] for chunks in pieces
    ]
    pipeline = Pipeline(Machine(threads=threads), shelf)
    try:
        told = results(pipeline, pieces, limit)
    finally:
        pipeline.close()

    assert [[shelf.chunks[ref] for ref in refs] for refs in told] == pieces
    assert len(shelf.chunks) == len(set(shelf.chunks))
    assert set(shelf.chunks) == {b"old", b"older", *(chunk for chunks in pieces for chunk in chunks)}
    assert all(frame.raw_length <= max(limit, *frame.lengths) for frame in shelf.frames)
    assert sum(frame.raw_length for frame in shelf.frames) == sum(map(len, shelf.chunks[2:]))


def test_a_frame_beside_noise_is_sampled(shelf: Shelf) -> None:
    """But none of another piece: what is stored does not depend on which came first."""
    noise = random.Random(1).randbytes
    pipeline = Pipeline(Machine(threads=0), shelf)

    results(pipeline, [[noise(300), noise(300), bytes(300), bytes(301)], [noise(300)]], limit=300)

    assert shelf.sampled == [False, True, True, False, False]
    assert [frame.codec for frame in shelf.frames] == [CODEC_RAW, CODEC_RAW, CODEC_ZSTD, CODEC_ZSTD, CODEC_RAW]
    pipeline.close()


def test_hints(pipeline: Pipeline, shelf: Shelf) -> None:
    shelf.chunks = [b"zero", b"one"]
    told: list[int] = []
    pipeline.submit(piece([b"one", b"two", b"zero"], [1, 0, -1]), lambda refs, _: told.extend(refs))
    pipeline.drain()

    assert told[0] == 1
    assert [shelf.chunks[ref] for ref in told] == [b"one", b"two", b"zero"]
    assert told[2] != 0  # nobody hinted at it


def test_work_submitted_by_done(pipeline: Pipeline, shelf: Shelf) -> None:
    """A directory is known when its files are: `done` may submit more, and `drain` waits for that too."""
    told: list[bytes] = []

    def deeper(depth: int) -> Callable[[list[int], Any], None]:
        def done(refs: list[int], _: Any) -> None:
            told.append(shelf.chunks[refs[0]])
            if depth:
                pipeline.submit(piece([b"%d" % depth]), deeper(depth - 1))

        return done

    pipeline.submit(piece([b"top"]), deeper(3))
    pipeline.drain()

    assert told == [b"top", b"3", b"2", b"1"]


# Failures


def raises_sooner_or_later(pipeline: Pipeline, work: Work, done: Callable[[list[int], Any], None]) -> BaseException:
    def call() -> None:
        pipeline.submit(work, done)
        pipeline.drain()

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - which one is what the caller looks at
        call()
    return caught.value


def is_dead(pipeline: Pipeline, error: BaseException) -> None:
    """Every later call raises, so that a caller who swallowed the first error cannot commit a point without its
    data."""
    for call in (partial(pipeline.submit, piece([b"x"]), print), pipeline.drain):
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            call()
        assert caught.value is error or isinstance(caught.value, KeepstoneError)


def test_a_read_that_fails_in_the_middle(pipeline: Pipeline, shelf: Shelf) -> None:
    told: list[int] = []
    error = SourceFailed("disk /dev/x cannot be read")

    def write() -> None:
        for number in range(30):
            work = failing(error) if number == 10 else piece([b"%d" % number])
            pipeline.submit(work, lambda refs, _, number=number: told.append(number))  # type: ignore[misc]
        pipeline.drain()

    with pytest.raises(SourceFailed) as caught:
        write()
    assert caught.value is error
    assert told == list(range(len(told)))
    assert len(told) <= 10
    is_dead(pipeline, error)


def test_a_read_that_fails_alone(pipeline: Pipeline) -> None:
    error = SourceFailed("gone")

    assert raises_sooner_or_later(pipeline, failing(error), lambda refs, _: None) is error
    is_dead(pipeline, error)


def test_an_append_that_fails(pipeline: Pipeline, shelf: Shelf) -> None:
    shelf.full_after = 2
    with pytest.raises(StorageFull) as caught:
        results(pipeline, [[b"%d" % number] for number in range(20)])

    is_dead(pipeline, caught.value)


def test_a_done_that_fails(pipeline: Pipeline) -> None:
    """Nobody knows then what the workload has noted of this piece."""
    error = ValueError("a bug of the workload")

    def done(refs: list[int], _: Any) -> None:
        raise error

    assert raises_sooner_or_later(pipeline, piece([b"x"]), done) is error
    is_dead(pipeline, error)


def test_a_piece_that_depends_on_one_that_fails() -> None:
    """It claimed a chunk and then broke: who refers to that chunk breaks as well, rather than name a place that never
    was."""
    shelf = Shelf()
    pipeline = Pipeline(Machine(threads=2), shelf)
    claimed = threading.Event()
    told: list[str] = []

    def compress(data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool) -> Frame:
        claimed.set()
        raise MemoryError

    def depends(scratch: Scratch) -> Chunks:
        assert claimed.wait(WAIT)
        return piece([b"common"])(scratch)

    shelf.compress = compress  # type: ignore[method-assign]
    pipeline.submit(depends, lambda refs, _: told.append("depends"))
    pipeline.submit(piece([b"common"]), lambda refs, _: told.append("breaks"))
    with pytest.raises(MemoryError):
        pipeline.drain()
    pipeline.close()

    assert told == []
    assert shelf.chunks == []


def test_closed(pipeline: Pipeline) -> None:
    pipeline.submit(piece([b"x"]), lambda refs, _: None)
    pipeline.close()
    pipeline.close()

    with pytest.raises((KeepstoneError, RuntimeError)):
        pipeline.submit(piece([b"x"]), lambda refs, _: None)


# Memory


def test_a_closed_pipeline_has_no_buffers(pipeline: Pipeline) -> None:
    """Its store is still there, and knows it, as one that writes a point does."""
    views: list[weakref.ref[memoryview]] = []

    def read(number: int) -> Work:
        def noted(scratch: Scratch) -> Chunks:
            views.append(weakref.ref(scratch.view))
            return piece([b"%d" % number])(scratch)

        return noted

    gc.disable()
    try:
        for number in range(20):
            pipeline.submit(read(number), lambda refs, _: None)
        pipeline.drain()
        assert any(view() is not None for view in views)  # one after the other has them

        pipeline.close()

        assert not any(view() is not None for view in views)
    finally:
        gc.enable()


def test_a_bounded_number_of_pieces_is_in_flight(threads: int) -> None:
    """However far ahead the caller could run: buffers and frames of `2 * threads + 1` pieces at most."""
    shelf = Shelf()
    pipeline = Pipeline(Machine(threads=threads), shelf)
    lock = threading.Lock()
    flying = most = 0
    buffers = set()

    def read(scratch: Scratch) -> Chunks:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
            buffers.add(id(scratch))
            assert len(scratch.view) >= SEGMENT
        return piece([random.randbytes(50)])(scratch)

    def done(refs: list[int], _: Any) -> None:
        nonlocal flying
        with lock:
            flying -= 1

    for _ in range(60):
        pipeline.submit(read, done)
    pipeline.drain()
    pipeline.close()

    assert most <= 2 * threads + 1
    assert len(buffers) <= max(1, threads)


def test_claims_beyond_a_number_become_columns(threads: int, shelf: Shelf) -> None:
    """No chunk is stored twice for it, and the store is not asked for what is in a column."""
    pipeline = Pipeline(Machine(threads=threads), shelf, spill=3)
    try:
        for number in range(10):
            results(pipeline, [[b"%d" % number]])
        assert len(pipeline._claims) <= 4
        shelf.asked.clear()

        (refs,) = results(pipeline, [[b"3", b"new", b"0", b"3"]])
    finally:
        pipeline.close()

    assert [shelf.chunks[ref] for ref in refs] == [b"3", b"new", b"0", b"3"]
    assert len(shelf.chunks) == 11
    assert shelf.asked == [[shelf.identify(b"new")]]


@pytest.mark.parametrize("size", [1 << 20, 6 << 20], ids=["copied", "lent"])
def test_a_buffer_is_not_filled_again_before_its_frames_are_appended(
    pipeline: Pipeline, shelf: Shelf, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored as it is may lie in it until then."""
    count, part = 24, 1 << 20
    appending = shelf.append

    def append(frame: Frame) -> int:
        time.sleep(0.002)  # the workers are ahead
        return appending(frame)

    monkeypatch.setattr(shelf, "append", append)

    def noise(number: int) -> bytes:
        return random.Random(number).randbytes(size)

    def read(scratch: Scratch, number: int) -> Chunks:
        scratch.view[:size] = noise(number)
        return Chunks(scratch.view[:size], [part] * (size // part), [], None)

    told: list[list[int]] = []
    for number in range(count):
        pipeline.submit(partial(read, number=number), lambda refs, _: told.append(refs))
    pipeline.drain()

    assert [b"".join(shelf.chunks[ref] for ref in refs) for refs in told] == [noise(number) for number in range(count)]
