# SPDX-License-Identifier: Apache-2.0
"""What was handed over is written once, in its order, by one at a time; a failure is everybody's, and nobody hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from keepstone.env import Env
from keepstone.errors import StorageError
from keepstone.objects import Buffer
from keepstone.workloads.images import writebehind
from keepstone.workloads.images.writebehind import WriteBehind
from tests.unit.images.test_gather import Disk

pytestmark = pytest.mark.store

SIZE = 4096


class Slow(Disk):
    """A sink that says when it is in a write, and waits until it may go on."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.inside = self.most = 0

    def write(self, offset: int, data: Buffer) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.begun.release()
        assert self.go.acquire(timeout=30)
        super().write(offset, data)
        self.inside -= 1


class Failing(Disk):
    """A sink that fails from its third write on."""

    def write(self, offset: int, data: Buffer) -> None:
        super().write(offset, data)
        if len(self.calls) >= 3:
            raise StorageError("the disk is gone")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writebehind, "BUFFER", SIZE)


def fill(behind: WriteBehind, number: int) -> None:
    """Hand over a buffer of this number, for its place on the disk."""
    buffer = behind.take()
    buffer.view[:] = bytes([number]) * SIZE
    behind.write(number * SIZE, buffer, 0, SIZE)
    behind.leave(buffer)


def waiting(work: Callable[[], object]) -> threading.Thread:
    """A thread that does this, and is still at it after a while."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    return thread


def test_one_write_at_a_time_in_their_order() -> None:
    disk = Slow(100 * SIZE)
    behind = WriteBehind(Env(threads=4), disk)
    for number in range(4):
        fill(behind, number)
    disk.go.release(100)
    for number in range(4, 100):
        fill(behind, number)

    behind.flush()

    assert disk.most == 1
    assert [offset for offset, _, _ in disk.calls] == [SIZE * number for number in range(100)]
    assert disk.content == b"".join(bytes([number]) * SIZE for number in range(100))
    behind.close()


def test_a_buffer_is_not_given_away_before_all_of_it_is_written() -> None:
    disk = Slow(100 * SIZE)
    behind = WriteBehind(Env(threads=2), disk)
    buffers = []
    for number in range(4):
        buffer = behind.take()
        buffers.append(buffer)
        behind.write(number * SIZE, buffer, 0, 1000)
        behind.write(number * SIZE + 1000, buffer, 1000, SIZE)
    taken: list[object] = []
    thread = waiting(lambda: taken.append(behind.take()))
    behind.leave(buffers[0])
    disk.go.release()
    assert disk.begun.acquire(timeout=30)
    assert disk.begun.acquire(timeout=30)
    thread.join(0.2)
    assert thread.is_alive()  # the second half of the first one is still to come
    disk.go.release()
    thread.join(30)

    assert taken == [buffers[0]]
    disk.go.release(100)
    behind.flush()
    behind.close()


def test_more_threads_than_spare_buffers_do_not_wait_for_one_another() -> None:
    disk = Disk(40 * 20 * SIZE)
    behind = WriteBehind(Env(threads=2), disk)
    barrier = threading.Barrier(40)

    def work(own: int) -> None:
        buffer = behind.join()
        barrier.wait(30)  # each of them has one
        for number in range(20):
            buffer.view[:] = bytes([own + 1]) * SIZE
            behind.write((20 * own + number) * SIZE, buffer, 0, SIZE)
            behind.leave(buffer)
            buffer = behind.take()
        barrier.wait(30)  # and none gives its last one back

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    behind.flush()

    assert disk.content == b"".join(bytes([number + 1]) * SIZE * 20 for number in range(40))
    behind.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failure_is_everybodys(threads: int) -> None:
    disk = Failing(100 * SIZE)
    behind = WriteBehind(Env(threads=threads), disk)

    def work(first: int) -> None:
        for number in range(first, first + 25):
            fill(behind, number)

    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(work, first) for first in range(0, 100, 25)]
        for one in ended:
            with pytest.raises(StorageError, match="gone"):
                one.result(30)
    with pytest.raises(StorageError, match="gone"):
        behind.flush()
    with pytest.raises(StorageError, match="gone"):
        behind.join()
    behind.close()
    assert len(disk.calls) == 3


def test_behind_close_nobody_is_in_the_sink() -> None:
    disk = Slow(4 * SIZE)
    behind = WriteBehind(Env(threads=2), disk)
    for number in range(4):
        fill(behind, number)
    assert disk.begun.acquire(timeout=30)
    thread = waiting(behind.close)
    disk.go.release(100)
    thread.join(30)

    assert disk.inside == 0
    assert len(disk.calls) == 1  # what waited is dropped


def test_no_thread_to_be_had_is_a_failure() -> None:
    class Poor(Env):
        def pool(self, more: int = 0) -> ThreadPoolExecutor:
            pool = ThreadPoolExecutor(1)
            pool.shutdown()
            return pool

    behind = WriteBehind(Poor(), Disk(SIZE))

    with pytest.raises(RuntimeError):
        fill(behind, 0)
    with pytest.raises(RuntimeError):
        behind.flush()
    behind.close()
