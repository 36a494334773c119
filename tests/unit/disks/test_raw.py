# SPDX-License-Identifier: Apache-2.0
"""Raw images and block devices: what is read is there, what is written is there, and nothing else is touched."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks import BlockSink, BlockSource, Extent, RawSink, RawSource
from keepstone.env import Env, FileSystem
from keepstone.errors import (
    AccessDenied,
    SourceFailed,
    SourceMissing,
    StorageError,
    StorageFull,
    TargetExists,
    UsageError,
)
from keepstone.objects import PAGE, aligned, is_zero
from tests.descriptors import descriptors
from tests.tampered import NO_DIRECT_OPEN, NO_DIRECT_TRANSFER, Tampered, failing_at, fails

pytestmark = pytest.mark.store

KIB, MIB = 1 << 10, 1 << 20
FILE_SYSTEMS = {"direct": FileSystem(), "no O_DIRECT": NO_DIRECT_OPEN, "no direct transfer": NO_DIRECT_TRANSFER}


@pytest.fixture(params=FILE_SYSTEMS)
def env(request: pytest.FixtureRequest) -> Env:
    return Env(fs=FILE_SYSTEMS[request.param])


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def sparse(path: Path, size: int, data: dict[int, bytes]) -> bytes:
    """A sparse file with this data at these offsets; its content."""
    content = bytearray(size)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in data.items():
            file.seek(offset)
            file.write(piece)
            content[offset : offset + len(piece)] = piece
    return bytes(content)


def check_extents(source: BlockSource, content: bytes) -> list[Extent]:
    """The extents of the source, which must cover it once, in order, on blocks, and tell no lies about zeros."""
    extents = list(source.extents())
    end = 0
    for extent in extents:
        assert extent.offset == end
        assert extent.length > 0
        assert extent.offset % source.block_size == 0
        end = extent.end
        if extent.zero:
            assert is_zero(memoryview(content)[extent.offset : extent.end])
    assert end == source.size == len(content)
    return extents


def read_all(source: BlockSource, length: int = MIB) -> bytes:
    buffer = aligned(length)
    content = bytearray()
    while count := source.pread_into(buffer, len(content)):
        content += buffer[:count]
    return bytes(content)


# RawSource


@pytest.mark.parametrize("tail", [0, 1, 511, 4095])
def test_a_sparse_image(env: Env, tmp_path: Path, tail: int) -> None:
    size = 16 * MIB + tail
    data = {0: noise(5000), 3 * MIB: noise(MIB), 8 * MIB + 100: b"x", size - 3: b"end"}
    content = sparse(tmp_path / "disk", size, data)
    with RawSource(env, tmp_path / "disk") as source:
        assert read_all(source) == content
        assert source.token() is None
        extents = check_extents(source, content)
        assert list(source.extents("an unknown token")) == extents

    holes = [extent for extent in extents if extent.zero]
    assert len(holes) == 3
    assert sum(extent.length for extent in holes) > 14 * MIB


@pytest.mark.parametrize(
    ("size", "data"),
    [
        (0, {}),
        (1, {0: b"x"}),
        (10_000, {}),
        (10_000, {0: b"x" * 10_000}),
        (8 * MIB, {}),
        (8 * MIB + 5, {}),
        (8 * MIB, {8 * MIB - 1: b"x"}),
        (8 * MIB, {0: b"x"}),
    ],
)
def test_images_of_odd_shape(env: Env, tmp_path: Path, size: int, data: dict[int, bytes]) -> None:
    content = sparse(tmp_path / "disk", size, data)
    with RawSource(env, tmp_path / "disk") as source:
        extents = check_extents(source, content)
        assert read_all(source) == content

    if not data:
        assert extents == ([Extent(0, size, zero=True)] if size else [])
    if len(content) == sum(map(len, data.values())) > 0:
        assert extents == [Extent(0, size, zero=False)]


@pytest.mark.parametrize("seed", range(5))
def test_random_images_and_ranges(env: Env, tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    size = choose.randrange(1, 6 * MIB)
    data = {at: noise(min(choose.choice([1, 4096, 100_000]), size - at)) for at in choose.choices(range(size), k=5)}
    content = sparse(tmp_path / "disk", size, data)
    buffer = aligned(MIB + PAGE)
    with RawSource(env, tmp_path / "disk") as source:
        check_extents(source, content)
        for _ in range(50):
            offset = choose.choice([choose.randrange(size + 1), choose.randrange(size + 1) // PAGE * PAGE])
            length = choose.choice([0, 1, 5000, PAGE, 256 * KIB, MIB])
            shift = choose.choice([0, 1, PAGE])
            count = source.pread_into(buffer[shift : shift + length], offset)
            assert count == min(length, size - offset)
            assert buffer[shift : shift + count] == content[offset : offset + length]


def test_threads_read_one_source(env: Env, tmp_path: Path) -> None:
    content = noise(8 * MIB + 77)
    (tmp_path / "disk").write_bytes(content)

    def segment(offset: int) -> bytes:
        buffer = aligned(256 * KIB)
        return bytes(buffer[: source.pread_into(buffer, offset)])

    with RawSource(env, tmp_path / "disk") as source, ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(segment, range(0, len(content), 256 * KIB))) == content


def test_a_file_system_that_does_not_know_holes(tmp_path: Path) -> None:
    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.lseek(fd, offset, whence)

    sparse(tmp_path / "disk", 5 * MIB + 3, {})
    with RawSource(Env(fs=Tampered(lseek=lseek)), tmp_path / "disk") as source:
        assert list(source.extents()) == [Extent(0, 5 * MIB + 3, zero=False)]


def test_holes_that_are_not_on_pages(tmp_path: Path) -> None:
    data = [(100, 1000), (4000, 4200), (8191, 8192), (20_000, 20_001)]

    def lseek(fd: int, offset: int, whence: int) -> int:
        for start, stop in data:
            if whence == os.SEEK_DATA and offset < stop:
                return max(start, offset)
            if whence == os.SEEK_HOLE and start <= offset < stop:
                return stop
        if whence == os.SEEK_DATA:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return os.lseek(fd, offset, whence)

    content = sparse(tmp_path / "disk", 30_000, {start: b"x" * (stop - start) for start, stop in data})
    with RawSource(Env(fs=Tampered(lseek=lseek)), tmp_path / "disk") as source:
        extents = check_extents(source, content)

    assert [(extent.offset, extent.length) for extent in extents if not extent.zero] == [
        *[(0, 4096), (4096, 4096), (16_384, 4096)]
    ]


def test_an_image_that_shrinks_is_noticed(env: Env, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(noise(4 * MIB))
    buffer = aligned(MIB)
    with RawSource(env, tmp_path / "disk") as source:
        extents = source.extents()
        os.truncate(tmp_path / "disk", 2 * MIB + 5)

        assert source.pread_into(buffer, MIB) == MIB
        for offset in (2 * MIB, 3 * MIB, 2 * MIB + 1):
            with pytest.raises(SourceFailed, match=r"disk became shorter than 4194304 bytes.*snapshot"):
                source.pread_into(buffer, offset)
        with pytest.raises(SourceFailed, match="became shorter"):
            list(extents)  # what was cut off is no hole


def test_an_image_that_grows_is_read_as_it_was(env: Env, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * 5000)
    with RawSource(env, tmp_path / "disk") as source:
        with (tmp_path / "disk").open("ab") as file:
            file.write(b"y" * MIB)

        assert read_all(source) == b"x" * 5000
        assert list(source.extents()) == [Extent(0, 5000, zero=False)]


def test_what_is_no_disk_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="gone"):
        RawSource(Env(), tmp_path / "gone")
    for other in (tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError, match=str(other)):
            RawSource(Env(), other)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError):
        RawSource(Env(), tmp_path / "pipe")


def test_reads_outside_of_the_disk(env: Env, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"content")
    with RawSource(env, tmp_path / "disk") as source:
        assert source.pread_into(memoryview(bytearray(5)), 7) == 0
        for offset in (-1, 8):
            with pytest.raises(UsageError):
                source.pread_into(memoryview(bytearray(5)), offset)


def test_a_bad_sector(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(noise(MIB))
    source = RawSource(Env(fs=failing_at("preadv", 1, errno.EIO)), tmp_path / "disk")
    with pytest.raises(SourceFailed, match="disk: Input/output error; "):
        source.pread_into(aligned(MIB), 0)
    source.close()


# RawSink


def restore(sink: BlockSink, content: bytes, *, seed: int = 0) -> None:
    """Write content in pieces of all kinds, out of order, zeros as zeros."""
    choose = random.Random(seed)
    pieces = []
    at = 0
    while at < len(content):
        length = min(choose.choice([1, 5000, PAGE, 64 * KIB, 256 * KIB, MIB]), len(content) - at)
        if choose.random() < 0.7:
            length = min(max(PAGE, -(-(at + length) // PAGE) * PAGE - at), len(content) - at)
        pieces.append((at, length))
        at += length
    choose.shuffle(pieces)
    buffer = aligned(2 * MIB)
    for at, length in pieces:
        if is_zero(memoryview(content)[at : at + length]):
            sink.zero(at, length)
        elif choose.random() < 0.5:
            buffer[:length] = content[at : at + length]
            sink.write(at, buffer[:length])
        else:
            sink.write(at, content[at : at + length])


@pytest.mark.parametrize("tail", [0, 1, 4095])
@pytest.mark.parametrize("existing", [None, 0, 3 * MIB, 20 * MIB])
def test_what_is_restored_is_there(env: Env, tmp_path: Path, tail: int, existing: int | None) -> None:
    content = noise(3 * MIB) + bytes(5 * MIB) + noise(MIB, 1) + bytes(2 * MIB) + noise(70_000 + tail, 2) + bytes(50_001)
    target = tmp_path / "target"
    if existing is not None:
        target.write_bytes(b"\xff" * existing)
    sink = RawSink(env, target, len(content), overwrite=existing is not None)
    restore(sink, content, seed=tail)
    sink.finish()

    assert target.read_bytes() == content
    assert target.stat().st_blocks * 512 < 8 * MIB  # of 11: where zeros share a piece with data they are written


def test_threads_write_one_sink(env: Env, tmp_path: Path) -> None:
    content = noise(8 * MIB + 77)
    sink = RawSink(env, tmp_path / "target", len(content))
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda at: sink.write(at, content[at : at + 100_000]), range(0, len(content), 100_000)),
        )
    sink.finish()

    assert (tmp_path / "target").read_bytes() == content


def test_zeros_are_written_where_holes_cannot_be_punched(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepstone.objects.direct.punch_hole", fails(errno.EOPNOTSUPP))
    target = tmp_path / "target"
    target.write_bytes(b"\xff" * (5 * MIB))
    sink = RawSink(env, target, 5 * MIB, overwrite=True)
    for offset, length in ((1, 100), (5000, 3 * MIB), (4 * MIB, 256 * KIB), (5 * MIB - 1, 1), (8, 0)):
        sink.zero(offset, length)
    sink.finish()

    expected = bytearray(b"\xff" * (5 * MIB))
    for offset, length in ((1, 100), (5000, 3 * MIB), (4 * MIB, 256 * KIB), (5 * MIB - 1, 1)):
        expected[offset : offset + length] = bytes(length)
    assert target.read_bytes() == expected


def test_a_disk_that_fails_to_punch_is_not_taken_for_one_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepstone.objects.direct.punch_hole", fails(errno.EIO))
    (tmp_path / "target").write_bytes(b"\xff" * MIB)
    with (
        RawSink(Env(), tmp_path / "target", MIB, overwrite=True) as sink,
        pytest.raises(StorageError, match="target: Input/output error; "),
    ):
        sink.zero(0, MIB)


def test_a_new_target_is_sparse_and_private(tmp_path: Path) -> None:
    sink = RawSink(Env(), tmp_path / "target", 1 << 40)
    sink.zero(0, 1 << 40)
    sink.write((1 << 40) - 3, b"end")
    sink.finish()

    found = (tmp_path / "target").stat()
    assert found.st_size == 1 << 40
    assert found.st_blocks * 512 <= 64 * KIB
    assert found.st_mode & 0o777 == 0o600


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetExists, match="target"):
        RawSink(Env(), target, 5)
    with pytest.raises(TargetExists):
        RawSink(Env(), tmp_path / "link", 5)
    with pytest.raises(TargetExists):
        RawSink(Env(), tmp_path, 5)
    with pytest.raises(UsageError):
        RawSink(Env(), tmp_path, 5, overwrite=True)
    with pytest.raises(UsageError):
        RawSink(Env(), tmp_path / "negative", -1)

    assert target.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_abort_removes_what_it_created_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(MIB))
    for name, overwrite in (("new", False), ("old", True)):
        with RawSink(Env(), tmp_path / name, MIB, overwrite=overwrite) as sink:
            sink.write(0, b"content")
        sink.abort()
        with pytest.raises(UsageError):
            sink.write(0, b"content")
        with pytest.raises(UsageError):
            sink.finish()

    assert os.listdir(tmp_path) == ["old"]


def test_abort_after_finish_keeps_the_disk(tmp_path: Path) -> None:
    with RawSink(Env(), tmp_path / "target", 7) as sink:
        sink.write(0, b"content")
        sink.finish()
    sink.abort()

    assert (tmp_path / "target").read_bytes() == b"content"


def test_finish_makes_content_and_name_durable(tmp_path: Path) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    for overwrite in (False, True):
        sink = RawSink(Env(fs=Tampered(fsync=fsync)), tmp_path / "target", MIB, overwrite=overwrite)
        sink.write(0, bytes(5000))
        sink.finish()

    assert synced == [str(tmp_path / "target"), str(tmp_path), str(tmp_path / "target")]


@pytest.mark.parametrize(
    ("call", "code", "error"), [("pwrite", errno.ENOSPC, StorageFull), ("fsync", errno.EIO, StorageError)]
)
def test_a_restore_that_fails_leaves_no_half_disk(tmp_path: Path, call: str, code: int, error: type[Exception]) -> None:
    sink = RawSink(Env(fs=failing_at(call, 1, code)), tmp_path / "target", MIB)

    def run() -> None:
        with sink:
            sink.write(0, aligned(MIB))
            sink.finish()

    with pytest.raises(error, match=r"target: .*; "):
        run()

    assert os.listdir(tmp_path) == []


def test_writes_outside_of_the_disk(env: Env, tmp_path: Path) -> None:
    with RawSink(env, tmp_path / "target", 10_000) as sink:
        for offset, length in ((-1, 5), (9_999, 2), (10_001, 0)):
            with pytest.raises(UsageError):
                sink.write(offset, bytes(length))
            with pytest.raises(UsageError):
                sink.zero(offset, length)
        sink.write(10_000, b"")
        sink.zero(9_999, 1)


@pytest.mark.parametrize("kind", ["source", "sink", "refused sink"])
def test_no_descriptor_stays_open(tmp_path: Path, kind: str) -> None:
    before = descriptors()
    path = tmp_path / "disk"
    path.write_bytes(bytes(MIB))
    if kind == "source":
        with RawSource(Env(), path) as source:
            read_all(source)
    elif kind == "sink":
        sink = RawSink(Env(), path, MIB, overwrite=True)
        sink.finish()
    else:
        with pytest.raises(StorageFull):
            RawSink(Env(fs=failing_at("ftruncate", 1, errno.ENOSPC)), path, 2 * MIB, overwrite=True)

    assert os.listdir("/proc/self/fd") == before


# Block devices


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A loop device of 16 MiB and 512 bytes over a file full of ones."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xff" * (16 * MIB + 512))
    attach: Any = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True, check=False)
    if attach.returncode:
        pytest.skip(f"block devices need root and loop devices: {attach.stderr.strip()}")
    yield Path(attach.stdout.strip())
    subprocess.run(["losetup", "-d", attach.stdout.strip()], check=True)


def test_a_block_device_is_a_disk(env: Env, device: Path) -> None:
    content = noise(6 * MIB) + bytes(8 * MIB) + noise(2 * MIB + 512, 1)
    sink = RawSink(env, device, len(content), overwrite=True)
    restore(sink, content)
    sink.finish()
    with RawSource(env, device) as source:
        assert source.size == len(content)
        assert read_all(source) == content
        assert list(source.extents()) == [Extent(0, len(content), zero=False)]


def test_a_smaller_disk_fits_on_a_device_and_the_rest_stays(device: Path) -> None:
    sink = RawSink(Env(), device, MIB + 512, overwrite=True)
    sink.write(0, bytes(MIB + 512))
    sink.finish()

    with RawSource(Env(), device) as source:
        assert read_all(source) == bytes(MIB + 512) + b"\xff" * (15 * MIB)


def test_devices_that_must_not_be_written(device: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetExists):
        RawSink(Env(), device, MIB)
    with pytest.raises(UsageError, match="larger device"):
        RawSink(Env(), device, 17 * MIB, overwrite=True)

    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    (tmp_path / "mount").mkdir()
    subprocess.run(["mount", device, tmp_path / "mount"], check=True)
    try:
        with pytest.raises(AccessDenied, match="unmount"):
            RawSink(Env(), device, MIB, overwrite=True)
    finally:
        subprocess.run(["umount", tmp_path / "mount"], check=True)
