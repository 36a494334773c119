# SPDX-License-Identifier: Apache-2.0
"""Chunks become long writes, and nothing is written but chunks."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.env import Env
from keepstone.objects import PAGE, Buffer, is_aligned
from keepstone.workloads.images import gather, writebehind
from keepstone.workloads.images.gather import Gather
from keepstone.workloads.images.writebehind import BUFFER, FillBuffer

pytestmark = pytest.mark.store

CHUNK = 4 * PAGE
FRAME = 4 * CHUNK
JUNK = b"\xee"


class Disk:
    """A sink that keeps what it is given. `calls`: (offset, length, whether it lies on a page in memory)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.content = bytearray(size)
        self.calls: list[tuple[int, int, bool]] = []

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data)
        assert offset + len(view) <= self.size
        self.content[offset : offset + len(view)] = view
        self.calls.append((offset, len(view), is_aligned(view)))

    def zero(self, offset: int, length: int) -> None:
        raise AssertionError("nobody gathers zeros")

    def finish(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


class Late(Disk):
    """One that writes nothing before it is told to."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.go = threading.Event()

    def write(self, offset: int, data: Buffer) -> None:
        assert self.go.wait(30)
        super().write(offset, data)


@pytest.fixture(params=[0, 2])
def env(request: pytest.FixtureRequest) -> Env:
    """One in which all is written at once, and one in which that is another thread's."""
    return Env(threads=request.param)


def opened(gather: Gather, chunks: list[bytes]) -> list[memoryview]:
    """The chunks of a frame as a reader opens it, in the room for it where there is one."""
    data = b"".join(chunks)
    room = gather.room(len(data))
    if room is None:
        room = memoryview(bytearray(data))
    room[:] = data
    views, at = [], 0
    for chunk in chunks:
        views.append(room[at : at + len(chunk)])
        at += len(chunk)
    return views


def test_frames_that_follow_one_another_are_one_write_without_a_copy(env: Env) -> None:
    disk = Disk(8 * FRAME)
    gathering = Gather(env, disk)
    data = [os.urandom(CHUNK) for _ in range(8)]
    for frame in (data[:4], data[4:]):
        for view in opened(gathering, frame):
            gathering.write(FRAME + CHUNK * data.index(bytes(view)), view)
    assert disk.calls == []

    gathering.flush()
    gathering.flush()

    assert disk.calls == [(FRAME, 2 * FRAME, True)]
    assert disk.content[FRAME : 3 * FRAME] == b"".join(data)


def test_what_nobody_wrote_stays_where_it_is(env: Env) -> None:
    """A chunk that failed its check, and one that nobody wants, lie between others in memory and never reach the
    disk."""
    disk = Disk(8 * FRAME)
    gathering = Gather(env, disk)
    first, bad, last = opened(gathering, [b"a" * CHUNK, JUNK * CHUNK, b"b" * CHUNK])
    gathering.write(0, first)
    gathering.write(CHUNK, last)  # neighbours on the disk, not in memory
    del bad
    opened(gathering, [JUNK * CHUNK] * 4)  # a frame of which nothing is good
    gathering.flush()

    assert disk.content == (b"a" * CHUNK + b"b" * CHUNK).ljust(8 * FRAME, b"\0")
    assert [(offset, length) for offset, length, _ in disk.calls] == [(0, CHUNK), (CHUNK, CHUNK)]


def test_no_room_for_more_than_there_is(env: Env) -> None:
    gathering = Gather(env, Disk(FRAME))

    assert gathering.room(BUFFER + 1) is None
    whole = gathering.room(BUFFER)
    assert whole is not None
    assert len(whole) == BUFFER
    assert is_aligned(whole)


def test_room_that_is_used_again_is_written_before(env: Env) -> None:
    disk = Disk(3 * BUFFER)
    gathering = Gather(env, disk)
    pieces = [bytes([number]) * (BUFFER // 2) for number in range(1, 6)]
    for number, piece in enumerate(pieces):
        (view,) = opened(gathering, [piece])
        gathering.write(number * len(piece), view)
    gathering.flush()

    assert disk.content == b"".join(pieces).ljust(disk.size, b"\0")
    assert len(disk.calls) == 3


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_waits_is_overwritten_by_nothing(elsewhere: bool) -> None:
    """A chunk that is wanted again lies before others that are not written yet; what comes then lies behind all."""
    disk = Late(4 * CHUNK)
    gathering = Gather(Env(threads=2), disk)
    first, second = opened(gathering, [b"a" * CHUNK, b"b" * CHUNK])
    for offset, view in ((0, first), (CHUNK, second), (2 * CHUNK, first)):
        gathering.write(offset, view)
    (last,) = [memoryview(b"c" * CHUNK)] if elsewhere else opened(gathering, [b"c" * CHUNK])
    gathering.write(3 * CHUNK, last)
    disk.go.set()
    gathering.flush()

    assert disk.content == b"".join(letter * CHUNK for letter in (b"a", b"b", b"a", b"c"))


def test_a_buffer_that_was_written_is_filled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[None] = []

    class Counted(FillBuffer):
        def __init__(self) -> None:
            super().__init__()
            made.append(None)

    monkeypatch.setattr(writebehind, "FillBuffer", Counted)
    monkeypatch.setattr(writebehind, "_SPARE", 1000)
    disk = Disk(20 * BUFFER)
    gathering = Gather(Env(threads=0), disk)
    for number in range(20):
        (view,) = opened(gathering, [bytes([number]) * BUFFER])
        gathering.write(number * BUFFER, view)
    gathering.flush()

    assert disk.content == b"".join(bytes([number]) * BUFFER for number in range(20))
    assert len(made) == 1


def test_threads_have_room_of_their_own(env: Env) -> None:
    disk = Disk(16 * FRAME)
    gathering = Gather(env, disk)
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        views = opened(gathering, [bytes([16 * number + at + 1]) * CHUNK for at in range(4)])
        barrier.wait()
        for at, view in enumerate(views):
            gathering.write(number * FRAME + at * CHUNK, view)
        barrier.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gathering.flush()

    expected = b"".join(bytes([16 * number + at + 1]) * CHUNK for number in range(4) for at in range(4))
    assert disk.content == expected.ljust(disk.size, b"\0")
    assert sorted(offset for offset, _, _ in disk.calls) == [number * FRAME for number in range(4)]


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 3 * PAGE), st.integers(0, 2)), min_size=1, max_size=5),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
    st.sampled_from([0, 2]),
)
def test_any_frames_in_any_order(
    frames: list[tuple[list[tuple[int, int]], bool]], chance: object, threads: int
) -> None:
    """Chunks of any length, wanted once, twice or not at all, in frames that lie in the room or elsewhere, for the disk
    in any order."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (gather, writebehind):
            patch.setattr(module, "BUFFER", 12 * PAGE)
        patch.setattr(writebehind, "_SPARE", 1000)
        places: dict[tuple[int, int, int], int] = {}
        size = 0
        order = [
            (number, at, time)
            for number, (chunks, _) in enumerate(frames)
            for at, (_, times) in enumerate(chunks)
            for time in range(times)
        ]
        if len(order) % 2:
            chance.shuffle(order)  # type: ignore[attr-defined]
        for number, at, time in order:
            places[number, at, time] = size
            size += frames[number][0][at][0]
        disk, expected = Late(size), bytearray(size)
        if not threads:
            disk.go.set()
        gathering = Gather(Env(threads=threads), disk)
        for number, (chunks, elsewhere) in enumerate(frames):
            data = [os.urandom(length) if times else JUNK * length for length, times in chunks]
            views = [memoryview(one) for one in data] if elsewhere else opened(gathering, data)
            for time in range(2):
                for at, (view, (_, times)) in enumerate(zip(views, chunks, strict=True)):
                    if time < times:
                        place = places[number, at, time]
                        gathering.write(place, view)
                        expected[place : place + len(view)] = data[at]
        disk.go.set()
        gathering.flush()
        gathering.close()

        assert disk.content == expected
