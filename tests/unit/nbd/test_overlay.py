# SPDX-License-Identifier: Apache-2.0
"""What is written over a disk that stays as it is, and where data is, compared with a plain copy."""

from __future__ import annotations

import errno
import os
import random
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks import Extent
from keepstone.disks.nbd.allocation import Allocation
from keepstone.disks.nbd.overlay import Overlay
from keepstone.env import Env, FileSystem
from keepstone.errors import SourceFailed, StorageFull
from tests.unit.nbd.serving import KIB, MIB, Disk, content, read

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("size", [MIB, MIB + 512, MIB + 4097, 100])
@pytest.mark.parametrize("punches", [True, False])
def test_any_writes_and_zeros(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, punches: bool
) -> None:
    if not punches:

        def refuse(*_: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "no")

        monkeypatch.setattr("keepstone.disks.nbd.overlay.punch_hole", refuse)
    data = content(size)
    disk, expected, chance = Disk(data), bytearray(data), random.Random(size)
    with closing(Overlay(env, disk, tmp_path)) as overlay:
        for _ in range(80):
            offset = chance.randrange(size)
            length = chance.choice((1, 511, 4096, chance.randrange(100_000)))
            if chance.random() < 0.4:
                offset = offset // 4096 * 4096
            length = min(length, size - offset)
            if chance.random() < 0.6:
                piece = chance.randbytes(length)
                overlay.write(offset, piece)
            else:
                piece = bytes(length)
                overlay.zero(offset, length)
            expected[offset : offset + length] = piece
            offset = chance.randrange(size)
            assert read(overlay_source(overlay), offset, 50_000) == expected[offset : offset + 50_000]
        assert read(overlay_source(overlay)) == expected
        at = 0
        for length, zero in overlay.runs(0, size):
            assert not zero or not any(expected[at : at + length])
            at += length
        assert at == size
    assert disk.data == data
    assert list(tmp_path.iterdir()) == []


def overlay_source(overlay: Overlay) -> Any:
    return overlay


def test_the_same_over_regions_of_a_large_disk(env: Env, tmp_path: Path) -> None:
    class Large(Disk):
        def __init__(self) -> None:
            super().__init__(b"")
            self.size = 3 << 30

        def extents(self, since: str | None = None) -> Any:
            yield Extent(0, self.size, zero=False)

        def pread_into(self, buffer: memoryview, offset: int) -> int:
            buffer[:] = b"\1" * len(buffer)
            return len(buffer)

    with closing(Overlay(env, Large(), tmp_path)) as overlay:
        overlay.zero(KIB, (2 << 30) + KIB)
        overlay.write((1 << 30) - 1, b"xyz")
        parts = ((0, KIB, b"\1"), (KIB, KIB, b"\0"), ((2 << 30) + 2 * KIB, KIB, b"\1"), ((2 << 30) + KIB, KIB, b"\0"))
        for offset, length, byte in parts:
            assert read(overlay_source(overlay), offset, length) == byte * length
        assert read(overlay_source(overlay), (1 << 30) - 2, 5) == b"\0xyz\0"
        assert [here for _, here in overlay._parts(0, 3 << 30)] == [True, True, True, False]


def test_a_disk_without_room_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    class Full(FileSystem):
        full = False

        def pwrite(self, fd: int, data: Any, offset: int) -> int:
            if self.full:
                os.pwrite(fd, b"garbage", offset)
                raise OSError(errno.ENOSPC, "no room")
            return os.pwrite(fd, data, offset)

    fs = Full()
    data = content(MIB)
    with closing(Overlay(Env(fs=fs), Disk(data), tmp_path)) as overlay:
        overlay.write(0, b"first")
        Full.full = True
        with pytest.raises(StorageFull):
            overlay.write(100 * KIB, b"second" * KIB)
        Full.full = False
        assert read(overlay_source(overlay)) == b"first" + data[5:]
        overlay.zero(100 * KIB, 8 * KIB)
        assert read(overlay_source(overlay), 100 * KIB, 8 * KIB) == bytes(8 * KIB)


def test_where_there_is_no_folder(env: Env, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="changes in"):
        Overlay(env, Disk(bytes(10)), tmp_path / "missing")


def test_after_its_end(env: Env, tmp_path: Path) -> None:
    overlay = Overlay(env, Disk(bytes(4096)), tmp_path)
    overlay.write(0, b"x" * 4096)
    overlay.close()
    overlay.close()
    with pytest.raises(SourceFailed, match="dropped"):
        read(overlay_source(overlay))


def test_allocation_is_learned_as_far_as_asked(env: Env) -> None:
    class Counting(Disk):
        given = 0

        def extents(self, since: str | None = None) -> Any:
            for extent in super().extents():
                self.given += 1
                yield extent

    data = content(4 * MIB)
    disk = Counting(data)
    allocation = Allocation(disk)
    counts = [disk.given]
    list(allocation.runs(0, 4096))
    counts.append(disk.given)
    assert counts == [0, 1]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(50):
            offset = at = chance.randrange(len(data))
            length = chance.randrange(len(data) - offset)
            for count, zero in allocation.runs(offset, length):
                assert count > 0
                page, last = at // 4096 * 4096, at + count
                assert zero == (not any(data[page:last]))
                at = last
            assert at == offset + length

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(allocation.runs(0, 0)) == []


def test_what_cannot_be_told_or_is_too_much_is_data(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Disk):
        def extents(self, since: str | None = None) -> Any:
            yield Extent(0, 4096, zero=True)
            raise SourceFailed("lost")

    assert list(Allocation(Failing(bytes(MIB))).runs(0, MIB)) == [(4096, True), (MIB - 4096, False)]

    class Striped(Disk):
        def extents(self, since: str | None = None) -> Any:
            for offset in range(0, self.size, 4096):
                yield Extent(offset, 4096, zero=bool(offset // 4096 % 2))

    monkeypatch.setattr("keepstone.disks.nbd.allocation._MOST", 10)
    runs = list(Allocation(Striped(bytes(MIB))).runs(0, MIB))
    assert runs[:-1] == [(4096, bool(number % 2)) for number in range(len(runs) - 1)]
    assert len(runs) == 11
    assert not runs[-1][1]
