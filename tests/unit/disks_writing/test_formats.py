# SPDX-License-Identifier: Apache-2.0
"""Every format that a disk is restored into: what QEMU reads is what was written, and a failure leaves nothing."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from keepstone.disks.writing import FORMATS, chosen, open_sink
from keepstone.env import Env, FileSystem
from keepstone.errors import StorageError, StorageFull, TargetExists, UsageError
from tests.tampered import NO_DIRECT_OPEN, Tampered, failing_at
from tests.unit.disks_writing.images import (
    KIB,
    MIB,
    QEMU,
    SINKS,
    Memory,
    needs_qemu,
    pieces,
    qemu,
    scattered,
    write,
    written_by,
)

pytestmark = pytest.mark.vm

IMAGES = [name for name in FORMATS if name != "raw"]
DISKS = {
    "scattered": scattered(40 * MIB, 1),
    "odd": scattered(9 * MIB + 12_345, 2),
    "zero": bytes(5 * MIB),
    "data": bytes(range(1, 256)) * 20_000,
    "a byte": b"\1",
    "empty": b"",
}


@needs_qemu
@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("name", IMAGES)
def test_qemu_reads_what_was_written(tmp_path: Path, name: str, disk: str) -> None:
    content, image, oracle = DISKS[disk], tmp_path / "image", tmp_path / "oracle.raw"
    kind, unit = QEMU.get(name, name), FORMATS[name].unit
    oracle.write_bytes(content)
    written_by(Env(threads=2), image, content, name)
    if kind != "vpc":  # which QEMU does not check
        assert "No errors were found" in qemu("check", "-f", kind, image)
    qemu("compare", "-f", "raw", "-F", kind, oracle, image)
    qemu("convert", "-f", kind, "-O", "raw", image, tmp_path / "back.raw")
    padded = max(1, -(-len(content) // unit)) * unit
    assert (tmp_path / "back.raw").read_bytes() == content + bytes(padded - len(content))


@needs_qemu
@pytest.mark.parametrize("name", [name for name in SINKS if name != "raw"])
def test_a_machine_can_write_into_it(tmp_path: Path, name: str) -> None:
    """Where something is, and where nothing is yet: the tables and the end are as whoever adds to them needs it."""
    size, path, kind = 90 * MIB, tmp_path / "image", QEMU.get(name, name)
    content = bytearray(scattered(size, 4))
    written_by(Env(), path, bytes(content), name)
    commands = []
    for number, at in enumerate(range(0, size - MIB, 7 * MIB), 1):
        content[at : at + 300 * KIB] = bytes([number]) * (300 * KIB)
        commands += ["-c", f"write -P {number} {at} {300 * KIB}"]
    done = subprocess.run(["qemu-io", "-f", kind, *commands, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if kind != "vpc":
        assert "No errors were found" in qemu("check", "-f", kind, path)
    (tmp_path / "oracle.raw").write_bytes(content)
    qemu("compare", "-f", "raw", "-F", kind, tmp_path / "oracle.raw", path)


@needs_qemu
@pytest.mark.parametrize("name", IMAGES)
def test_past_the_page_cache_or_not_is_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "oracle.raw").write_bytes(DISKS["odd"])
    written_by(Env(threads=2, fs=NO_DIRECT_OPEN), tmp_path / "image", DISKS["odd"], name)
    qemu("compare", "-f", "raw", "-F", QEMU.get(name, name), tmp_path / "oracle.raw", tmp_path / "image")


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_take_no_room(tmp_path: Path, name: str) -> None:
    size, data = 1 << 30, os.urandom(64 * KIB)
    path = tmp_path / "image"
    format = FORMATS[name]
    if format.stream is not None:
        format.stream(Env(threads=0), path, Memory(bytes(64 * MIB) + data + bytes(MIB)), lambda count, zeros: None)
    else:
        sink = open_sink(Env(), path, size, name)
        sink.zero(0, 64 * MIB)
        sink.write(64 * MIB, data)
        for at in range(65 * MIB, 100 * MIB, MIB):
            sink.zero(at, MIB) if name == "raw" else sink.write(at, bytes(MIB))
        sink.finish()
    assert path.stat().st_blocks * 512 < 1.4 * MIB


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_takes_only_what_is_in_the_disk(tmp_path: Path, name: str) -> None:
    sink = open_sink(Env(), tmp_path / "image", 3 * MIB + 100, name)
    assert sink.size == 3 * MIB + 100
    for offset, length in ((-1, 1), (3 * MIB + 100, 1), (3 * MIB, 101), (1 << 60, 1)):
        with pytest.raises(UsageError, match="are not in"):
            sink.write(offset, bytes(length))
        with pytest.raises(UsageError, match="are not in"):
            sink.zero(offset, length)
    sink.finish()
    with pytest.raises(UsageError, match="is over"):
        sink.write(0, b"1")
    with pytest.raises(UsageError, match="is over"):
        sink.zero(0, 1)
    with pytest.raises(UsageError, match="is over"):
        sink.finish()
    sink.abort()
    assert (tmp_path / "image").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_there_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"precious")
    with pytest.raises(TargetExists):
        written_by(Env(threads=0), path, b"disk" * 1000, name)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("name", SINKS)
def test_abort_leaves_nothing(tmp_path: Path, name: str) -> None:
    sink = open_sink(Env(), tmp_path / "image", len(DISKS["odd"]), name)
    write(sink, DISKS["odd"], pieces(len(DISKS["odd"]), 1)[:20])
    assert list(tmp_path.iterdir())
    sink.abort()
    sink.abort()
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="is over"):
        sink.write(0, b"1")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("nth", [1, 3])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, name: str, nth: int) -> None:
    with pytest.raises(StorageFull, match="make room there"):
        env = Env(threads=2, fs=failing_at("pwrite", nth, errno.ENOSPC))
        format, path = FORMATS[name], tmp_path / "image"
        if format.stream is not None:
            format.stream(env, path, Memory(DISKS["scattered"]), lambda count, zeros: None)
        sink = open_sink(env, path, len(DISKS["scattered"]), name)
        try:
            write(sink, DISKS["scattered"], pieces(len(DISKS["scattered"]), 1))
            sink.finish()
        finally:
            sink.abort()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("call", ["fsync", "ftruncate"])
def test_what_is_not_durable_is_not_there(tmp_path: Path, name: str, call: str) -> None:
    with pytest.raises(StorageError):
        written_by(Env(threads=0, fs=failing_at(call, 1, errno.EIO)), tmp_path / "image", DISKS["data"], name)
    assert not list(tmp_path.iterdir())


class _Recorder(Tampered):
    """What is durable when, as the sink asks for it."""

    def __init__(self) -> None:
        super().__init__(pwrite=self._pwrite, fsync=self._fsync)
        self.done: list[int | None] = []

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self.done.append(offset)
        return FileSystem.pwrite(fd, data, offset)

    def _fsync(self, fd: int) -> None:
        self.done.append(None)
        FileSystem.fsync(fd)


@pytest.mark.parametrize("name", [name for name in SINKS if name != "raw"])
def test_the_head_comes_when_all_else_is_durable(tmp_path: Path, name: str) -> None:
    fs = _Recorder()
    written_by(Env(fs=fs), tmp_path / "image", DISKS["odd"], name)
    first = fs.done.index(None)
    head = [at for at in fs.done[first:] if at is not None]
    expected = {"vhd": [10 * MIB], "vhdx": [64 * KIB, 128 * KIB, 0]}.get(name, [0])
    assert head == expected
    assert not set(head) & {at for at in fs.done[:first] if name != "vhd"}
    assert fs.done[-1] is None


def test_the_suffix_of_another_format_has_to_be_meant() -> None:
    assert chosen(Path("disk"), None).name == "raw"
    assert chosen(Path("disk.img"), None).name == "raw"
    assert chosen(Path("/dev/vdb"), None).name == "raw"
    for suffix, name in (("vhd", "vhd"), ("VHDX", "vhdx"), ("vmdk", "vmdk"), ("qcow2", "qcow2")):
        with pytest.raises(UsageError, match=rf"choose --format {name}, or --format raw"):
            chosen(Path(f"disk.{suffix}"), None)
        assert chosen(Path(f"disk.{suffix}"), "raw").name == "raw"
        assert chosen(Path("disk.img"), name).name == name
    with pytest.raises(UsageError, match="choose one of raw, vhd"):
        chosen(Path("disk"), "vdi")


@pytest.mark.parametrize("name", IMAGES)
def test_a_disk_that_has_no_room_in_a_format_is_refused_at_once(tmp_path: Path, name: str) -> None:
    limit = FORMATS[name].limit
    assert limit is not None
    with pytest.raises(UsageError, match=r"choose another format"):
        open_sink(Env(), tmp_path / "image", limit + 1, name)
    assert not list(tmp_path.iterdir())


@needs_qemu
@pytest.mark.parametrize("name", [name for name in SINKS if name != "raw"])
def test_the_longest_disk_can_be_read(tmp_path: Path, name: str) -> None:
    """As far as the file system has files that long; the tables are there whole."""
    path, size = tmp_path / "image", FORMATS[name].limit or 0
    sink = open_sink(Env(), path, size, name)
    try:
        sink.write(size - 4096, b"\1" * 4096)
        sink.write(0, b"\2" * 4096)
        sink.finish()
    except StorageError:
        pytest.skip("files of this length cannot be had here")
    kind = QEMU.get(name, name)
    assert f"({size} bytes)" in qemu("info", "-f", kind, path)
    if kind not in ("vpc", "vhdx"):
        assert "No errors were found" in qemu("check", "-f", kind, path)
    reads = f"read -P 1 {size - 4096} 4096", "read -P 2 0 4096", f"read -P 0 {size // 2} 4096"
    commands = [part for command in reads for part in ("-c", command)]
    done = subprocess.run(["qemu-io", "-r", "-f", kind, *commands, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
