# SPDX-License-Identifier: Apache-2.0
"""Logical volumes: metadata that LVM itself wrote, content that the test put where they say; and damaged metadata."""

from __future__ import annotations

import contextlib
import random
import subprocess
from pathlib import Path

import pytest

from keepstone.workloads.guestfiles import lvm
from keepstone.workloads.guestfiles.blocks import Part
from tests.unit.guestfiles.filesystems import MIB, ext, looked_into, need, noise, partitioned, run, sparse

pytestmark = pytest.mark.vm
_WITHOUT = ("--driverloaded", "n")  # no device mapper is needed to write metadata


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@pytest.fixture(scope="module")
def physical(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two physical volumes of a group, with a volume of two segments and a striped one."""
    need("losetup", "pvcreate", "vgcreate", "lvcreate", "pvs")
    folder = tmp_path_factory.mktemp("lvm")
    images = sparse(folder / "one", 64 * MIB), sparse(folder / "two", 32 * MIB)
    loops: list[str] = []
    try:
        for image in images:
            try:
                loops.append(run("losetup", "-f", "--show", image).strip())
            except AssertionError:
                pytest.skip("no loop device can be had here, and LVM takes no files")
        first, second = loops
        name = f"vg{random.SystemRandom().randrange(10**9)}"
        quiet = ("-y", "-an", "-Zn", "-Wn", *_WITHOUT)
        run("pvcreate", "-y", *loops, *_WITHOUT)
        run("vgcreate", "-s", "1M", name, *loops, *_WITHOUT)
        run("lvcreate", *quiet, "-l", 40, "-n", "root-data", name, f"{first}:0-39")
        run("lvextend", "-l", "+10", f"{name}/root-data", f"{second}:8-17", *_WITHOUT)
        run("lvcreate", *quiet, "-i", 2, "-I", 64, "-l", 16, "-n", "stripes", name, f"{first}:40-47", f"{second}:0-7")
        assert (
            run("pvs", "--noheadings", "--units", "b", "-o", "pe_start", *loops, *_WITHOUT).split() == ["1048576B"] * 2
        )
    finally:
        for loop in loops:
            subprocess.run(["/usr/sbin/losetup", "-d", loop], check=False)
    return images


def test_files_on_logical_volumes(tmp_path: Path, physical: tuple[Path, Path]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "data").write_bytes(noise(9_000_000))
    plain, striped = ext(tmp_path / "plain", tree, 50 * MIB), ext(tmp_path / "striped", tree, 16 * MIB)
    first, second = (bytearray(path.read_bytes()) for path in physical)
    data = plain.read_bytes()
    first[MIB : 41 * MIB] = data[: 40 * MIB]
    second[9 * MIB : 19 * MIB] = data[40 * MIB :]
    data, stripe = striped.read_bytes(), 64 << 10
    for number in range(len(data) // stripe):
        disk, begin = (first, 41 * MIB) if number % 2 == 0 else (second, MIB)
        at = begin + number // 2 * stripe
        disk[at : at + stripe] = data[number * stripe : (number + 1) * stripe]
    for name, content in (("one", first), ("two", second)):
        (tmp_path / name).write_bytes(content)
    parts = {2048: tmp_path / "one", 133120: tmp_path / "two"}
    whole = partitioned(tmp_path / "disk", "gpt", "start=2048,size=131072\nstart=133120,size=65536", parts, 104 * MIB)

    with looked_into(whole) as found:
        volumes = {one.name.partition("-")[2] or one.name: one for one in found.reader.volumes()}
        assert list(volumes) == ["1", "2", "root-data", "stripes"]
        assert (volumes["1"].filesystem, volumes["1"].is_readable) == ("lvm", False)
        root = volumes["root-data"]
        assert (root.size, root.filesystem, root.offset) == (50 * MIB, "ext4", 2 * MIB)
        assert root.ranges == [(2 * MIB, 40 * MIB), (74 * MIB, 10 * MIB)]
        assert sorted(volumes["stripes"].ranges) == [(MIB, 64 * MIB), (65 * MIB, 32 * MIB)]  # and what says how
        for volume in (root, volumes["stripes"]):
            file = found.find(f"{volume.name}/data".encode())
            assert file is not None
            assert b"".join(found.content(file).read(0, file.entry.size)) == (tree / "data").read_bytes()

    # a disk that lacks the other one says so
    lone = partitioned(tmp_path / "lone", "gpt", "start=2048,size=131072", {2048: tmp_path / "one"}, 70 * MIB)
    with looked_into(lone) as found:
        notes = {one.name.partition("-")[2]: one.note for one in found.reader.volumes()}
        assert "another disk" in notes["root-data"]
        assert "another disk" in notes["stripes"]


def test_damaged_metadata(physical: tuple[Path, Path]) -> None:
    whole = physical[0].read_bytes()[:MIB]
    dice = random.Random(5)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 30)):
            data[dice.choice((dice.randrange(512, 1024), dice.randrange(4096, 12_000)))] = dice.randrange(256)
        disk = _Bytes(bytes(data))
        part = Part(disk, 0, disk.size)
        if lvm.is_physical(part):
            for one in lvm.logical([(0, part)]):
                assert all(begin >= 0 and begin + size <= disk.size for begin, size in one.parts)
                if one.data is not None:
                    with contextlib.suppress(OSError):
                        one.data.read(0, 1000)
