# SPDX-License-Identifier: Apache-2.0
"""The second backup of a tree: what has not changed costs nothing, what has is taken as it is now."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import FileSystem
from keepstone.store import SEGMENT
from keepstone.store.footer import DATA, METADATA
from keepstone.store.layout import pack_name
from keepstone.store.leases import Tomb, Tombs
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers
from keepstone.workloads.directories import scan
from keepstone.workloads.directories.scan import Listing, Seen
from keepstone.workloads.files.backup import run
from keepstone.workloads.files.backup.earlier import EarlierPage
from tests.tampered import Tampered
from tests.unit.files.backed import Backups, World, assert_like

pytestmark = pytest.mark.store

KIB, MIB = 1 << 10, 1 << 20


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with a bit of everything."""
    path = tmp_path / "source"
    (path / "c" / "empty").mkdir(parents=True)
    for folder in ("a", "a/deep", "b", "c", "d"):
        (path / folder).mkdir(exist_ok=True)
        for number in range(4):
            (path / folder / f"file{number}").write_bytes(noise(1000 * number, number))
    (path / "large").write_bytes(noise(SEGMENT + MIB))
    (path / "middle").write_bytes(noise(MIB, 2))
    (path / "b" / "link").symlink_to("../large")
    os.link(path / "a" / "file1", path / "d" / "other name")
    os.setxattr(path / "b", "user.x", b"1")
    os.setxattr(path / "middle", "user.x", b"2")
    return path


