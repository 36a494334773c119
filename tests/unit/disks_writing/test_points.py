# SPDX-License-Identifier: Apache-2.0
"""From a recovery point into every format; what is damaged in the store is left out and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.disks.writing import FORMATS
from keepstone.env import Env
from keepstone.errors import ObjectMissing, StorageFull, TargetExists, UsageError
from keepstone.store import LocalReader, Node
from keepstone.workloads.images import Lost, Report, restore_into
from keepstone.workloads.images.leaf import LEAF_SPAN, read_root
from tests.tampered import failing_at
from tests.unit.disks_writing.images import MIB, QEMU, needs_qemu, qemu
from tests.unit.images.disk import CHUNK, Count, Shelf, noise, sparse

pytestmark = [pytest.mark.vm, needs_qemu]

SIZE = LEAF_SPAN + (8 << 20) + 12_345
IMAGES = [name for name in FORMATS if name != "raw"]


def restored(shelf: Shelf, report: Report, target: Path, name: str, told: Count, env: Env | None = None) -> list[Lost]:
    with shelf.store.reader(shelf.point(report)) as reader:
        return restore_into(env or shelf.env, reader, target, FORMATS[name], told)


@pytest.mark.parametrize("name", IMAGES)
def test_every_format(shelf: Shelf, tmp_path: Path, name: str) -> None:
    disk = sparse(tmp_path / "disk", SIZE, {0: noise(9.5), LEAF_SPAN - CHUNK: noise(3, 1)})
    report, told = shelf.backup(disk), Count()
    assert restored(shelf, report, tmp_path / "image", name, told) == []
    qemu("compare", "-f", "raw", "-F", QEMU.get(name, name), disk, tmp_path / "image")
    assert (tmp_path / "image").stat().st_blocks * 512 < 6 * MIB
    assert told.done == told.expected == SIZE
    assert 12 * CHUNK <= told.done - told.reused <= 16 * CHUNK
    with pytest.raises(TargetExists):
        restored(shelf, report, tmp_path / "image", name, Count())


@pytest.mark.parametrize("at", [0.01, 0.3, 0.6])
@pytest.mark.parametrize("name", ["qcow2", "vmdk"])
def test_damaged_data_is_left_out_and_named(shelf: Shelf, tmp_path: Path, name: str, at: float) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(30.5))
    content = bytearray(disk.read_bytes())
    report = shelf.backup(disk)
    storage = shelf.store.context.storage
    pack = max(storage.list("packs/"), key=lambda info: info.size).name
    data = bytearray(storage.read(pack))
    data[int(len(data) * at)] ^= 1
    storage.delete(pack)
    storage.put(pack, data)
    told = Count()

    lost = restored(shelf, report, tmp_path / "image", name, told)

    assert 0 < sum(piece.length for piece in lost) <= 8 * CHUNK
    for piece in lost:
        content[piece.offset : piece.offset + piece.length] = bytes(piece.length)
        assert "packs/" in piece.reason
    (tmp_path / "expected").write_bytes(content)
    qemu("compare", "-f", "raw", "-F", name, tmp_path / "expected", tmp_path / "image")
    assert told.warnings == [f"{piece.where} are not restored: {piece.reason}" for piece in lost]


def test_a_damaged_leaf_costs_its_span(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = sparse(tmp_path / "disk", 2 * LEAF_SPAN + CHUNK, {0: noise(2), 2 * LEAF_SPAN: noise(1, 2)})
    report = shelf.backup(disk)
    with shelf.store.reader(shelf.point(report)) as reader:
        bad = read_root(reader, reader.root())[2][0]
    before = LocalReader.node

    def node(self: LocalReader, ref: int) -> Node:
        if ref == bad:
            raise ObjectMissing("packs/gone")
        return before(self, ref)

    monkeypatch.setattr(LocalReader, "node", node)
    assert restored(shelf, report, tmp_path / "image", "vmdk", Count()) == [Lost(0, LEAF_SPAN, "packs/gone")]
    expected = sparse(tmp_path / "expected", 2 * LEAF_SPAN + CHUNK, {2 * LEAF_SPAN: noise(1, 2)})
    qemu("compare", "-f", "raw", "-F", "vmdk", expected, tmp_path / "image")


@pytest.mark.parametrize("name", IMAGES)
def test_a_full_disk_leaves_no_file(shelf: Shelf, tmp_path: Path, name: str) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "folder"
    disk.write_bytes(noise(30))
    folder.mkdir()
    report = shelf.backup(disk)
    with pytest.raises(StorageFull, match="make room there"):
        restored(shelf, report, folder / "image", name, Count(), Env(fs=failing_at("pwrite", 2, 28)))
    assert not list(folder.iterdir())


class _Stopped(Count):
    """Somebody interrupts as soon as something is done."""

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["vhdx", "vmdk"])
def test_an_interrupt_leaves_no_file(shelf: Shelf, tmp_path: Path, name: str) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "folder"
    disk.write_bytes(noise(30))
    folder.mkdir()
    report = shelf.backup(disk)
    with pytest.raises(KeyboardInterrupt):
        restored(shelf, report, folder / "image", name, _Stopped())
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["vhd", "vmdk"])
def test_a_disk_that_is_too_long_is_refused_at_once(shelf: Shelf, tmp_path: Path, name: str) -> None:
    limit = FORMATS[name].limit or 0
    disk = sparse(tmp_path / "disk", limit + 512, {})
    report = shelf.backup(disk)
    with pytest.raises(UsageError, match="choose another format"):
        restored(shelf, report, tmp_path / "image", name, Count())
    assert not (tmp_path / "image").exists()
