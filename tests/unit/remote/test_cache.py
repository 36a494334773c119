# SPDX-License-Identifier: Apache-2.0
"""Nodes that a machine keeps: cold, warm, too small, damaged, another item's; no point is worse for it."""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import pytest

from keepstone.agent.cache import DiskCache
from keepstone.remote.wire import Seen
from keepstone.store import Store
from keepstone.workloads.files import Report
from tests.unit.files.backed import SECOND, World
from tests.unit.files.points import new_store
from tests.unit.files.trees import snapshot

from .far import Far
from .test_again import FarBackups

pytestmark = pytest.mark.agents

MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree whose pages say much of what nobody reads again: attributes, targets, holes."""
    root = tmp_path / "source"
    for folder in range(12):
        (root / f"{folder}" / "below").mkdir(parents=True)
        for number in range(5):
            path = root / f"{folder}" / f"file{number}"
            path.write_bytes(b"%d %d" % (folder, number))
            os.setxattr(path, "user.note", b"note %d %d" % (folder, number) * 40)
            (root / f"{folder}" / "below" / f"link{number}").symlink_to(f"target {folder} {number}")
    return root


class Machine:
    """Backups of a tree with a cache, each compared with the tree."""

    def __init__(self, path: Path, most: int = 16 * MIB) -> None:
        self.backups = FarBackups()
        self.path, self.most = path, most
        self.restored = 0

    def run(self, source: Path) -> Report:
        cache = DiskCache(self.path, self.most)
        self.backups.far.cache = cache
        try:
            report = self.backups.run(source)
        finally:
            cache.close()
        self.restored += 1
        assert self.backups.restored(self.path.parent.with_name(f"restored {self.restored}")) == snapshot(source)
        return report

    @property
    def asked(self) -> int:
        """Bytes of nodes that the newest session had to fetch."""
        return sum(len(answer) for call, _, answer in self.backups.far.direct.said if call == "nodes")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "cache" / "item.nodes")


def touch(source: Path, folder: int) -> None:
    """A page is made anew: what it says of the others comes out of the parent's."""
    (source / f"{folder}" / "file0").write_bytes(b"changed")
    (source / f"{folder}" / "below" / "more").write_bytes(b"more")


def test_cold_then_warm(machine: Machine, source: Path) -> None:
    machine.run(source)
    assert machine.asked == 0
    machine.run(source)
    cold = machine.asked
    assert cold > 20_000

    report = machine.run(source)

    assert (machine.asked, report.read) == (0, 0)
    touch(source, 3)
    machine.run(source)
    assert machine.asked == 0
    machine.run(source)
    assert 0 < machine.asked < cold / 3  # what is new


def test_too_small(machine: Machine, source: Path) -> None:
    """It never grows beyond what it may have, and what it has is of use."""
    machine.most = 8 << 10
    sizes = []
    for number in range(8):
        touch(source, number)
        machine.run(source)
        sizes.append(contents(machine.path))

    assert all(size <= machine.most for size in sizes)
    assert sizes[-1] > machine.most / 4


def contents(path: Path) -> int:
    with sqlite3.connect(path) as database:
        size = database.execute("SELECT coalesce(sum(length(key) + length(node)), 0) FROM nodes").fetchone()[0]
    database.close()
    return int(size)


def test_what_is_not_used_any_more_makes_room(tmp_path: Path) -> None:
    nodes = {bytes([number]) * 16: Seen([], "k", 0, b"", bytes([number]) * 1000) for number in range(12)}
    most = 10_000

    def run(keys: list[int]) -> None:
        cache = DiskCache(tmp_path / "nodes", most)
        for number in keys:
            key = bytes([number]) * 16
            if cache.get(key) is None:
                cache.put(key, nodes[key])
        cache.close()

    run([0, 1, 2, 3, 4, 5])
    run([4, 5, 6, 7, 8])
    run([6, 7, 8, 9, 10])

    cache = DiskCache(tmp_path / "nodes", most)
    kept = {number for number in range(12) if cache.has(bytes([number]) * 16)}
    assert kept >= {6, 7, 8, 9, 10}
    assert 0 not in kept
    assert cache.get(bytes([7]) * 16) == nodes[bytes([7]) * 16]
    cache.close()


def test_flipped_bits(machine: Machine, source: Path) -> None:
    """What a page says of a file that did not change goes into the next point unread: it has to be what was said."""
    chance = random.Random(7)
    for number in range(10):
        machine.run(source)
        assert contents(machine.path) > 5000 or number == 0
        data = bytearray(machine.path.read_bytes())
        for marker in (b"note %d" % number, b"target %d" % number):
            at = data.find(marker)
            while at >= 0:
                data[at] ^= 1 << chance.randrange(8)
                at = data.find(marker, at + 1)
        machine.path.write_bytes(data)
        touch(source, number)

        machine.run(source)  # compared with the tree


@pytest.mark.parametrize("seed", range(6))
def test_damage_anywhere(machine: Machine, source: Path, seed: int) -> None:
    machine.run(source)
    machine.run(source)
    chance = random.Random(seed)
    data = bytearray(machine.path.read_bytes())
    for _ in range(1 + 40 * (seed % 2)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    machine.path.write_bytes(data)
    touch(source, seed)

    machine.run(source)
    machine.run(source)
    machine.run(source)

    assert machine.asked == 0  # it is in use again


@pytest.mark.parametrize("garbage", [b"no database", b"SQLite format 3\0" + bytes(5000), b""])
def test_no_cache_at_all(machine: Machine, source: Path, garbage: bytes) -> None:
    machine.path.parent.mkdir()
    machine.path.write_bytes(garbage)

    machine.run(source)
    machine.run(source)
    machine.run(source)

    assert machine.asked == 0


def test_values_of_another_type(machine: Machine, source: Path) -> None:
    machine.run(source)
    machine.run(source)
    database = sqlite3.connect(machine.path)
    database.execute("UPDATE nodes SET node = 5")
    database.commit()
    database.close()

    assert machine.run(source).read == 0


def test_a_folder_where_nothing_can_be_written(machine: Machine, source: Path) -> None:
    machine.path.parent.parent.joinpath("cache").write_text("in the way")

    machine.run(source)

    assert machine.run(source).read == 0


def test_somebody_else_is_at_it(machine: Machine, source: Path) -> None:
    machine.run(source)
    machine.run(source)
    other = sqlite3.connect(machine.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    touch(source, 1)

    machine.run(source)

    other.execute("ROLLBACK")
    other.close()


def test_another_items(source: Path, tmp_path: Path) -> None:
    """The same tree, the same store, the same cache: none of its nodes has a key of the other item."""
    env = World()
    store: Store = new_store(env)
    for item in ("one", "two"):
        for _ in range(2):
            env.ahead += 3600 * SECOND
            cache = DiskCache(tmp_path / "nodes", 16 * MIB)
            far = Far(env, store, item, cache)
            far.back_up(source)
            cache.close()
        assert far.direct.count("nodes") == 2

    with sqlite3.connect(tmp_path / "nodes") as database:
        keys = database.execute("SELECT count(*) FROM nodes").fetchone()[0]
    database.close()
    assert keys == 2 * 25
