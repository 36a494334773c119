# SPDX-License-Identifier: Apache-2.0
"""What is stored of a file: as the system has it, in whatever order it is asked for, and asked of the system once."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from keepstone.disks import holes, open_disk
from keepstone.disks.holes import Stored
from keepstone.env import Env, FileSystem
from keepstone.objects import DirectFile, is_zero
from tests.unit.disks.foreign import KIB, MIB, noise, qemu_image, scattered, vhd

pytestmark = pytest.mark.vm


class Asked(FileSystem):
    """Counts how often the end of data is asked for; refuses it with `code`."""

    def __init__(self, code: int = 0) -> None:
        self.count = 0
        self.code = code

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_HOLE:
            self.count += 1
        if self.code and whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(self.code, os.strerror(self.code))
        return super().lseek(fd, offset, whence)


def pieces(path: Path, count: int = 12) -> set[int]:
    """A file with data of 64 KiB at every second place of 128 KiB, and a hole at its end; where the data is."""
    with path.open("wb") as file:
        file.truncate(count * 128 * KIB)
        for number in range(count):
            file.seek(number * 128 * KIB)
            file.write(noise(64 * KIB, number))
    return {at for number in range(count) for at in range(number * 128 * KIB, number * 128 * KIB + 64 * KIB, 4096)}


def told(stored: Stored, begin: int, end: int) -> set[int]:
    """The pages of a range that are said to be data, which come in order."""
    found, last = set[int](), begin
    for start, stop in stored.within(begin, end):
        assert last <= start < stop <= end
        found.update(range(start // 4096 * 4096, stop, 4096))
        last = stop
    return found


@pytest.mark.parametrize("kept", [1 << 20, 5, 0])
def test_any_range_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(holes, "_KEPT", kept)
    data = pieces(tmp_path / "file")
    chance = random.Random(1)
    files = Asked()
    with DirectFile(files, str(tmp_path / "file")) as file:
        stored = Stored(file)
        for _ in range(200):
            begin, end = sorted(chance.choices(range(0, 12 * 128 * KIB + 1, 4096), k=2))
            assert told(stored, begin, end) == {at for at in data if begin <= at < end}
    assert files.count == 12 if kept > 12 else files.count > 100


def test_where_holes_are_not_known_all_is_data(tmp_path: Path) -> None:
    pieces(tmp_path / "file")
    with DirectFile(Asked(errno.EINVAL), str(tmp_path / "file")) as file:
        stored = Stored(file)
        assert list(stored.within(512, 300 * KIB)) == [(512, 300 * KIB)]
        assert list(stored.within(300 * KIB, 600 * KIB)) == [(300 * KIB, 600 * KIB)]
        assert list(stored.within(0, 1)) == [(0, 1)]


def test_what_the_system_cannot_do_is_raised(tmp_path: Path) -> None:
    pieces(tmp_path / "file")
    with DirectFile(Asked(errno.EIO), str(tmp_path / "file")) as file, pytest.raises(OSError, match="Input/output"):
        list(Stored(file).within(0, 4096))


@pytest.mark.parametrize("kept", [1 << 20, 0])
def test_a_file_that_ends_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(holes, "_KEPT", kept)
    pieces(tmp_path / "file")
    with DirectFile(Env().fs, str(tmp_path / "file")) as file:
        stored = Stored(file)
        assert list(stored.within(1472 * KIB, 1536 * KIB)) == []
        with pytest.raises(EOFError):
            list(stored.within(1472 * KIB, 1536 * KIB + 1))


def test_an_image_without_holes_is_looked_at_once(tmp_path: Path) -> None:
    """Not once for each block, all of them to the end of the file: that takes longer than to read it."""
    numbers = random.Random(2).sample(range(64), 40)
    blocks = {number: (b"\xff" * 16, noise(64 * KIB, number)) for number in numbers}
    image = vhd(tmp_path / "disk.vhd", 4 * MIB, blocks, block=64 * KIB)
    files = Asked()
    with open_disk(Env(threads=2, fs=files), image) as disk:
        found = list(disk.extents())
        assert files.count <= 2
        assert list(disk.extents()) == found
    data = {at // (64 * KIB) for one in found if not one.zero for at in range(one.offset, one.end, 64 * KIB)}
    assert data == set(numbers)


def test_a_chain_looks_at_each_of_its_files_once(tmp_path: Path) -> None:
    full = b"\xff" * 16
    id = bytes(range(16))
    vhd(tmp_path / "base.vhd", 4 * MIB, {n: (full, noise(64 * KIB, n)) for n in range(64)}, block=64 * KIB, id=id)
    own = {n: (b"\x0f" * 16, noise(64 * KIB, 100 + n)) for n in range(0, 64, 2)}
    child = vhd(tmp_path / "child.vhd", 4 * MIB, own, block=64 * KIB, parent=("base.vhd", id))
    files = Asked()
    with open_disk(Env(threads=2, fs=files), child) as disk:
        assert [(one.offset, one.length, one.zero) for one in disk.extents()] == [(0, 4 * MIB, False)]
    assert files.count <= 3


def test_extents_of_an_image_with_holes_of_its_own(env: Env, tmp_path: Path) -> None:
    """Blocks that the file leaves out are zeros, and are not read: VHDX of QEMU has large ones."""
    content = scattered(tmp_path / "disk.raw", 64 * MIB, pieces=6)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / "disk.vhdx", "vhdx", "block_size=8M")
    with open_disk(env, image) as disk:
        zeros = [one for one in disk.extents() if one.zero]
        assert all(is_zero(memoryview(content)[one.offset : one.end]) for one in zeros)
        assert sum(one.length for one in zeros) > 55 * MIB
