# SPDX-License-Identifier: Apache-2.0
"""Names looked for in one point after the other, and what is not looked at for that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError
from keepstone.store import Point, Store
from keepstone.workloads.files.find import find
from keepstone.workloads.guestfiles.finding import Finder, Match
from keepstone.workloads.guestfiles.tree import tree_of
from keepstone.workloads.guestfiles.worker import Worker
from tests.machines.points import machine_point
from tests.unit.guestfiles.changing import disk_point, edited
from tests.unit.guestfiles.filesystems import MIB, ext, fat, partitioned, plain_tree

pytestmark = pytest.mark.vm


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plain_tree(tmp_path / "tree")


def matches(finder: Finder, store: Store, point: Point, lost: object = None) -> list[Match]:
    env = Env(threads=2)
    with store.reader(point) as reader, tree_of(env, reader) as tree:
        return list(finder.matches(tree, lost))  # type: ignore[arg-type]


def paths(found: Sequence[Match]) -> list[str]:
    return [match.path.decode() for match in found]


def two_volumes(tmp_path: Path, tree: Path) -> tuple[Path, Path, dict[int, Path]]:
    linux, dos = ext(tmp_path / "linux", tree, 16 * MIB), fat(tmp_path / "dos", tree / "folder", 40 * MIB)
    parts = {2048: linux, 34816: dos}
    return made(tmp_path / "disk", parts), linux, parts


def made(disk: Path, parts: dict[int, Path]) -> Path:
    return partitioned(disk, "gpt", "start=2048,size=32768\nstart=34816,size=81920", parts, 64 * MIB)


@pytest.mark.parametrize(
    ("pattern", "walked"),
    [
        ("*", [{0, 1}, set(), {0}, set()]),
        ("*/deep*", [{0, 1}, set(), {0}, set()]),
        ("1/*x", [{0}, set(), {0}, set()]),
        ("1/folder/deep/*", [{0}, {0}, {0}, {0}]),  # the way there
    ],
)
def test_volumes_that_did_not_change_are_not_looked_at_again(
    store: Store, tmp_path: Path, tree: Path, listed: list[tuple[int, int]], pattern: str, walked: list[set[int]]
) -> None:
    """And what is found is what a walk of all of it finds, also in a point in which one has changed."""
    disk, linux, parts = two_volumes(tmp_path, tree)
    points = [disk_point(store, disk), disk_point(store, disk)]
    (tmp_path / "file").write_bytes(b"x")
    edited(linux, "cd folder/deep/deeper", f"write {tmp_path / 'file'} xx", f"write {tmp_path / 'file'} deep2")
    points += [disk_point(store, made(disk, parts)), disk_point(store, disk)]
    finder = Finder([pattern.encode()])
    for point, volumes in zip(points, walked, strict=True):
        listed.clear()
        found = matches(finder, store, point)
        assert {volume for volume, _ in listed} == volumes
        with store.reader(point) as reader, tree_of(Env(threads=2), reader) as whole:
            wanted = list(find(whole.reader, [pattern.encode()]))
        assert [(match.path, match.entry.size) for match in found] == [(path, entry.size) for path, entry in wanted]
    assert finder.skipped == (5 if pattern.startswith("*") else 2)


def test_one_path_costs_one_look(store: Store, tmp_path: Path, tree: Path, listed: list[tuple[int, int]]) -> None:
    point = disk_point(store, ext(tmp_path / "disk", tree))
    assert paths(matches(Finder([b"/0/folder/deep/deeper/x"]), store, point)) == ["0/folder/deep/deeper/x"]
    assert len(listed) == 4
    assert matches(Finder([b"0/folder/none"]), store, point) == []
    assert matches(Finder([b"0/small.txt/x"]), store, point) == []
    assert paths(matches(Finder([b"0/folder/deep/"]), store, point)) == ["0/folder/deep"]
    assert paths(matches(Finder([b"0/folder/deep/", b"*.bin"]), store, point)) == ["0/folder/deep", "0/large.bin"]


def test_versions(store: Store, tmp_path: Path, tree: Path) -> None:
    disk = ext(tmp_path / "disk", tree)
    finder = Finder([b"small.txt"])
    versions = [matches(finder, store, disk_point(store, disk))[0].version for _ in range(2)]
    edited(disk, "set_inode_field small.txt mtime 20300101000000")
    versions.append(matches(finder, store, disk_point(store, disk))[0].version)

    assert versions[0] == versions[1]
    assert versions[1] != versions[2]


def test_a_machine(store: Store, tmp_path: Path, tree: Path, listed: list[tuple[int, int]]) -> None:
    disks = {"sda": ext(tmp_path / "sda", tree), "sdb": fat(tmp_path / "sdb", tree / "folder")}
    finder = Finder([b"x"])
    found = ["sda/0/folder/deep/deeper/x", "sdb/0/deep/deeper/x"]
    assert paths(matches(finder, store, machine_point(store, disks))) == found
    listed.clear()
    edited(disks["sda"], "rm small.txt")
    assert paths(matches(finder, store, machine_point(store, disks))) == found
    assert finder.skipped == 1


def test_a_volume_with_damage_is_looked_at_again(
    store: Store, tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found in it is not all of it."""
    disk = ext(tmp_path / "disk", tree)
    first, second = disk_point(store, disk), disk_point(store, disk)
    finder, real, told = Finder([b"*"]), Worker.items, list[bytes]()

    def items(self: Worker, volume: int, inode: int) -> object:
        if inode:
            raise CorruptObject("a block of it cannot be read")
        return real(self, volume, inode)

    def lost(path: bytes, _: KeepstoneError) -> None:
        told.append(path)

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "items", items)
        with pytest.raises(CorruptObject):
            matches(finder, store, first)
        assert "0/small.txt" in paths(matches(finder, store, first, lost))
    assert told == [b"0/folder", b"0/lost+found"]
    assert "0/folder/deep/deeper/x" in paths(matches(finder, store, second))
    assert finder.skipped == 0
