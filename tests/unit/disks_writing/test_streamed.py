# SPDX-License-Identifier: Apache-2.0
"""VMDK streamOptimized: one pass from the beginning to the end, grains in order, whatever the threads do."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.disks.writing import FORMATS, open_sink, write_stream_optimized
from keepstone.env import Env
from keepstone.errors import SourceFailed, UsageError
from tests.unit.disks_writing.images import KIB, MIB, Memory, needs_qemu, qemu, scattered

pytestmark = pytest.mark.vm

GRAIN = 64 * KIB


class Read:
    """A stream as a reader finds it that never goes back: its grains and its tables."""

    def __init__(self, stream: bytes) -> None:
        assert len(stream) % 512 == 0
        self.stream = stream
        self.header = struct.unpack_from("<4sIIQQQQIQQQB4sH", stream)
        self.grains: dict[int, tuple[int, bytes]] = {}
        self.order: list[int] = []
        self.tables: dict[int, tuple[int, ...]] = {}
        self.directory: tuple[int, ...] = ()
        self.place = 0
        at = self.header[10] * 512
        while True:
            value, size, kind = struct.unpack_from("<QII", stream, at)
            if size:
                data = zlib.decompress(stream[at + 12 : at + 12 + size])
                self.grains[value] = (at // 512, data)
                self.order.append(value)
                at += -(-(12 + size) // 512) * 512
                continue
            assert not any(stream[at + 16 : at + 512])
            content = stream[at + 512 : at + 512 + value * 512]
            if kind == 1:
                self.tables[at // 512 + 1] = struct.unpack("<512I", content)
            elif kind == 2:
                self.directory = tuple(one for (one,) in struct.iter_unpack("<I", content))
                self.place = at // 512 + 1
            elif kind == 3:
                self.footer = struct.unpack_from("<4sIIQQQQIQQQB4sH", content)
            else:
                assert at + 512 == len(stream)
                return
            at += 512 + len(content)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_grains_are_in_order_and_the_tables_find_them(threads: int) -> None:
    content = scattered(40 * MIB + 12_345, 3)
    out = io.BytesIO()
    done: list[tuple[int, int]] = []
    write_stream_optimized(Env(threads=threads), Memory(content), out, lambda *told: done.append(told))
    read = Read(out.getvalue())
    assert read.order == sorted(read.order)
    padded = content + bytes(-len(content) % GRAIN)
    assert {sector // 128: data for sector, (_, data) in read.grains.items()} == {
        at // GRAIN: padded[at : at + GRAIN] for at in range(0, len(padded), GRAIN) if any(padded[at : at + GRAIN])
    }
    found = {}
    for index, table in enumerate(read.directory):
        for at, place in enumerate(read.tables[table] if table else ()):
            if place:
                found[(index * 512 + at) * 128] = place
    assert found == {sector: place for sector, (place, _) in read.grains.items()}
    magic, version, flags, capacity, grain, *_, method = read.header
    assert (magic, version, flags, capacity, grain, method) == (b"KDMV", 3, 0x30001, len(padded) // 512, 128, 1)
    assert read.header[9] == (1 << 64) - 1
    assert read.footer == (*read.header[:9], read.place, *read.header[10:])
    assert b'createType="streamOptimized"' in out.getvalue()[512:]
    assert sum(count for count, _ in done) == len(content)
    assert all(0 <= zeros <= count for count, zeros in done)


@needs_qemu
@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 40 * MIB), seed=st.integers(0, 99), step=st.sampled_from([4 * KIB, 64 * KIB, 256 * KIB]))
def test_extents_of_any_length(tmp_path_factory: pytest.TempPathFactory, size: int, seed: int, step: int) -> None:
    folder = tmp_path_factory.mktemp("stream")
    content = scattered(size, seed)
    (folder / "oracle.raw").write_bytes(content)
    with (folder / "disk.vmdk").open("wb") as file:
        write_stream_optimized(Env(threads=2), Memory(content, step), file)
    qemu("compare", "-f", "raw", "-F", "vmdk", folder / "oracle.raw", folder / "disk.vmdk")


class _Noting(Memory):
    """Notes where it is read."""

    def __init__(self, content: bytes, step: int) -> None:
        super().__init__(content, step)
        self.read: list[int] = []

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        self.read.append(offset)
        return super().pread_into(buffer, offset)


def test_what_is_known_to_be_zero_is_not_read() -> None:
    source = _Noting(bytes(20 * MIB) + b"x" * MIB, MIB)
    write_stream_optimized(Env(threads=2), source, io.BytesIO())
    assert source.read == [20 * MIB]


class _Failing(Memory):
    """Cannot be read behind its middle; says who reads it."""

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        if offset > self.size // 2:
            raise SourceFailed("the disk is gone")
        return super().pread_into(buffer, offset)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_source_that_fails_leaves_no_file_and_no_thread(tmp_path: Path, threads: int) -> None:
    stream = FORMATS["vmdk"].stream
    assert stream is not None
    before = threading.active_count()
    with pytest.raises(SourceFailed, match="is gone"):
        stream(Env(threads=threads), tmp_path / "disk.vmdk", _Failing(b"x" * (30 * MIB)), lambda count, zeros: None)
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == before


def test_a_source_that_ends_early_is_no_disk(tmp_path: Path) -> None:
    source = Memory(b"x" * MIB)
    source.content = source.content[:-1]
    with pytest.raises(SourceFailed, match="ends before"):
        write_stream_optimized(Env(threads=0), source, io.BytesIO())


def test_who_stops_it_leaves_no_file(tmp_path: Path) -> None:
    def stop(count: int, zeros: int) -> None:
        raise KeyboardInterrupt

    stream = FORMATS["vmdk"].stream
    assert stream is not None
    with pytest.raises(KeyboardInterrupt):
        stream(Env(threads=2), tmp_path / "disk.vmdk", Memory(b"x" * (30 * MIB), MIB), stop)
    assert not list(tmp_path.iterdir())


def test_it_has_no_sink(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="written in order"):
        open_sink(Env(), tmp_path / "disk.vmdk", MIB, "vmdk")
