# SPDX-License-Identifier: Apache-2.0
"""Chunks become long writes, and nothing is written but chunks."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.objects import PAGE, Buffer, is_aligned
from keepstone.workloads.images import gather
from keepstone.workloads.images.gather import Gather

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


def test_frames_that_follow_one_another_are_one_write_without_a_copy() -> None:
    disk = Disk(8 * FRAME)
    gathering = Gather(disk)
    data = [os.urandom(CHUNK) for _ in range(8)]
    for frame in (data[:4], data[4:]):
        for view in opened(gathering, frame):
            gathering.write(FRAME + CHUNK * data.index(bytes(view)), view)
    assert disk.calls == []

    gathering.flush()
    gathering.flush()

    assert disk.calls == [(FRAME, 2 * FRAME, True)]
    assert disk.content[FRAME : 3 * FRAME] == b"".join(data)


def test_what_nobody_wrote_stays_where_it_is() -> None:
    """A chunk that failed its check, and one that nobody wants, lie between others in memory and never reach the
    disk."""
    disk = Disk(8 * FRAME)
    gathering = Gather(disk)
    first, bad, last = opened(gathering, [b"a" * CHUNK, JUNK * CHUNK, b"b" * CHUNK])
    gathering.write(0, first)
    gathering.write(CHUNK, last)  # neighbours on the disk, not in memory
    del bad
    opened(gathering, [JUNK * CHUNK] * 4)  # a frame of which nothing is good
    gathering.flush()

    assert disk.content == (b"a" * CHUNK + b"b" * CHUNK).ljust(8 * FRAME, b"\0")
    assert [(offset, length) for offset, length, _ in disk.calls] == [(0, CHUNK), (CHUNK, CHUNK)]


def test_no_room_for_more_than_there_is() -> None:
    gathering = Gather(Disk(FRAME))

    assert gathering.room(gather._ROOM + 1) is None
    whole = gathering.room(gather._ROOM)
    assert whole is not None
    assert len(whole) == gather._ROOM
    assert is_aligned(whole)


def test_room_that_is_used_again_is_written_before() -> None:
    disk = Disk(3 * gather._ROOM)
    gathering = Gather(disk)
    pieces = [bytes([number]) * (gather._ROOM // 2) for number in range(1, 6)]
    for number, piece in enumerate(pieces):
        (view,) = opened(gathering, [piece])
        gathering.write(number * len(piece), view)
    gathering.flush()

    assert disk.content == b"".join(pieces).ljust(disk.size, b"\0")
    assert len(disk.calls) == 3


def test_threads_have_room_of_their_own() -> None:
    disk = Disk(16 * FRAME)
    gathering = Gather(disk)
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
            st.lists(st.tuples(st.integers(1, 3 * PAGE), st.booleans()), min_size=1, max_size=5),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_any_frames_in_any_order(frames: list[tuple[list[tuple[int, bool]], bool]], chance: object) -> None:
    """Chunks of any length, wanted or not, in frames that lie in the room or elsewhere, for the disk in any order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_ROOM", 12 * PAGE)
        places: dict[tuple[int, int], int] = {}
        size = 0
        order = [(frame, at) for frame, (chunks, _) in enumerate(frames) for at in range(len(chunks))]
        if len(order) % 2:
            chance.shuffle(order)  # type: ignore[attr-defined]
        for frame, at in order:
            places[frame, at] = size
            size += frames[frame][0][at][0]
        disk, expected = Disk(size), bytearray(size)
        gathering = Gather(disk)
        for frame, (chunks, elsewhere) in enumerate(frames):
            data = [os.urandom(length) if wanted else JUNK * length for length, wanted in chunks]
            views = [memoryview(one) for one in data] if elsewhere else opened(gathering, data)
            for at, (view, (_, wanted)) in enumerate(zip(views, chunks, strict=True)):
                if wanted:
                    gathering.write(places[frame, at], view)
                    expected[places[frame, at] : places[frame, at] + len(view)] = data[at]
        gathering.flush()

        assert disk.content == expected
