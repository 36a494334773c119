# SPDX-License-Identifier: Apache-2.0
"""A disk that was backed up comes back to the byte, and costs what changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepstone.disks import RawSource
from keepstone.env import Env
from keepstone.errors import PointNotFound, SourceFailed
from keepstone.objects import PAGE
from keepstone.store import SEGMENT, ZERO_REF, Writer
from keepstone.store.index import ChunkIndex
from keepstone.workloads import Silent
from keepstone.workloads.images import backup_image
from keepstone.workloads.images.leaf import LEAF_SPAN
from tests.unit.images.disk import CHUNK, Count, Shelf, noise, patch, sparse

pytestmark = pytest.mark.store

LENGTHS = [0, 1, 511, PAGE, CHUNK - 1, CHUNK, CHUNK + 1, SEGMENT, SEGMENT + CHUNK + 777, 3 * SEGMENT]


@pytest.mark.parametrize("length", LENGTHS)
def test_disk_of_any_length_comes_back(shelf: Shelf, tmp_path: Path, length: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(length / CHUNK))
    count = Count()

    report = shelf.backup(disk, count)

    assert report.size == report.read == count.expected == count.done == length
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()


def test_zeros_between_data_are_left_out_and_come_back(shelf: Shelf, tmp_path: Path) -> None:
    zero = bytes(CHUNK)
    content = b"".join([zero, noise(1, 1), zero, zero, noise(2, 2), zero, noise(1, 3), bytes(CHUNK - 1), b"\1", zero])
    disk = tmp_path / "disk"
    disk.write_bytes(content + bytes(100))
    count = Count()

    report = shelf.backup(disk, count)

    record = shelf.point(report).record
    reader = shelf.reader(report)
    refs = reader.chunk_refs(reader.node(reader.child_refs(reader.node(reader.root()[0]))[0]))
    assert [ref == ZERO_REF for ref in refs] == [True, False, True, True, False, False, True, False, False, True, True]
    assert record.added == 5 * CHUNK
    assert count.reused == 5 * CHUNK + 100
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()


def test_holes_are_not_read_and_stay_holes(shelf: Shelf, tmp_path: Path) -> None:
    size = 3 * LEAF_SPAN + 5000
    pieces = {
        0: noise(0.5, 1),
        LEAF_SPAN - CHUNK: noise(2, 2),  # on both sides of a leaf's end
        LEAF_SPAN + 40 * CHUNK + PAGE: noise(0.1, 3),
        size - 100: b"end" * 10,
    }
    disk = sparse(tmp_path / "disk", size, pieces)

    report = shelf.backup(disk)
    new = shelf.restore(report, tmp_path / "new")

    assert report.read <= 8 * CHUNK
    assert new.stat().st_size == size
    assert new.stat().st_blocks * 512 <= 8 * CHUNK
    with new.open("rb") as file:
        for offset, piece in pieces.items():
            file.seek(offset - 10 if offset else 0)
            assert file.read(len(piece) + 20).strip(b"\0") == piece
    with RawSource(shelf.env, new) as source:
        assert sum(extent.length for extent in source.extents() if not extent.zero) <= 8 * CHUNK


def test_empty_disk_of_many_leaves_costs_nearly_nothing(shelf: Shelf, tmp_path: Path) -> None:
    report = shelf.backup(sparse(tmp_path / "disk", 5 * LEAF_SPAN, {}))

    assert report.read == 0
    assert shelf.point(report).record.stored == 0
    assert sum(info.size for info in shelf.store.context.storage.list("packs/")) < 4096


def test_second_generation_stores_only_the_changed_chunks(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(100))
    shelf.backup(disk)
    patch(disk, {5 * CHUNK + 17: b"changed", 41 * CHUNK - 2: b"both", 70 * CHUNK: bytes(CHUNK)})
    count = Count()

    report = shelf.backup(disk, count)

    assert shelf.point(report).record.added == 3 * CHUNK
    assert count.reused == 97 * CHUNK
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()


def test_unchanged_disk_stores_nothing(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 2 * LEAF_SPAN + 99, {7: noise(9), LEAF_SPAN + 5: noise(1)})
    first = shelf.backup(disk)
    before = shelf.objects()

    second = shelf.backup(disk)

    assert shelf.objects() == before
    assert (shelf.point(first).record.packs, shelf.point(first).record.root) == (
        shelf.point(second).record.packs,
        shelf.point(second).record.root,
    )


def test_unchanged_disk_needs_no_index(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(40) + bytes(3 * CHUNK) + noise(5, 1))
    shelf.backup(disk)

    def used(*_: object) -> None:
        raise AssertionError("the index was asked")

    monkeypatch.setattr(ChunkIndex, "__init__", used)

    assert shelf.point(shelf.backup(disk)).record.added == 0


def test_change_in_one_leaf_leaves_the_other_nodes(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 3 * LEAF_SPAN, {0: noise(2, 1), LEAF_SPAN: noise(2, 2), 2 * LEAF_SPAN: noise(2)})
    first = shelf.backup(disk)
    patch(disk, {LEAF_SPAN + 3: b"new"})

    second = shelf.backup(disk)

    reader = shelf.reader(second)
    old = shelf.reader(first)
    nodes = [reader.node(ref) for ref in reader.child_refs(reader.node(reader.root()[0]))]
    olds = [old.node(ref) for ref in old.child_refs(old.node(old.root()[0]))]
    assert [new == before for new, before in zip(nodes, olds, strict=True)] == [True, False, True]


@pytest.mark.parametrize("size", [3 * CHUNK - 5, 40 * CHUNK + 1, LEAF_SPAN + CHUNK])
def test_disk_that_grew_or_shrank_comes_back(shelf: Shelf, tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(10.5))
    shelf.backup(disk)
    with disk.open("r+b") as file:
        file.truncate(size)

    report = shelf.backup(disk)

    new = shelf.restore(report, tmp_path / "new")
    assert new.stat().st_size == size
    with new.open("rb") as restored, disk.open("rb") as original:
        assert restored.read(11 * CHUNK) == original.read(11 * CHUNK)
    assert shelf.point(report).record.added <= CHUNK  # the end that was cut or padded


def test_repeated_chunks_are_stored_once(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(1) * 50 + noise(2, 1))

    report = shelf.backup(disk)

    assert shelf.point(report).record.added == 3 * CHUNK
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()


def test_parent_that_lost_its_manifest_costs_a_warning(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(8))
    first = shelf.backup(disk)
    reader = shelf.reader(first)
    root_pack = shelf.point(first).record.packs.hex()
    data_packs = reader.node(reader.child_refs(reader.node(reader.root()[0]))[0]).packs.hex()
    assert root_pack != data_packs
    shelf.store.context.storage.delete(f"packs/{root_pack[:2]}/{root_pack}")
    count = Count()

    second = shelf.backup(disk, count)

    assert second.warnings == shelf.point(second).record.warnings == len(count.warnings) == 1
    assert "previous recovery point" in count.warnings[0]
    assert shelf.point(second).record.added == 0  # found by the index
    assert shelf.restore(second, tmp_path / "new").read_bytes() == disk.read_bytes()


class CondemnedParent:
    """A writer whose parent is about to be reclaimed."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> object:
        return getattr(self._writer, name)

    def usable(self, refs: list[int]) -> list[int] | None:
        return None

    def shareable(self, node: object) -> bool:
        return False


def test_condemned_parent_is_not_referred_to(shelf: Shelf, env: Env, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(3))
    first = shelf.backup(disk)

    with shelf.store.writer("disk", "images") as writer, RawSource(env, disk) as source:
        condemned: Writer = CondemnedParent(writer)  # type: ignore[assignment]
        second = backup_image(env, condemned, source, Silent(), name=b"x")

    assert shelf.point(second).record.packs != shelf.point(first).record.packs
    assert shelf.restore(second, tmp_path / "new").read_bytes() == disk.read_bytes()


class Shrinking(RawSource):
    """A disk that ends while it is read."""

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        if offset >= SEGMENT:
            os.truncate(self.path, SEGMENT)
        return super().pread_into(buffer, offset)


def test_source_that_fails_leaves_no_point(shelf: Shelf, env: Env, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(100))

    with pytest.raises(SourceFailed):
        shelf.backup(Shrinking(env, disk))

    with pytest.raises(PointNotFound):
        shelf.store.points.find("latest")
    assert list(shelf.store.context.storage.list("leases/")) == []
