# SPDX-License-Identifier: Apache-2.0
"""Buffers and files past the page cache."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.env import FileSystem
from keepstone.errors import UsageError
from keepstone.objects import PAGE, BufferPool, DirectFile, DirectWriter, aligned, is_aligned, is_zero, round_up
from tests.descriptors import descriptors
from tests.tampered import NO_DIRECT_OPEN, NO_DIRECT_TRANSFER, Tampered, failing_at, is_direct

pytestmark = pytest.mark.store

MIB = 1 << 20
FILE_SYSTEMS = {"direct": FileSystem(), "no O_DIRECT": NO_DIRECT_OPEN, "no direct transfer": NO_DIRECT_TRANSFER}


@pytest.fixture(params=FILE_SYSTEMS)
def fs(request: pytest.FixtureRequest) -> FileSystem:
    return FILE_SYSTEMS[request.param]


@pytest.fixture
def counted(tmp_path: Path) -> tuple[FileSystem, dict[str, int]]:
    """File calls that count the bytes which pass the page cache by."""
    try:
        os.close(os.open(tmp_path / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    except OSError:
        pytest.skip("the file system of the temporary folder has no O_DIRECT: set TMPDIR to one that has")
    moved = {"read": 0, "written": 0}

    def counting(what: str, call: Callable[..., int]) -> Callable[..., int]:
        def transfer(fd: int, *rest: Any) -> int:
            count = call(fd, *rest)
            moved[what] += count if is_direct(fd) else 0
            return count

        return transfer

    return Tampered(preadv=counting("read", os.preadv), pwrite=counting("written", os.pwrite)), moved


# Buffers


@pytest.mark.parametrize("size", [0, 1, PAGE, 5000, 3 * MIB + 1])
def test_aligned_buffers(size: int) -> None:
    buffer = aligned(size)

    assert len(buffer) == size
    assert is_zero(buffer)
    assert is_aligned(buffer) == bool(size)
    assert not is_aligned(buffer[1:])
    buffer[:] = b"x" * size


def test_read_only_memory_counts_as_unaligned() -> None:
    assert not is_aligned(memoryview(b"x" * PAGE))


@given(st.integers(0, 1 << 60))
def test_round_up(count: int) -> None:
    assert round_up(count) % PAGE == 0
    assert count <= round_up(count) < count + PAGE


@pytest.mark.parametrize("size", [0, 1, 4095, 262_143, 262_144, 262_145, MIB + 3])
def test_one_byte_is_enough_not_to_be_zero(size: int) -> None:
    data = memoryview(bytearray(size))
    assert is_zero(data)

    for at in {0, size // 2, size - 1} if size else ():
        data[at] = 1
        assert not is_zero(data)
        assert is_zero(data[:at])
        assert is_zero(data[at + 1 :])
        data[at] = 0


def test_a_pool_gives_what_came_back_and_keeps_few() -> None:
    pool = BufferPool(PAGE, keep=2)
    buffers = [pool.take() for _ in range(3)]
    for number, buffer in enumerate(buffers):
        buffer[0] = number + 1
        pool.give(buffer)

    assert sorted(pool.take()[0] for _ in range(3)) == [0, 2, 3]


# DirectFile


@pytest.mark.parametrize("size", [0, 1, 4096, 3 * MIB, 3 * MIB + 4500])
def test_any_range_is_read(tmp_path: Path, fs: FileSystem, size: int) -> None:
    content = random.Random(1).randbytes(size)
    (tmp_path / "a").write_bytes(content)
    source = random.Random(2)
    buffer = aligned(2 * MIB)
    with DirectFile(fs, str(tmp_path / "a")) as file:
        assert file.size() == size
        for _ in range(60):
            offset = source.choice([0, 4096, MIB, source.randrange(4 * MIB)])
            length = source.choice([0, 1, 4096, 5000, MIB, MIB + 4096])
            shift = source.choice([0, 4096, 1])
            got = file.pread_into(offset, buffer[shift : shift + length])
            assert buffer[shift : shift + got] == content[offset : offset + length]


def test_any_range_is_written_by_both_ways_into_one_file(tmp_path: Path, fs: FileSystem) -> None:
    source = random.Random(3)
    model = bytearray(4 * MIB + 123)
    path = tmp_path / "a"
    buffer = aligned(2 * MIB)
    buffer[:] = source.randbytes(len(buffer))
    with DirectFile(fs, str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
        file.truncate(len(model))
        for turn in range(200):
            length = source.choice([0, 1, 4096, 5000, 65_536, 131_072, MIB, MIB + 65_536])
            offset = source.choice([0, 4096, MIB, source.randrange(len(model))])
            length = min(length, len(model) - offset)
            shift = source.choice([0, 0, 4096, 1])
            data = buffer[shift : shift + length]
            file.pwrite(offset, bytes(data) if turn % 5 == 0 else data)
            model[offset : offset + length] = data
        file.fsync()

        assert path.read_bytes() == model


def test_aligned_transfers_pass_the_page_cache_by(tmp_path: Path, counted: tuple[FileSystem, dict[str, int]]) -> None:
    fs, moved = counted
    buffer = aligned(MIB)
    with DirectFile(fs, str(tmp_path / "a"), os.O_RDWR | os.O_CREAT) as file:
        assert file.direct
        file.pwrite(0, buffer)
        file.pwrite(MIB, bytes(MIB + 65_536))  # odd memory is copied
        assert moved == {"read": 0, "written": 2 * MIB + 65_536}

        file.pwrite(1, buffer[:65_536])
        file.pwrite(0, buffer[:65_537])
        file.pwrite(0, buffer[:4096])  # too small to be worth the wait
        assert moved["written"] == 2 * MIB + 65_536

        assert file.pread_into(0, buffer) == MIB
        assert file.pread_into(MIB, buffer[: MIB - 1]) == MIB - 1
        assert moved["read"] == MIB + MIB - 4096


def test_where_direct_does_not_work_it_is_not_tried_again(tmp_path: Path) -> None:
    with DirectFile(NO_DIRECT_TRANSFER, str(tmp_path / "a"), os.O_RDWR | os.O_CREAT) as file:
        assert file.direct
        file.pwrite(0, aligned(MIB))
        assert not file.direct


@pytest.mark.parametrize("call", ["pwrite", "preadv"])
def test_other_errors_are_not_taken_for_a_lack_of_direct_io(tmp_path: Path, call: str) -> None:
    (tmp_path / "a").write_bytes(bytes(MIB))
    with DirectFile(failing_at(call, 1, errno.EIO), str(tmp_path / "a"), os.O_RDWR) as file:
        with pytest.raises(OSError, match="Input/output"):
            file.pwrite(0, aligned(MIB)) if call == "pwrite" else file.pread_into(0, aligned(MIB))
        assert file.direct


def test_pages_are_dropped_where_there_is_no_direct_io(tmp_path: Path) -> None:
    dropped: list[tuple[int, int]] = []

    def fadvise(fd: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        dropped.append((offset, length))

    fs = Tampered(open=NO_DIRECT_OPEN.open, posix_fadvise=fadvise)
    with DirectFile(fs, str(tmp_path / "a"), os.O_RDWR | os.O_CREAT) as file:
        file.pwrite(4096, aligned(MIB))
        file.pread_into(8192, aligned(MIB // 2))
        file.fsync()

    assert dropped == [(4096, MIB), (8192, MIB // 2), (0, 0)]


def test_a_path_given_to_another_file_between_the_two_opens(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1" * MIB)

    def open_(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            (tmp_path / "b").write_bytes(b"2" * MIB)
            os.rename(tmp_path / "b", path)
        return os.open(path, flags, mode)

    buffer = aligned(MIB)
    with DirectFile(Tampered(open=open_), str(path)) as file:
        assert file.pread_into(0, buffer) == MIB

    assert buffer == b"1" * MIB


def test_an_open_that_fails_half_way_leaves_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(OSError, match="Input/output"):
        DirectFile(failing_at("open", 2, errno.EIO), str(tmp_path / "a"), os.O_RDWR | os.O_CREAT)

    assert os.listdir("/proc/self/fd") == before


def test_a_close_that_fails_does_not_keep_the_other_descriptor(tmp_path: Path) -> None:
    def close(fd: int) -> None:
        os.close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = descriptors()
    file = DirectFile(Tampered(close=close), str(tmp_path / "a"), os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match="Input/output"):
        file.close()

    assert os.listdir("/proc/self/fd") == before


def test_a_disk_that_takes_nothing_does_not_hang(tmp_path: Path) -> None:
    fs = Tampered(pwrite=lambda *_: 0)
    with DirectFile(fs, str(tmp_path / "a"), os.O_RDWR | os.O_CREAT) as file, pytest.raises(OSError, match="nothing"):
        file.pwrite(0, b"content")


# DirectWriter


def test_the_end_is_padded_on_the_way_and_cut(tmp_path: Path, counted: tuple[FileSystem, dict[str, int]]) -> None:
    fs, moved = counted
    content = random.Random(4).randbytes(5 * MIB + 1)
    writer = DirectWriter(fs, str(tmp_path / "a"), BufferPool(9 * MIB))
    writer.write(content)
    writer.finish()

    assert (tmp_path / "a").read_bytes() == content
    assert moved["written"] == 5 * MIB + 4096


def test_the_buffer_goes_back_to_the_pool(tmp_path: Path) -> None:
    pool = BufferPool(9 * MIB)
    writer = DirectWriter(FileSystem(), str(tmp_path / "a"), pool)
    writer.room(1)[0] = 77
    writer.close()
    writer.close()

    assert pool.take()[0] == 77
    assert pool.take()[0] == 0


def test_fsync_only_on_request(tmp_path: Path) -> None:
    synced: list[int] = []
    for sync in (False, True):
        writer = DirectWriter(Tampered(fsync=synced.append), str(tmp_path / f"{sync}"), BufferPool(9 * MIB))
        writer.write(b"content")
        writer.finish(sync=sync)
        assert len(synced) == sync


def test_a_writer_makes_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        DirectWriter(FileSystem(), str(tmp_path / "a"), BufferPool(9 * MIB))
    with pytest.raises(UsageError):
        DirectWriter(FileSystem(), str(tmp_path / "b"), BufferPool(MIB))

    assert (tmp_path / "a").read_bytes() == b"old"
    assert not (tmp_path / "b").exists()