@pytest.fixture(params=[1 << 60, 1], ids=["alone", "ahead"])
def backups(source: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backups:
    """The tree backed up once; the next time by itself, or with a process that looks ahead."""
    monkeypatch.setattr(run, "WORTH", request.param)
    made = Backups()
    made.run(source)
    return made


FILES = 24  # entries of the tree that are no directories
FOLDERS = 7


def test_unchanged_stores_nothing(backups: Backups, source: Path) -> None:
    before = backups.packs()
    root = backups.point().record.root

    report = backups.run(source)

    assert (report.files, report.directories, report.unchanged, report.read) == (FILES, FOLDERS, FILES, 0)
    assert backups.new_bytes == 0
    assert backups.packs() == before
    assert backups.point().record.root == root
    assert_like(backups.seen(), source)


def test_unchanged_opens_no_file(source: Path) -> None:
    opened: list[bytes] = []

    def opening(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None and not flags & os.O_DIRECTORY:
            opened.append(path)
        return os.open(path, flags, mode, dir_fd=dir_fd)

    backups = Backups(World(fs=Tampered(open=opening)))
    backups.run(source)
    assert len(opened) == FILES - 2  # neither the symbolic link nor the second name
    opened.clear()

    backups.run(source)

    assert opened == []


def test_folders_are_entered_in_order_of_names(source: Path) -> None:
    """Their pages lie in that order, and are read again in it."""
    entered: list[bytes] = []

    def opening(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None and flags & os.O_DIRECTORY:
            entered.append(path)
        return os.open(path, flags, mode, dir_fd=dir_fd)

    backups = Backups(World(fs=Tampered(open=opening)))
    for change in (None, None, touch):
        if change is not None:
            change(source)
        entered.clear()
        backups.run(source)
        assert entered == [b"a", b"deep", b"b", b"c", b"empty", b"d"]


def test_an_unchanged_tree_needs_no_large_library(source: Path) -> None:
    """numpy and pathspec cost more than looking at ten thousand files. Another process made the first point: here
    nothing was imported for it."""
    program = f"""
import os, pickle, sys
from pathlib import Path
from tests.unit.files.backed import SECOND, Backups
backups = Backups()
source = Path({os.fspath(source)!r})
reading, writing = os.pipe()
if os.fork() == 0:
    backups.run(source)
    with open(writing, "wb") as pipe:
        pickle.dump(backups.storage.objects, pipe)
    os._exit(0)
os.close(writing)
with open(reading, "rb") as pipe:
    backups.storage.objects.update(pickle.load(pipe))
backups.env.ahead += 3600 * SECOND
assert backups.run(source).unchanged == {FILES}
assert not any(name.startswith(("numpy", "pathspec")) for name in sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def rename_file(source: Path) -> None:
    (source / "b" / "file2").rename(source / "b" / "renamed")


def rename_folder(source: Path) -> None:
    (source / "a").rename(source / "z")


def touch(source: Path) -> None:
    (source / "a" / "deep" / "file3").touch()


def grow(source: Path) -> None:
    with (source / "d" / "file1").open("ab") as file:
        file.write(b"more")


def grow_large(source: Path) -> None:
    with (source / "large").open("ab") as file:
        file.write(noise(MIB, 9))


def shrink(source: Path) -> None:
    os.truncate(source / "middle", 100 * KIB)


def shrink_large(source: Path) -> None:
    os.truncate(source / "large", 10)


def empty(source: Path) -> None:
    os.truncate(source / "b" / "file3", 0)


def replace(source: Path) -> None:
    (source / "new").write_bytes(b"replaced")
    (source / "new").rename(source / "middle")


def replace_keeping_size_and_time(source: Path) -> None:
    path = source / "middle"
    status = path.stat()
    path.write_bytes(noise(MIB, 77))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def file_to_folder(source: Path) -> None:
    (source / "middle").unlink()
    (source / "middle").mkdir()
    (source / "middle" / "inside").write_text("x")


def folder_to_file(source: Path) -> None:
    shutil.rmtree(source / "a")
    (source / "a").write_text("a file now")


def file_to_link(source: Path) -> None:
    (source / "large").unlink()
    (source / "large").symlink_to("middle")


def delete(source: Path) -> None:
    (source / "c" / "file1").unlink()
    shutil.rmtree(source / "d")


def add(source: Path) -> None:
    (source / "0").write_text("first")
    (source / "c" / "empty" / "zz").mkdir()
    (source / "c" / "empty" / "zz" / "new").write_bytes(noise(5000))


def chmod(source: Path) -> None:
    (source / "b" / "file1").chmod(0o600)
    (source / "c").chmod(0o700)


def set_attribute(source: Path) -> None:
    os.setxattr(source / "b" / "file1", "user.new", b"1")
    os.setxattr(source / "a" / "deep", "user.new", b"2")


def remove_attribute(source: Path) -> None:
    os.removexattr(source / "middle", "user.x")
    os.removexattr(source / "b", "user.x")


def link(source: Path) -> None:
    os.link(source / "middle", source / "c" / "linked")


def unlink(source: Path) -> None:
    (source / "a" / "file1").unlink()


def retarget(source: Path) -> None:
    (source / "b" / "link").unlink()
    (source / "b" / "link").symlink_to("nowhere!")


def punch(source: Path) -> None:
    with (source / "large").open("r+b") as file:
        file.truncate(0)
        file.truncate(2 * SEGMENT)
        file.seek(SEGMENT)
        file.write(b"island")


CHANGES = [
    rename_file, rename_folder, touch, grow, grow_large, shrink, shrink_large, empty, replace,
    replace_keeping_size_and_time, file_to_folder, folder_to_file, file_to_link, delete, add, chmod, set_attribute,
    remove_attribute, link, unlink, retarget, punch,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen(backups: Backups, source: Path, change: Callable[[Path], None]) -> None:
    change(source)

    report = backups.run(source)

    assert_like(backups.seen(), source)
    assert report.unchanged < FILES or change in (add, file_to_folder, chmod)
    assert report.unchanged > 8
    again = backups.run(source)
    assert again.unchanged == again.files
    assert again.read == 0


def test_what_only_got_another_date_is_read_and_not_stored(backups: Backups, source: Path) -> None:
    touch(source)

    report = backups.run(source)

    assert (report.read, backups.new_bytes) == (3000, 0)


def test_pages_of_what_did_not_change_are_shared(backups: Backups, source: Path) -> None:
    before = backups.seen()
    touch(source)

    backups.run(source)

    after = backups.seen()
    changed = {path for path, seen in after.items() if seen.ids != before[path].ids}
    assert changed == {b"a", b"a/deep"}


def test_a_file_as_young_as_the_last_backup_is_not_trusted(source: Path) -> None:
    """It may have changed once more within the same tick of the clock."""
    backups = Backups()
    now = backups.env.wall_time() - os.stat(source).st_ctime_ns
    assert now < 2 * 10**9, "this machine is too slow for this test"
    backups.env.ahead = -3600 * 10**9
    backups.run(source)
    root = backups.point().record.root
    packs = backups.packs()

    report = backups.run(source)

    assert (report.read, report.unchanged) == (report.bytes - 1000, 0)  # the second name of a file is not read
    assert backups.point().record.root == root
    assert backups.packs() == packs
    assert backups.run(source).unchanged == FILES


def test_a_young_file_that_changed_without_a_trace(source: Path) -> None:
    """What the rule about young files is for: dates, size and inode are the same and the content is not."""

    def misread(fd: int, buffers: list[memoryview], offset: int) -> int:
        count = os.preadv(fd, buffers, offset)
        if count == MIB:
            buffers[0][:7] = b"earlier"
        return count

    backups = Backups(World(fs=Tampered(preadv=misread)))
    backups.env.ahead = -3600 * 10**9
    backups.run(source)
    assert backups.seen()[b"middle"].content != (source / "middle").read_bytes()
    backups.env.fs = FileSystem()

    backups.run(source)

    assert_like(backups.seen(), source)


def test_what_makes_a_page_another_one(backups: Backups, source: Path) -> None:
    with backups.writer() as writer:
        (ref,) = writer.parent_root()
        page = EarlierPage(writer, ref)
        names = sorted(os.listdir(source))
        stats = [os.stat(source / name) for name in names]

        def listing(names: list[str], stats: list[os.stat_result]) -> Seen:
            return Listing(b"".join(os.fsencode(name) + b"\0" for name in names), stats).seen

        assert page.is_like(listing(names, stats))
        assert not page.is_like(listing([*names[:-1], "other"], stats))
        assert not page.is_like(listing(names[:-1], stats[:-1]))
        for field in ("st_mode", "st_ino", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns"):
            assert not page.is_like(listing(names, [*stats[:-1], changed(stats[-1], field)]))


def changed(status: os.stat_result, field: str) -> os.stat_result:
    """The same with another value of one field."""
    reduced: Any = status.__reduce__()
    fields, more = list(reduced[1][0]), dict(reduced[1][1])
    order = ["st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size"]
    if field in order:
        fields[order.index(field)] += 1
    else:
        more[field] += 1
    return os.stat_result(fields, more)


@pytest.mark.parametrize("loss", ["damaged", "missing"])
def test_a_parent_that_cannot_be_read_is_as_none(backups: Backups, source: Path, loss: str) -> None:
    touch(source)
    backups.run(source)
    name = pack_name(backups.point().record.packs[:32])
    data = bytearray(backups.storage.read(name))
    backups.storage.delete(name)
    if loss == "damaged":
        data[200] ^= 1
        backups.storage.put(name, bytes(data))

    report = backups.run(source, warnings=1)

    assert b"source" in backups.heard.warnings[0][0]
    assert_like(backups.seen(), source)
    assert (report.unchanged, backups.new_bytes) == (0, 0)
    assert backups.run(source).unchanged == FILES


@pytest.mark.parametrize("condemned", [{METADATA}, {DATA}, {METADATA, DATA}], ids=["pages", "chunks", "both"])
def test_what_is_about_to_be_reclaimed_is_made_anew(backups: Backups, source: Path, condemned: set[int]) -> None:
    context = backups.store.context
    packs = Packs(context, PackNumbers())
    doomed = [pack for pack, _ in packs.listing() if packs.footer(pack).kind in condemned]
    tomb = Tombs(context).publish(Tomb(packs=doomed, moves=[]))
    old = backups.point()

    report = backups.run(source)

    Tombs(context).remove(tomb)
    backups.store.points.forget(old)
    backups.store.points.purge(backups.store.points.find(old.id, deleted=True), now=True)
    for pack in doomed:
        backups.storage.delete(pack_name(pack))
    assert_like(backups.seen(), source)
    assert (report.read > 0, backups.new_bytes > 0) == (DATA in condemned, DATA in condemned)
    assert report.unchanged == (6 if DATA in condemned else FILES)  # what has no chunks
    assert backups.run(source).unchanged == FILES


def test_after_reclaim_and_compaction(backups: Backups, source: Path) -> None:
    for number in range(6):
        (source / "c" / f"more{number}").write_bytes(noise(200 * KIB, 100 + number))
        backups.run(source)
    delete(source)
    backups.run(source)
    for point in backups.store.points.list()[:-1]:
        backups.store.points.forget(point)
        backups.store.points.purge(backups.store.points.find(point.id, deleted=True), now=True)
    backups.store.reclaim(compact_below=1.0)

    report = backups.run(source)

    assert report.unchanged == report.files
    assert_like(backups.seen(), source)
    backups.store.reclaim(compact_below=1.0)
    assert_like(backups.seen(), source)
    verified = backups.store.verify(deep=True)
    assert verified.ok, verified


def test_a_file_that_was_unreadable_is_tried_again(source: Path) -> None:
    broken = True

    def opening(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if broken and path in (b"middle", b"deep"):
            raise PermissionError(13, "Permission denied")
        return os.open(path, flags, mode, dir_fd=dir_fd)

    backups = Backups(World(fs=Tampered(open=opening)))
    backups.run(source, warnings=2)
    seen = backups.seen()
    assert seen[b"middle"].entry.extra.flags == seen[b"a/deep"].entry.extra.flags == 2
    assert (seen[b"middle"].refs, seen[b"a/deep"].refs) == ([], [])
    backups.run(source, warnings=2)
    assert backups.seen()[b"middle"].entry.extra.flags == 2
    broken = False

    report = backups.run(source)

    assert report.read == MIB + 6000
    assert_like(backups.seen(), source)


def test_another_parent_altogether(backups: Backups, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(source, other, symlinks=True)
    (other / "middle").unlink()
    (other / "middle").mkdir()

    report = backups.run(other)

    assert_like(backups.seen(), other)
    assert report.unchanged == 0
    backups.run(source)
    assert_like(backups.seen(), source)


def test_a_device_that_got_another_number(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other names of a file are found by device and inode, and device numbers may change with a reboot."""
    backups = Backups()
    backups.run(source)
    device = os.stat(source).st_dev
    first = scan.Listing.__init__

    def moved(self: scan.Listing, names: bytes, stats: list[os.stat_result]) -> None:
        first(self, names, [changed(status, "st_dev") for status in stats])

    monkeypatch.setattr(scan.Listing, "__init__", moved)

    report = backups.run(source)

    seen = backups.seen()
    assert (report.unchanged, report.read) == (FILES, 0)
    assert seen[b"a/file1"].entry.extra.link == seen[b"d/other name"].entry.extra.link == (device + 1, 2)
