# SPDX-License-Identifier: Apache-2.0
"""Images of every format give the bytes that QEMU finds in them, read no more than is stored, and count as what they
are."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks import RawSource, detect, open_disk
from keepstone.disks.mapped import MappedSource
from keepstone.disks.qcow2 import Qcow2Source
from keepstone.env import Env, FileSystem
from keepstone.errors import SourceFailed, Unsupported, UsageError
from keepstone.objects import aligned, is_zero
from tests.descriptors import descriptors
from tests.unit.disks.foreign import KIB, MIB, noise, qemu_bytes, qemu_image, qemu_write, read_all, scattered

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img and qemu-io (apt install qemu-utils)"),
]

FORMATS = {
    "vhdx": ("vhdx", "vhdx", ""),
    "vhdx, blocks of 1 MiB": ("vhdx", "vhdx", "block_size=1M"),
    "vhdx, fixed": ("vhdx", "vhdx", "subformat=fixed"),
    "vhd": ("vpc", "vhd", "force_size=on"),
    "vhd, as geometry has it": ("vpc", "vhd", ""),
    "vhd, fixed": ("vpc", "vhd", "subformat=fixed,force_size=on"),
    "vmdk": ("vmdk", "vmdk", ""),
    "vmdk, zeroed grains": ("vmdk", "vmdk", "zeroed_grain=on"),
    "vmdk, stream": ("vmdk", "vmdk", "subformat=streamOptimized"),
    "vmdk, flat": ("vmdk", "vmdk", "subformat=monolithicFlat"),
    "vmdk, files of 2 GB": ("vmdk", "vmdk", "subformat=twoGbMaxExtentSparse"),
    "vmdk, flat files of 2 GB": ("vmdk", "vmdk", "subformat=twoGbMaxExtentFlat"),
    "qcow2": ("qcow2", "qcow2", ""),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [37 * MIB, 5 * MIB + 512])
def test_a_disk_is_what_qemu_finds_in_it(env: Env, tmp_path: Path, kind: str, size: int) -> None:
    format, suffix, options = FORMATS[kind]
    scattered(tmp_path / "disk.raw", size)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / f"disk.{suffix}", format, options)
    expected = qemu_bytes(image, format, tmp_path / "found.raw")

    with open_disk(env, image) as disk:
        assert isinstance(disk, Qcow2Source if format == "qcow2" else MappedSource)
        assert disk.size == len(expected)
        assert read_all(disk) == expected
        end = 0
        for extent in disk.extents():
            assert extent.offset == end
            assert extent.length > 0
            assert extent.offset % disk.block_size == 0
            assert not extent.zero or is_zero(memoryview(expected)[end : extent.end])
            end = extent.end
        assert end == disk.size


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if "stream" not in kind])
def test_what_is_written_at_odd_places_later(env: Env, tmp_path: Path, kind: str) -> None:
    format, suffix, options = FORMATS[kind]
    scattered(tmp_path / "disk.raw", 20 * MIB, pieces=5)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / f"disk.{suffix}", format, options)
    pieces = {513: noise(1000, 1), 3 * MIB - 7: noise(100_000, 2), 20 * MIB - 5: noise(5, 3), 9 * MIB: bytes(70_000)}
    qemu_write(image, format, pieces, tmp_path / "piece")

    with open_disk(env, image) as disk:
        assert read_all(disk) == qemu_bytes(image, format, tmp_path / "found.raw")


@pytest.mark.parametrize("kind", FORMATS)
def test_any_range_from_several_threads(env: Env, tmp_path: Path, kind: str) -> None:
    format, suffix, options = FORMATS[kind]
    content = scattered(tmp_path / "disk.raw", 6 * MIB)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / f"disk.{suffix}", format, options)

    def read(at: int) -> bool:
        room = aligned(100_000)
        count = disk.pread_into(room[: 1 + at % 99_999], at)
        return bytes(room[:count]) == content[at : at + count]

    with open_disk(env, image) as disk, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(0, 6 * MIB - 100_000, 65_521)))
        assert disk.pread_into(aligned(10), disk.size) == 0
        with pytest.raises(UsageError):
            disk.pread_into(aligned(10), disk.size + 1)


class Counted(FileSystem):
    """Counts what is read of files."""

    def __init__(self) -> None:
        self.count = 0

    def preadv(self, fd: int, buffers: list[Any], offset: int, *flags: int) -> int:  # type: ignore[override]
        count = os.preadv(fd, buffers, offset, *flags)
        self.count += count
        return count


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "qcow2"])
def test_only_what_is_stored_is_read(tmp_path: Path, kind: str) -> None:
    format, suffix, options = FORMATS[kind]
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(1000 * MIB)
        for at in (100 * MIB, 700 * MIB):
            file.seek(at)
            file.write(noise(2 * MIB, at))
    image = qemu_image(raw, tmp_path / f"disk.{suffix}", format, options)
    files = Counted()

    with open_disk(Env(threads=2, fs=files), image) as disk:
        files.count = 0
        stored = [extent for extent in disk.extents() if not extent.zero]
        assert files.count == 0
        room = aligned(MIB)
        for extent in stored:
            for at in range(extent.offset, extent.end, MIB):
                disk.pread_into(room[: min(MIB, extent.end - at)], at)
        blocks = 2 * 16 * MIB if suffix == "vhdx" else 5 * MIB  # QEMU makes blocks of 16 MiB for such a disk
        assert 4 * MIB <= sum(extent.length for extent in stored) <= blocks
        assert files.count <= blocks
        before = files.count
        assert disk.pread_into(room, 400 * MIB) == MIB
        assert is_zero(room)
        assert (
            files.count == before or "fixed" in kind or "flat" in kind
        )  # whose holes are the file's, and cost nothing


def test_a_chain_of_deltas(env: Env, tmp_path: Path) -> None:
    scattered(tmp_path / "disk.raw", 12 * MIB)
    qemu_image(tmp_path / "disk.raw", tmp_path / "disk.vmdk", "vmdk")
    for child, parent in (("one.vmdk", "disk.vmdk"), ("two.vmdk", "one.vmdk")):
        command = ["qemu-img", "create", "-q", "-f", "vmdk", "-b", parent, "-F", "vmdk", child]
        subprocess.run(command, check=True, cwd=tmp_path)
        pieces = {len(child) * 1001 * 512: noise(100_000, len(parent)), 7 * MIB: noise(512, len(parent))}
        qemu_write(tmp_path / child, "vmdk", pieces, tmp_path / "piece")
    expected = qemu_bytes(tmp_path / "two.vmdk", "vmdk", tmp_path / "found.raw")

    with open_disk(env, tmp_path / "two.vmdk") as disk:
        assert read_all(disk, 999_424) == expected
        assert all(is_zero(memoryview(expected)[one.offset : one.end]) for one in disk.extents() if one.zero)

    qemu_write(tmp_path / "disk.vmdk", "vmdk", {0: b"changed"}, tmp_path / "piece")
    with pytest.raises(SourceFailed, match=r"disk\.vmdk is not the parent of .*one\.vmdk, or was changed since"):
        open_disk(env, tmp_path / "two.vmdk")


# What counts as what


def test_a_format_counts_where_name_and_content_say_it(env: Env, tmp_path: Path) -> None:
    scattered(tmp_path / "disk.raw", MIB)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / "disk.vhdx", "vhdx")
    shutil.copy(image, tmp_path / "disk.img")
    (tmp_path / "other.vhdx").write_bytes(b"vhdxfil" + bytes(505))
    (tmp_path / "UPPER.VHDX").symlink_to(image)

    found = {name: detect(env, tmp_path / name) for name in os.listdir(tmp_path)}

    assert found == {
        "disk.raw": "raw", "disk.vhdx": "vhdx", "disk.img": "raw", "other.vhdx": "raw", "UPPER.VHDX": "vhdx",
    }  # fmt: skip
    with open_disk(env, tmp_path / "disk.img") as disk:
        assert isinstance(disk, RawSource)
        assert disk.size == image.stat().st_size
    with open_disk(env, tmp_path / "disk.img", "vhdx") as chosen:
        assert chosen.size == MIB
    with open_disk(env, image, "raw") as disk:
        assert isinstance(disk, RawSource)


@pytest.mark.parametrize("name", ["guest.raw", "guest", "guest.vhd", "guest-flat.vmdk", "guest-f001.vmdk"])
def test_a_guest_that_writes_a_description_reads_no_neighbour(env: Env, tmp_path: Path, name: str) -> None:
    (tmp_path / "neighbour.raw").write_bytes(noise(MIB))
    text = b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW 2048 FLAT "neighbour.raw" 0\n'
    guest = tmp_path / name
    guest.write_bytes(text.ljust(MIB, b"\0"))

    with open_disk(env, guest) as disk:
        assert read_all(disk) == text.ljust(MIB, b"\0")


def test_a_fixed_vhd_keeps_what_its_guest_wrote(env: Env, tmp_path: Path) -> None:
    scattered(tmp_path / "disk.raw", MIB)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / "disk.vhd", "vpc", "subformat=fixed,force_size=on")
    data = image.read_bytes()
    image.write_bytes(data[-512:] + data[512:])  # a whole footer, in the first sector of the disk

    with open_disk(env, image) as disk:
        assert read_all(disk) == data[-512:] + data[512:-512]


def test_what_is_said_and_is_not_so(env: Env, tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(MIB))
    for format in ("vhdx", "vhd", "vmdk"):
        with pytest.raises(UsageError, match=f"no {format.upper()} image; choose another --format"):
            open_disk(env, tmp_path / "disk.raw", format)
    with pytest.raises(UsageError, match="there is no format vdi"):
        open_disk(env, tmp_path / "disk.raw", "vdi")
    with pytest.raises(UsageError, match="no regular file"):
        open_disk(env, Path("/dev/null"), "vhdx")


@pytest.mark.parametrize("kind", ["vhdx", "vmdk, stream", "vmdk, flat files of 2 GB", "qcow2"])
def test_no_descriptor_stays_open(env: Env, tmp_path: Path, kind: str) -> None:
    format, suffix, options = FORMATS[kind]
    scattered(tmp_path / "disk.raw", MIB)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / f"disk.{suffix}", format, options)
    before = descriptors()

    with open_disk(env, image) as disk:
        read_all(disk)
        assert len(os.listdir("/proc/self/fd")) <= len(before) + 4
    assert os.listdir("/proc/self/fd") == before
    data = bytearray(image.read_bytes())
    data[70_000 if suffix == "vhdx" else 30 if suffix == "vmdk" else 8 : 200_000] = bytes(1000)
    image.write_bytes(data)
    with pytest.raises((SourceFailed, Unsupported)):
        open_disk(env, image)
    assert os.listdir("/proc/self/fd") == before


def test_an_image_that_becomes_shorter(env: Env, tmp_path: Path) -> None:
    scattered(tmp_path / "disk.raw", 3 * MIB)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / "disk.vhdx", "vhdx")
    with open_disk(env, image) as disk:
        os.truncate(image, image.stat().st_size // 2)
        with pytest.raises(SourceFailed, match=r"disk\.vhdx became shorter"):
            read_all(disk)
        with pytest.raises(SourceFailed, match=r"disk\.vhdx became shorter"):
            list(disk.extents())


def test_extents_of_a_hole_in_a_block(env: Env, tmp_path: Path) -> None:
    image = tmp_path / "disk-flat.vmdk"
    with image.open("wb") as file:
        file.truncate(10 * MIB)
        file.seek(4 * MIB)
        file.write(noise(64 * KIB))
    pieces = ['RW 4096 FLAT "disk-flat.vmdk" 4096', "RW 2048 ZERO", 'RW 4096 FLAT "disk-flat.vmdk" 8192']
    (tmp_path / "disk.vmdk").write_text("\n".join(["# Disk DescriptorFile", "CID=1", *pieces, ""]))

    with open_disk(env, tmp_path / "disk.vmdk") as disk:
        assert [(one.offset, one.length, one.zero) for one in disk.extents()] == [
            (0, 3 * MIB, True),
            (3 * MIB, 64 * KIB, False),
            (3 * MIB + 64 * KIB, 2 * MIB - 64 * KIB, True),
        ]
        assert read_all(disk) == bytes(3 * MIB) + noise(64 * KIB) + bytes(2 * MIB - 64 * KIB)
