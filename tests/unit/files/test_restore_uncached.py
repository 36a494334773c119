# SPDX-License-Identifier: Apache-2.0
"""Contents written past the page cache: the same bytes whichever way they go, and whole pages only, once each."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.env import Env, FileSystem
from keepstone.errors import StorageFull
from keepstone.store import Store
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from keepstone.workloads.files.restore.uncached import UncachedWriter
from tests.unit.files.points import file, make_point

pytestmark = pytest.mark.store

PAGE = 4096
LARGE = 64 << 10
CONTENT = random.Random(7).randbytes(1 << 20)


class Disk(FileSystem):
    """One file in memory. `most`: bytes that one uncached write takes; `refusal`: what it raises instead."""

    def __init__(self, most: int = 1 << 30, refusal: Exception | None = None) -> None:
        self.content = bytearray()
        self.cached: list[tuple[int, int]] = []
        self.uncached: list[tuple[int, int]] = []
        self.asked = 0

        def put(data: Any, offset: int) -> int:
            end = offset + len(data)
            self.content += bytes(max(0, end - len(self.content)))
            self.content[offset:end] = data
            return len(data)

        def pwrite(fd: int, data: Any, offset: int) -> int:
            self.cached.append((offset, offset + len(data)))
            return put(data, offset)

        def pwritev(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            self.asked += 1
            assert flags == 0x80
            if refusal is not None:
                raise refusal
            count = put(buffers[0][:most], offset)
            self.uncached.append((offset, offset + count))
            return count

        self.pwrite = pwrite
        self.pwritev = pwritev


def pages(ranges: list[tuple[int, int]]) -> Counter[int]:
    return Counter(page for begin, end in ranges for page in range(begin // PAGE, -(-end // PAGE)))


@given(st.lists(st.integers(1, 200_000), max_size=8), st.sampled_from([1 << 30, 4096, 40_000]), st.randoms())
def test_what_is_written_and_how(lengths: list[int], most: int, chance: random.Random) -> None:
    """Chunks of any lengths, in any order, on a disk that takes a part of each write."""
    size = sum(lengths)
    wanted = (CONTENT * (size // len(CONTENT) + 1))[:size]
    disk = Disk(most - most % PAGE)
    writer = UncachedWriter(disk)
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    chunks = list(zip(starts, lengths, strict=True))
    chance.shuffle(chunks)

    for start, length in chunks:
        writer.write(0, memoryview(wanted)[start : start + length], start, size)

    assert disk.content == wanted
    assert all(begin % PAGE == 0 and (end % PAGE == 0 or end == size) for begin, end in disk.uncached)
    past, through = pages(disk.uncached), pages(disk.cached)
    assert max(past.values(), default=0) <= 1
    assert not past.keys() & through.keys()
    for start, length in chunks:  # but for its two ends a large one leaves nothing in the cache
        if length >= LARGE + 2 * PAGE:
            assert all(past[page] for page in range(-(-start // PAGE), (start + length) // PAGE))


def test_small_ones_stay_in_the_cache() -> None:
    disk = Disk()

    UncachedWriter(disk).write(0, memoryview(CONTENT)[: LARGE - 1], 0, LARGE - 1)

    assert (disk.uncached, disk.cached) == ([], [(0, LARGE - 1)])


@pytest.mark.parametrize(
    "refusal", [OSError(errno.EOPNOTSUPP, "x"), OSError(errno.ENOSYS, "x"), NotImplementedError("x")], ids=str
)
def test_a_system_that_knows_no_such_writes(refusal: Exception) -> None:
    """It is asked once; everything is written."""
    disk = Disk(refusal=refusal)
    writer = UncachedWriter(disk)

    for start in range(0, len(CONTENT), 1 << 18):
        writer.write(0, memoryview(CONTENT)[start : start + (1 << 18)], start, len(CONTENT))

    assert disk.content == CONTENT
    assert disk.asked == 1


def test_a_failure_is_none_of_these() -> None:
    with pytest.raises(OSError, match="no space") as caught:
        UncachedWriter(Disk(refusal=OSError(errno.ENOSPC, "no space"))).write(0, memoryview(CONTENT), 0, len(CONTENT))

    assert caught.value.errno == errno.ENOSPC


def cached(path: Path) -> bool:
    """Whether the first pages of a file are in memory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(PAGE)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_a_restored_file_is_not_in_memory(store: Store, tmp_path: Path) -> None:
    """Where the file system knows such writes; else it is there all the same."""
    known: list[bool] = []

    class Watched(FileSystem):
        @staticmethod
        def pwritev(*given: Any) -> int:
            try:
                count = os.pwritev(*given)
            except OSError:
                known.append(False)
                raise
            known.append(True)
            return count

    reader = make_point(store, file(b"large", CONTENT[:300_000], CONTENT[300_000:]), file(b"small", b"s"))
    restore_files(Env(threads=2, fs=Watched()), reader, tmp_path / "target", RestoreOptions(), Silent())
    os.sync()

    assert known
    until = time.monotonic() + 20  # the system drops them when it has written them
    while all(known) and cached(tmp_path / "target" / "large"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (tmp_path / "target" / "large").read_bytes() == CONTENT
    assert (tmp_path / "target" / "small").read_bytes() == b"s"


def test_a_full_disk(store: Store, tmp_path: Path) -> None:
    class Full(FileSystem):
        @staticmethod
        def pwritev(*given: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reader = make_point(store, file(b"large", CONTENT[:300_000], CONTENT[300_000:]))
    with pytest.raises(StorageFull):
        restore_files(Env(fs=Full()), reader, tmp_path / "target", RestoreOptions(), Silent())

    assert not (tmp_path / "target").exists()


def test_small_files_are_made_by_one_thread_at_a_time(store: Store, tmp_path: Path) -> None:
    """From the first file of a frame to its last nobody else makes one; large chunks are written meanwhile."""
    lock = threading.Lock()
    makers: set[int] = set()
    most = 0
    large = threading.Event()
    waited: list[bool] = []

    class Watched(FileSystem):
        @staticmethod
        def open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            nonlocal most
            if flags & os.O_CREAT and bytes(path).startswith(b"s"):
                with lock:
                    makers.add(threading.get_ident())
                    most = max(most, len(makers))
                if not waited:
                    waited.append(large.wait(30))
            return os.open(path, flags, *rest, **more)

        @staticmethod
        def close(fd: int) -> None:
            with lock:
                makers.discard(threading.get_ident())
            os.close(fd)

        @staticmethod
        def pwrite(fd: int, data: Any, offset: int) -> int:
            if offset > 100_000:
                large.set()
            return os.pwrite(fd, data, offset)

    chance = random.Random(3)
    small = [file(b"s%04d" % number, chance.randbytes(8000)) for number in range(3000)]
    reader = make_point(store, *small, file(b"z", *[chance.randbytes(100_001) for _ in range(40)]))
    report = restore_files(Env(threads=2, fs=Watched()), reader, tmp_path / "target", RestoreOptions(), Silent())

    assert (report.files, report.failed) == (3001, [])
    assert waited == [True]
    assert most == 1
