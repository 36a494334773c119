# SPDX-License-Identifier: Apache-2.0
"""The disk of a point, read as any disk: the same bytes, for many threads, and the same holes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepstone.disks import Extent
from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError, UsageError
from keepstone.objects import MemoryStorage
from keepstone.workloads.images import PointDisk
from keepstone.workloads.images.leaf import LEAF_SPAN
from tests.unit.images.disk import CHUNK, Shelf, noise, sparse

pytestmark = pytest.mark.vm

SIZE = LEAF_SPAN + 9 * CHUNK + 777
DATA = {
    0: noise(2, 1),
    9 * CHUNK + 100: noise(0.5, 2),
    LEAF_SPAN - CHUNK: noise(7, 3),
    LEAF_SPAN + 9 * CHUNK: noise(1, 5)[:777],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return sparse(tmp_path / "disk", SIZE, DATA)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One that is compared to its last byte."""
    return sparse(tmp_path / "small", 80 * CHUNK + 777, {3 * CHUNK + 5: noise(40, 7), 80 * CHUNK: noise(1, 8)[:777]})


def test_the_whole_disk_is_the_one_that_was_backed_up(env: Env, shelf: Shelf, small: Path) -> None:
    with PointDisk(env, shelf.reader(shelf.backup(small))) as disk, small.open("rb") as source:
        assert (disk.size, disk.block_size, disk.token()) == (80 * CHUNK + 777, CHUNK, None)
        piece = 1 << 20
        buffer = memoryview(bytearray(piece))
        for offset in range(0, disk.size, piece):
            count = disk.pread_into(buffer, offset)
            assert count == min(piece, disk.size - offset)
            assert bytes(buffer[:count]) == source.read(piece)


def test_many_threads_read_here_and_there(env: Env, shelf: Shelf, file: Path) -> None:
    places = [*DATA, SIZE, LEAF_SPAN, LEAF_SPAN + 5 * CHUNK]

    def work(seed: int) -> int:
        chance = random.Random(seed)
        read = 0
        with file.open("rb") as source:
            for _ in range(60):
                offset = min(SIZE, max(0, chance.choice(places) + chance.randrange(-2 * CHUNK, 2 * CHUNK)))
                buffer = bytearray(chance.randrange(3 * CHUNK))
                count = disk.pread_into(memoryview(buffer), offset)
                source.seek(offset)
                assert buffer[:count] == source.read(len(buffer))
                read += count
        return read

    with PointDisk(env, shelf.reader(shelf.backup(file)), cache=2 << 20) as disk, ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_extents_are_those_of_the_manifest(env: Env, shelf: Shelf, file: Path) -> None:
    with PointDisk(env, shelf.reader(shelf.backup(file))) as disk:
        expected = [
            (0, 2 * CHUNK, False),
            (2 * CHUNK, 7 * CHUNK, True),
            (9 * CHUNK, CHUNK, False),
            (10 * CHUNK, LEAF_SPAN - 11 * CHUNK, True),
            (LEAF_SPAN - CHUNK, 7 * CHUNK, False),
            (LEAF_SPAN + 6 * CHUNK, 3 * CHUNK, True),
            (LEAF_SPAN + 9 * CHUNK, 777, False),
        ]
        assert list(disk.extents()) == [Extent(*extent) for extent in expected]
        assert list(disk.extents("any")) == list(disk.extents())


def test_extents_begin_with_zeros_where_the_disk_does(env: Env, shelf: Shelf, tmp_path: Path) -> None:
    empty = sparse(tmp_path / "empty", 5 * CHUNK + 1, {})
    with PointDisk(env, shelf.reader(shelf.backup(empty))) as disk:
        assert list(disk.extents()) == [Extent(0, 5 * CHUNK + 1, zero=True)]
    late = sparse(tmp_path / "late", 5 * CHUNK, {4 * CHUNK: noise(1, 6)})
    with PointDisk(env, shelf.reader(shelf.backup(late))) as disk:
        assert list(disk.extents()) == [Extent(0, 4 * CHUNK, zero=True), Extent(4 * CHUNK, CHUNK, zero=False)]


def test_there_is_nothing_outside_of_the_disk(env: Env, shelf: Shelf, file: Path) -> None:
    with PointDisk(env, shelf.reader(shelf.backup(file))) as disk:
        buffer = memoryview(bytearray(10))
        assert disk.pread_into(buffer, SIZE) == 0
        assert disk.pread_into(buffer, SIZE - 3) == 3
        for offset in (-1, SIZE + 1):
            with pytest.raises(UsageError):
                disk.pread_into(buffer, offset)


def test_a_disk_backed_up_from_a_point_is_the_same_disk(env: Env, shelf: Shelf, small: Path, tmp_path: Path) -> None:
    with PointDisk(env, shelf.reader(shelf.backup(small))) as disk:
        again = shelf.backup(disk)
    assert shelf.restore(again, tmp_path / "restored").read_bytes() == small.read_bytes()


def test_what_is_lost_is_told_to_whoever_reads_it(env: Env, shelf: Shelf, file: Path) -> None:
    report = shelf.backup(file)
    storage = shelf.store.context.storage
    assert isinstance(storage, MemoryStorage)
    with PointDisk(env, shelf.reader(report)) as disk:
        for name in shelf.objects():
            storage.delete(name)
        buffer = memoryview(bytearray(CHUNK))
        with pytest.raises(KeepstoneError):
            disk.pread_into(buffer, 0)


def test_a_point_of_another_kind_is_no_disk(env: Env, shelf: Shelf) -> None:
    from keepstone.store import Outcome

    with shelf.store.writer("tree", "files") as writer:
        node = writer.put_node("files/page", [], [], b"")
        commit = writer.commit(Outcome(root=[node], detail=b"", source=b"/", logical=0, read=0, files=0, warnings=0))
    with pytest.raises(CorruptObject):
        PointDisk(env, shelf.store.reader(shelf.store.points.find(commit)))
