# SPDX-License-Identifier: Apache-2.0
"""Points of machines: each disk is a point of its own to whoever reads it, and forged ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepstone.disks import RawSink
from keepstone.disks.writing import FORMATS, Format
from keepstone.env import Env
from keepstone.errors import CorruptObject, HostileName, KeepstoneError, NotFound, UsageError
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.workloads import Silent
from keepstone.workloads.images import DiskMap, PointDisk, image_size, restore_image
from keepstone.workloads.machines import Disk, Role, disk_of, machine_of, restore_disks
from keepstone.workloads.machines.root import tokens
from tests.machines.points import forged_machine, machine_point
from tests.unit.files.points import new_store, provider
from tests.unit.images.disk import CHUNK, noise, patch, sparse

pytestmark = pytest.mark.vm

_DISK: dict[str, Any] = {"name": "sda", "size": 0}
_BODY: dict[str, Any] = {
    "name": "web",
    "moment": 1,
    "consistency": {"level": "crash"},
    "disks": [_DISK],
    "definition": {},
    "excluded": [],
}


@pytest.fixture
def env() -> Env:
    return Env(threads=2)


@pytest.fixture
def store(env: Env) -> Store:
    return new_store(env)


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, Path]:
    return {
        "sda": sparse(tmp_path / "one", 6 * CHUNK + 100, {CHUNK: noise(2)}),
        "sdb": sparse(tmp_path / "two", 3 * CHUNK, {0: noise(1, 1)}),
        "nvram": sparse(tmp_path / "nvram", 5000, {7: b"variables"}),
        "tpm": sparse(tmp_path / "tpm", 0, {}),
    }


def test_disks_that_are_exchanged_come_back_as_they_are(env: Env, disks: dict[str, Path], tmp_path: Path) -> None:
    """What is remembered of one disk says nothing of another, not even where its chunks are found there now."""
    storage = MemoryStorage(env)
    store = Store.init(env, storage, [provider()], cache=tmp_path / "cache")
    machine_point(store, disks)
    one, two = (disks[name].read_bytes() for name in ("sda", "sdb"))
    for first, second in ((two, one), (one, two), (one, one)):
        disks["sda"].write_bytes(first)
        disks["sdb"].write_bytes(second)
        point = machine_point(store, disks)
        assert point.record.added <= CHUNK  # the short one at the end
        with store.reader(point) as reader:
            for name, path in disks.items():
                with PointDisk(env, disk_of(reader, name)) as disk:
                    content = bytearray(disk.size)
                    disk.pread_into(memoryview(content), 0)
                    assert content == path.read_bytes()
    assert store.cache is not None
    assert len(list((store.cache / "fingerprints").iterdir())) == 4


def test_no_disk_is_remembered_as_another(env: Env, tmp_path: Path) -> None:
    store = Store.init(env, MemoryStorage(env), [provider()], cache=tmp_path)
    with store.writer("web", "machine") as writer:
        assert writer.fingerprints("sda") is not None
        assert writer.fingerprints("sda") is None
        assert writer.fingerprints("sdb") is not None


def test_each_disk_is_read_like_an_image(env: Env, store: Store, disks: dict[str, Path], tmp_path: Path) -> None:
    point = machine_point(store, disks, excluded=["sdc"])
    with store.reader(point) as reader:
        machine = machine_of(reader)
        assert [(disk.name, disk.size, disk.role) for disk, _ in machine.disks] == [
            ("sda", 6 * CHUNK + 100, Role.DISK),
            ("sdb", 3 * CHUNK, Role.DISK),
            ("nvram", 5000, Role.NVRAM),
            ("tpm", 0, Role.TPM),
        ]
        assert machine.about.excluded == ["sdc"]
        assert machine.about.definition["notes"] == b"\xffno JSON"
        for name, path in disks.items():
            one = disk_of(reader, name)
            new = tmp_path / f"new-{name}"
            assert restore_image(env, one, RawSink(env, new, image_size(one)), Silent()) == []
            assert new.read_bytes() == path.read_bytes()
        assert DiskMap(disk_of(reader, "sda")).data(0) == CHUNK
        with PointDisk(env, disk_of(reader, "nvram")) as disk:
            buffer = memoryview(bytearray(5000))
            assert disk.pread_into(buffer, 0) == 5000
            assert bytes(buffer) == disks["nvram"].read_bytes()
        with pytest.raises(NotFound, match="no disk 'sdz'; it has sda, sdb, nvram, tpm"):
            disk_of(reader, "sdz")
        with pytest.raises(UsageError, match="whole machine"):
            image_size(reader)


def test_chosen_disks(env: Env, store: Store, disks: dict[str, Path], tmp_path: Path) -> None:
    with store.reader(machine_point(store, disks)) as reader:
        machine = machine_of(reader)

        def into(disk: Disk) -> tuple[Path, Format]:
            return tmp_path / f"new-{disk.name}", FORMATS["raw"]

        done = restore_disks(env, machine, into, Silent(), names=["sdb"])
        with pytest.raises(NotFound, match="no disk sdx; it has"):
            restore_disks(env, machine, into, Silent(), names=["sda", "sdx"])

    assert [(disk.name, lost) for disk, lost in done] == [("sdb", [])]
    assert sorted(tmp_path.glob("new-*")) == [tmp_path / "new-sdb"]


def test_the_next_point_costs_what_changed(store: Store, disks: dict[str, Path]) -> None:
    machine_point(store, disks)
    patch(disks["sdb"], {CHUNK: noise(1, 5)})

    point = machine_point(store, dict(reversed(disks.items())))  # a disk is known by its name, not by its place

    assert point.record.added == CHUNK
    assert tokens(point.record) == {}  # these do not track what changes


def test_what_a_machine_needs_stays_when_other_points_go(env: Env, tmp_path: Path, disks: dict[str, Path]) -> None:
    store = new_store(env, tmp_path / "store")
    first = machine_point(store, disks)
    patch(disks["sda"], {0: noise(1, 7)})
    second = machine_point(store, disks)
    store.points.purge(first, now=True)
    store.reclaim(compact_below=1.0)

    assert store.verify(deep=True).ok
    with store.reader(second) as reader:
        for name, path in disks.items():
            new = tmp_path / f"new-{name}"
            one = disk_of(reader, name)
            assert restore_image(env, one, RawSink(env, new, image_size(one)), Silent()) == []
            assert new.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "children", "error"),
    [
        ({}, 0, CorruptObject),
        ({}, 2, CorruptObject),
        ({"disks": "sda"}, 1, CorruptObject),
        ({"consistency": {"level": "perfect"}}, 1, CorruptObject),
        ({"disks": [_DISK, _DISK]}, 2, HostileName),
        ({"disks": [_DISK | {"name": "../sda"}]}, 1, HostileName),
        ({"disks": [_DISK | {"name": ".."}]}, 1, HostileName),
        ({"disks": [_DISK | {"name": ""}]}, 1, HostileName),
        ({"disks": [_DISK | {"name": "sda\n"}]}, 1, HostileName),
        ({"disks": [_DISK | {"name": "a" * 101}]}, 1, HostileName),
        ({"disks": [_DISK | {"name": f"d{number}"} for number in range(1001)]}, 1001, CorruptObject),
    ],
)
def test_forged(store: Store, change: dict[str, Any], children: int, error: type[KeepstoneError]) -> None:
    with store.reader(forged_machine(store, _BODY, 1)) as reader:
        assert [disk.name for disk, _ in machine_of(reader).disks] == ["sda"]

    with store.reader(forged_machine(store, _BODY | change, children)) as reader, pytest.raises(error):
        machine_of(reader)
