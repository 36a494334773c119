# SPDX-License-Identifier: Apache-2.0
"""The difference of two points of disks is what was done to the files on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError, NotFound, UsageError
from keepstone.store import Point, Store
from keepstone.workloads.files.diff import Compared
from keepstone.workloads.guestfiles.diff import diff_guests
from keepstone.workloads.guestfiles.tree import guest_reader
from keepstone.workloads.guestfiles.worker import Worker
from tests.machines.points import machine_point
from tests.unit.guestfiles.changing import disk_point, edited, overwritten
from tests.unit.guestfiles.filesystems import (
    MIB,
    ext,
    fat,
    mounted_ntfs,
    noise,
    ntfs,
    partitioned,
    plain_tree,
    run,
)

pytestmark = pytest.mark.vm

IMAGE = ("disk.img", "content")
TOLD = b"content that a file has, once\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    tree = plain_tree(tmp_path / "tree")
    (tree / "folder" / "told").write_bytes(TOLD)
    return ext(tmp_path / "disk", tree)


def steps(store: Store, before: Point, after: Point, path: bytes = b"", **more: object) -> list[Compared]:
    env = Env(threads=2)
    with (
        store.reader(before) as left,
        store.reader(after) as right,
        guest_reader(env, left) as one,
        guest_reader(env, right) as other,
    ):
        return list(diff_guests(one, other, path, **more))  # type: ignore[arg-type]


def changes(store: Store, before: Point, after: Point, path: bytes = b"", **more: object) -> list[tuple[str, str]]:
    """(path, difference) from one point to the other."""
    found = [step.change for step in steps(store, before, after, path, **more) if step.change is not None]
    for change in found:
        assert (change.before is None) == (change.difference == "added")
        assert (change.after is None) == (change.difference == "removed")
    return [(change.path.decode(), str(change.difference)) for change in found]


def test_what_was_done_to_an_ext4(store: Store, disk: Path, tmp_path: Path) -> None:
    first = disk_point(store, disk)
    (tmp_path / "grown").write_bytes(noise(2 * MIB))
    edited(
        disk,
        "rm small.txt",
        "set_inode_field empty mode 0100600",
        "set_inode_field large.bin ctime 20300101000000",
        "cd folder/deep",
        f"write {tmp_path / 'grown'} grown",
        "mkdir new",
        "cd new",
        f"write {tmp_path / 'grown'} inner",
        "set_inode_field /folder/told mtime 20300101000000",
        "symlink /folder/link target",
    )
    second = disk_point(store, disk)

    assert changes(store, first, second) == [
        ("0/empty", "metadata"),
        ("0/folder/deep/grown", "added"),
        ("0/folder/deep/new", "added"),
        ("0/folder/deep/new/inner", "added"),
        ("0/folder/link", "added"),
        ("0/folder/told", "content"),
        ("0/large.bin", "metadata"),
        ("0/small.txt", "removed"),
        IMAGE,
    ]
    assert [path for path, _ in changes(store, second, first)] == [path for path, _ in changes(store, first, second)]
    assert changes(store, first, first) == []
    assert changes(store, first, second, b"0/folder/deep/new") == [
        ("0/folder/deep/new", "added"),
        ("0/folder/deep/new/inner", "added"),
    ]
    assert changes(store, first, second, b"/0/small.txt") == [("0/small.txt", "removed")]
    assert changes(store, first, second, b"0/lost+found") == changes(store, first, first, b"0/folder") == []
    with pytest.raises(NotFound, match="0/none"):
        changes(store, first, second, b"0/none")
    with pytest.raises(UsageError, match="upwards"):
        changes(store, first, second, b"0/../1")


def test_content_decides_where_it_is_asked_for(store: Store, disk: Path) -> None:
    first = disk_point(store, disk)
    overwritten(disk, TOLD, TOLD.upper())
    second = disk_point(store, disk)
    edited(disk, "set_inode_field folder/told mtime 20300101000000", "set_inode_field small.txt mtime 20300101000000")
    third = disk_point(store, disk)

    assert changes(store, first, second) == [IMAGE]
    assert changes(store, first, second, content=True) == [("0/folder/told", "content"), IMAGE]
    assert changes(store, second, third) == [("0/folder/told", "content"), ("0/small.txt", "content"), IMAGE]
    assert changes(store, second, third, content=True) == [
        ("0/folder/told", "metadata"),
        ("0/small.txt", "metadata"),
        IMAGE,
    ]


def test_holes_are_zeros(store: Store, tmp_path: Path) -> None:
    """A file with holes, and the same bytes without them."""
    image, content = ntfs(tmp_path / "image"), noise(MIB + 5)
    points = []
    for number, zeros in enumerate((False, True)):
        with mounted_ntfs(image, tmp_path / f"mnt{number}") as folder, (folder / "file").open("wb") as file:
            (folder / "moved").write_bytes(bytes(number * MIB) + content + bytes((1 - number) * MIB))
            for size in (3 * MIB, 2 * MIB):
                if zeros:
                    file.write(bytes(size))
                else:
                    file.seek(size, os.SEEK_CUR)
                file.write(content)
        points.append(disk_point(store, image))

    first, second = points
    (step,) = steps(store, first, second, b"0/file", content=True)

    change = step.change
    assert change is not None
    assert change.before is not None
    assert change.after is not None
    assert change.before.extra.extents is not None
    assert change.after.extra.extents is None
    assert change.difference == "metadata"
    assert changes(store, first, second, b"0/file") == [("0/file", "content")]
    assert changes(store, first, second, b"0/moved", content=True) == [("0/moved", "content")]


def test_a_volume_of_the_same_chunks_is_not_looked_at(
    store: Store, tmp_path: Path, listed: list[tuple[int, int]]
) -> None:
    tree = plain_tree(tmp_path / "tree")
    linux, dos = ext(tmp_path / "linux", tree, 16 * MIB), fat(tmp_path / "dos", tree / "folder" / "deep", 40 * MIB)
    script, parts = "start=2048,size=32768\nstart=34816,size=81920", {2048: linux, 34816: dos}
    disk = partitioned(tmp_path / "disk", "gpt", script, parts, 64 * MIB)
    first = disk_point(store, disk)
    edited(linux, "rm small.txt")
    second = disk_point(store, partitioned(disk, "gpt", script, parts, 64 * MIB))
    again = disk_point(store, disk)

    assert changes(store, first, second) == [("1/small.txt", "removed"), IMAGE]
    assert listed
    assert {volume for volume, _ in listed} == {0}
    listed.clear()
    assert changes(store, second, again) == []
    assert listed == []


def test_a_machine(store: Store, tmp_path: Path, disk: Path, listed: list[tuple[int, int]]) -> None:
    """And a disk of it that is as it was costs nothing; another one came."""
    other = fat(tmp_path / "other", tmp_path / "tree" / "folder" / "deep")
    first = machine_point(store, {"vda": disk, "vdb": other})
    edited(disk, "rm small.txt")
    third = ext(tmp_path / "third", tmp_path / "tree" / "folder" / "deep", 8 * MIB)
    second = machine_point(store, {"vda": disk, "vdb": other, "vdc": third})

    found = changes(store, first, second)

    assert found[:3] == [("vda/0/small.txt", "removed"), ("vda/disk.img", "content"), ("vdc", "added")]
    assert ("vdc/0/deeper/x", "added") in found
    assert not [path for path, _ in found if path.startswith("vdb")]
    assert changes(store, first, second, b"vda/0") == [("vda/0/small.txt", "removed")]


@pytest.mark.parametrize("path", [b"", b"0", b"0/folder"])
def test_it_goes_on_behind_any_path(store: Store, disk: Path, tmp_path: Path, path: bytes) -> None:
    first = disk_point(store, disk)
    (tmp_path / "file").write_bytes(b"x")
    edited(disk, "rm small.txt", "mkdir folder/a", "cd folder/a", f"write {tmp_path / 'file'} b")
    second = disk_point(store, disk)
    everything = steps(store, first, second, path)
    assert len(everything) >= 4

    for at, step in enumerate(everything):
        rest = steps(store, first, second, path, behind=step.path)

        assert [one.path for one in rest] == [one.path for one in everything[at + 1 :]]
        assert [one.change and one.change.difference for one in rest] == [
            one.change and one.change.difference for one in everything[at + 1 :]
        ]


def test_an_ntfs(store: Store, tmp_path: Path) -> None:
    image = ntfs(tmp_path / "image")
    with mounted_ntfs(image, tmp_path / "mnt") as folder:
        for name in ("kept", "gone", "moved", "changed"):
            (folder / name).write_bytes(noise(3000, len(name)))
        (folder / "kept:stream").write_bytes(b"stream")
    first = disk_point(store, image)
    with mounted_ntfs(image, tmp_path / "again") as folder:
        (folder / "gone").unlink()
        (folder / "moved").rename(folder / "there")
        (folder / "changed").write_bytes(b"x")
        (folder / "kept:other").write_bytes(b"new")
    second = disk_point(store, image)

    found = dict(changes(store, first, second, content=True))

    assert found == {
        "0/kept": "metadata",  # the time of its record, which its streams have as well
        "0/kept:stream": "metadata",
        "0/changed": "content",
        "0/gone": "removed",
        "0/kept:other": "added",
        "0/moved": "removed",
        "0/there": "added",
        "disk.img": "content",
    }


def test_what_one_point_cannot_show_is_no_difference(store: Store, disk: Path) -> None:
    """A file system that is damaged in one of them is said, and its files were not removed."""
    first = disk_point(store, disk)
    with disk.open("r+b") as file:
        file.seek(1024)
        file.write(b"\xff" * 56 + b"\x53\xef")  # the sizes in the superblock, and its mark as it was
    second = disk_point(store, disk)
    told: list[tuple[bytes, str]] = []

    def lost(path: bytes, error: KeepstoneError) -> None:
        told.append((path, str(error)))

    assert changes(store, first, second, lost=lost) == [IMAGE]
    assert [path for path, _ in told] == [b"0"]
    assert "cannot be had" in told[0][1]
    assert changes(store, second, first, lost=lost) == [IMAGE]
    with pytest.raises(CorruptObject):
        changes(store, first, second)


def test_damage_ends_one_directory_alone(store: Store, disk: Path, damaged_at: Callable[[int], None]) -> None:
    first = disk_point(store, disk)
    edited(disk, "rm small.txt", "rm folder/told")
    second = disk_point(store, disk)
    told: list[bytes] = []
    damaged_at(int(run("debugfs", "-R", "stat folder", disk).split()[1]))

    found = changes(store, first, second, lost=lambda path, _: told.append(path))

    assert told == [b"0/folder"]
    assert found == [("0/small.txt", "removed"), IMAGE]


@pytest.fixture
def damaged_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on the directory of this inode cannot be read."""

    def damage(inode: int) -> None:
        real = Worker.items

        def items(self: Worker, volume: int, number: int) -> object:
            if number == inode:
                raise CorruptObject("a block of it cannot be read")
            return real(self, volume, number)

        monkeypatch.setattr(Worker, "items", items)

    return damage
