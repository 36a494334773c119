# SPDX-License-Identifier: Apache-2.0
"""A restore into a directory that holds something: only what differs is written, and only what may be is replaced."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.store import LocalReader, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import Conflict, RestoreOptions, RestoreReport, Selection, backup_files, restore_files
from keepstone.workloads.files.page import Extra
from tests.unit.files.points import DATE, detail, file, folder, make_point, new_store, symlink
from tests.unit.files.trees import acl, make_tree, snapshot

pytestmark = [
    pytest.mark.store,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts can only be made by root"),
]


class Case:
    """A point and a target with the same in it."""

    def __init__(self, root: Path) -> None:
        self.env = Env(threads=2)
        self.store: Store = new_store(self.env)
        self.source, self.target = root / "source", root / "target"

    def back_up(self, selection: Selection | None = None) -> LocalReader:
        """The point of the source as it is."""
        with self.store.writer("tree", "files") as writer:
            backup_files(self.env, writer, self.source, selection or Selection(), Silent())
        self.reader = self.store.reader(self.store.points.find("latest"))
        return self.reader

    def restore(self, **options: object) -> RestoreReport:
        """Restore in place."""
        wanted = RestoreOptions(in_place=True, **options)  # type: ignore[arg-type]
        return restore_files(self.env, self.reader, self.target, wanted, Silent())

    def identities(self) -> dict[str, tuple[int, int]]:
        """Inode and time of the last change of everything but directories."""
        found = {}
        for path in self.target.rglob("*"):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                found[str(path.relative_to(self.target))] = (status.st_ino, status.st_ctime_ns)
        return found


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Everything that Linux has, restored already."""
    case = Case(tmp_path)
    make_tree(case.source)
    case.back_up()
    restore_files(case.env, case.reader, case.target, RestoreOptions(), Silent())
    return case


@pytest.fixture
def small(tmp_path: Path) -> Case:
    """A few files, nothing restored yet."""
    case = Case(tmp_path)
    case.reader = make_point(
        case.store,
        file(b"a", b"point"),
        folder(b"d", file(b"b", b"b"), file(b"c", b"c")),
        file(b"e", b"e"),
        symlink(b"l", b"point"),
    )
    case.target.mkdir()
    return case


@pytest.mark.parametrize("compare", [False, True])
def test_nothing_is_written_where_nothing_differs(case: Case, compare: bool) -> None:
    before = case.identities()

    report = case.restore(compare_content=compare, delete=True)

    assert case.identities() == before
    assert (report.files, report.unchanged, report.deleted, report.failed) == (0, len(before), 0, [])


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Another thing under the same name."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def copy_of_small(path: Path) -> None:
    """What looks like the file `small` in everything but its inode."""
    path.write_bytes(b"small")
    os.utime(path, ns=(-1_000_000_001, -1_000_000_001))


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "content and size": ("small", lambda path: path.write_bytes(b"other")),
    "only the time": ("empty", lambda path: os.utime(path, ns=(1, 1))),
    "the permissions": ("script", lambda path: path.chmod(0o700)),
    "the owner": ("capable", lambda path: os.chown(path, 1, 1)),
    "an attribute more": ("empty", lambda path: os.setxattr(path, "user.x", b"")),
    "an attribute less": ("attributed", lambda path: os.removexattr(path, "user.empty")),
    "the ACL": ("attributed", lambda path: os.removexattr(path, "system.posix_acl_access")),
    "a link's target": ("folder/symlink", instead(lambda path: path.symlink_to("elsewhere"))),
    "a device": ("null", instead(lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)))),
    "it is gone": ("large", lambda path: path.unlink()),
    "a fifo for a file": ("sparse", instead(os.mkfifo)),
    "a file for a socket": ("socket", instead(lambda path: path.touch())),
    "a link to a directory for a file": ("small", instead(lambda path: path.symlink_to("folder"))),
    "a directory for a file": ("small", instead(lambda path: path.mkdir())),
    "a second name is gone": ("folder/other name of small", lambda path: path.unlink()),
    "a second name is another file": ("folder/other name of small", instead(copy_of_small)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs_is_as_it_was(case: Case, name: str) -> None:
    where, change = CHANGES[name]
    before = case.identities()
    change(case.target / where)

    report = case.restore()

    assert snapshot(case.target) == snapshot(case.source)
    changed = {path for path, identity in case.identities().items() if identity != before[path]}
    group = {"small", "folder/other name of small"}
    assert changed == (group if where in group else {where})
    assert (report.files, report.failed) == (len(changed), [])


def test_a_directory_for_everything(case: Case) -> None:
    """Directories, too, get back what they had, and an existing one keeps its inode."""
    for path in [case.target, *(path for path in case.target.rglob("*") if path.is_dir() and not path.is_symlink())]:
        path.chmod(0o711)
        os.chown(path, 5, 5)
        os.setxattr(path, "user.more", b"1")
    os.removexattr(case.target / "inheriting", "system.posix_acl_default")
    acl(case.target / "folder", (0x01, 7, -1), (0x02, 7, 99), (0x04, 7, -1), (0x10, 7, -1), (0x20, 0, -1))
    (case.target / "folder" / "nothing").rmdir()
    inode = (case.target / "folder").stat().st_ino

    report = case.restore()

    assert snapshot(case.target) == snapshot(case.source)
    assert (case.target / "folder").stat().st_ino == inode
    assert (report.files, report.directories) == (0, 1)


def test_equal_size_and_time_is_believed_unless_content_is_compared(small: Case) -> None:
    small.restore()
    for name in ("a", "d/b"):
        path = small.target / name
        path.write_bytes(b"x" * path.stat().st_size)
        os.utime(path, ns=(DATE, DATE))

    assert small.restore().files == 0
    assert (small.target / "a").read_bytes() == b"xxxxx"
    assert small.restore(compare_content=True).files == 2
    assert (small.target / "a").read_bytes() == b"point"


def test_content_of_large_and_sparse_files_is_compared(case: Case) -> None:
    for name, offset in (("large", 6_999_999), ("sparse", 5_000_001), ("sparse", 600_000_000), ("hole", 100_000_000)):
        path = case.target / name
        before = path.stat()
        with path.open("r+b") as opened:
            opened.seek(offset)
            (was,) = opened.read(1)
            opened.seek(offset)
            opened.write(bytes([was ^ 0xA5]))
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))

        assert case.restore().files == 0
        assert case.restore(compare_content=True).files == 1
        assert snapshot(case.target) == snapshot(case.source)


def test_skip_leaves_what_differs(small: Case) -> None:
    (small.target / "a").write_bytes(b"mine")
    (small.target / "d").write_bytes(b"mine")
    (small.target / "l").symlink_to("mine")

    report = small.restore(conflict=Conflict.SKIP)

    assert (small.target / "a").read_bytes() == (small.target / "d").read_bytes() == b"mine"
    assert os.readlink(small.target / "l") == "mine"
    assert (small.target / "e").read_bytes() == b"e"
    assert (report.files, report.skipped, report.failed) == (1, 3, [])


def test_keep_both_restores_beside_it(small: Case) -> None:
    (small.target / "a").write_bytes(b"mine")
    (small.target / "a.restored").write_bytes(b"an earlier one")
    (small.target / "d").write_bytes(b"mine")
    (small.target / "e").mkdir()
    (small.target / "e" / "mine").touch()

    report = small.restore(conflict=Conflict.KEEP_BOTH)

    assert (small.target / "a").read_bytes() == (small.target / "d").read_bytes() == b"mine"
    assert (small.target / "a.restored-2").read_bytes() == b"point"
    assert (small.target / "d.restored" / "b").read_bytes() == b"b"
    assert (small.target / "d.restored").stat().st_mtime_ns == DATE
    assert (small.target / "e.restored").read_bytes() == b"e"
    assert (small.target / "e" / "mine").exists()
    assert report.kept == [(b"a", b"a.restored-2"), (b"d", b"d.restored"), (b"e", b"e.restored")]


def test_what_is_not_in_the_point_stays_unless_deletion_is_asked_for(small: Case) -> None:
    (small.target / "d").mkdir()
    (small.target / "d" / "more").write_bytes(b"m")
    (small.target / "more" / "and" / "more").mkdir(parents=True)
    (small.target / "more" / "and" / "file").touch()
    (small.target / "link").symlink_to("/etc")

    assert small.restore().deleted == 0
    assert (small.target / "more" / "and" / "file").exists()
    assert small.restore(delete=True).deleted == 6
    assert {*snapshot(small.target)} == {b"", b"a", b"d", b"d/b", b"d/c", b"e", b"l"}
    assert os.path.exists("/etc")


def test_deletion_keeps_to_what_is_restored(small: Case) -> None:
    for name in ("more", "d/more"):
        (small.target / name).parent.mkdir(exist_ok=True)
        (small.target / name).touch()

    small.restore(delete=True, paths=(b"d/b",))
    assert (small.target / "d" / "more").exists()
    small.restore(delete=True, paths=(b"d",))
    assert not (small.target / "d" / "more").exists()
    assert (small.target / "more").exists()


def test_directories_on_the_way_are_left_as_they_are(small: Case) -> None:
    (small.target / "d").mkdir(mode=0o711)
    os.chown(small.target / "d", 5, 5)

    small.restore(paths=(b"d/b",))

    found = snapshot(small.target)
    assert (found[b"d"]["mode"], found[b"d"]["owner"]) == (stat.S_IFDIR | 0o711, (5, 5))
    assert [*found] == [b"", b"d", b"d/b"]


def test_a_directory_with_files_is_not_replaced_by_a_file_without_leave(small: Case) -> None:
    (small.target / "a").mkdir()
    (small.target / "a" / "mine").touch()

    report = small.restore()

    assert (small.target / "a" / "mine").exists()
    assert [path for path, _ in report.failed] == [b"a"]
    assert (small.target / "e").read_bytes() == b"e"
    assert small.restore(delete=True).failed == []
    assert (small.target / "a").read_bytes() == b"point"


@pytest.mark.parametrize(
    "selection",
    [
        Selection(exclude=["*.keep", "/folder/nothing/"]),
        Selection(exclude=[":odd", "*.keep", "/folder/nothing/"]),
        Selection(exclude=["!**"], always=["*.keep"], never=["folder/nothing"]),
    ],
)
def test_what_was_excluded_from_the_point_is_not_deleted(case: Case, selection: Selection) -> None:
    case.back_up(selection)
    kept = ["x.keep", "folder/y.keep", "folder/nothing/z", "new/w.keep"]
    kept += [":odd"] if ":odd" in selection.exclude else []
    for name in [*kept, "new/gone", "gone.keeper"]:
        (case.target / name).parent.mkdir(exist_ok=True)
        (case.target / name).touch()

    report = case.restore(delete=True)

    assert [name for name in kept if not (case.target / name).exists()] == []
    assert not (case.target / "new" / "gone").exists()
    assert not (case.target / "gone.keeper").exists()
    assert (report.deleted, report.failed) == (2, [])


def test_what_is_in_a_cache_is_not_deleted_where_the_point_has_its_tag_alone(case: Case) -> None:
    tag = "Signature: 8a477f597d28d172789f06886806bc55\n"
    for name, content in (("cache/CACHEDIR.TAG", tag), ("cache/data/x", "x"), ("none/CACHEDIR.TAG", "no such tag")):
        for root in (case.source, case.target):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
    case.back_up(Selection(skip_caches=True))
    (case.target / "none" / "extra").touch()

    report = case.restore(delete=True)

    assert (case.target / "cache" / "data" / "x").exists()
    assert not (case.target / "none" / "extra").exists()
    (case.target / "cache" / "CACHEDIR.TAG").write_text(tag + "# mine")
    case.restore(delete=True, conflict=Conflict.KEEP_BOTH)
    assert (case.target / "cache" / "data" / "x").exists()
    (case.target / "cache" / "CACHEDIR.TAG.restored").unlink()
    case.back_up()
    (case.target / "cache" / "extra").touch()
    assert (report.deleted, case.restore(delete=True).deleted) == (1, 1)
    assert not (case.target / "cache" / "extra").exists()


def test_a_folder_without_anything_that_was_included_is_not_deleted(case: Case) -> None:
    case.back_up(Selection(include=["folder/**", "*.txt"]))
    for name in ("other/inner", "folder/new"):
        (case.target / name).mkdir(parents=True)
    (case.target / "other" / "gone.txt").touch()

    report = case.restore(delete=True)

    assert (case.target / "other" / "inner").is_dir()
    assert (case.target / "small").exists()
    assert not (case.target / "other" / "gone.txt").exists()
    assert not (case.target / "folder" / "new").exists()
    assert (report.deleted, report.failed) == (2, [])


@pytest.fixture
def mounted(small: Case) -> Iterator[Path]:
    """A file system mounted in the target, with a file in it."""
    for at in (small.target / "m", small.target / "more"):
        at.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(at)], check=True)
        (at / "mine").touch()
    yield small.target / "m"
    for at in (small.target / "m", small.target / "more"):
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_what_is_mounted_is_not_deleted(small: Case, mounted: Path) -> None:
    """A backup of one file system has the directory that another one is mounted on as an empty one, or not at all."""
    small.reader = make_point(small.store, folder(b"m"))

    report = small.restore(delete=True)

    assert (mounted / "mine").exists()
    assert (small.target / "more" / "mine").exists()
    assert [path for path, _ in report.warnings] == [b"more"]


def test_an_existing_inode_is_never_written_into(small: Case, tmp_path: Path) -> None:
    """It may have another name outside of the target; that one keeps its bytes, its owner and its permissions."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"point")
    os.utime(outside, ns=(DATE, DATE))
    outside.chmod(0o600)
    os.chown(outside, 7, 7)
    os.link(outside, small.target / "a")
    (small.target / "d").mkdir()
    os.link(outside, small.target / "d" / "b")
    before = outside.stat()

    small.restore()

    after = outside.stat()
    assert outside.read_bytes() == b"point"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, 7, DATE)
    assert after.st_nlink == 1
    assert (small.target / "a").stat().st_uid == 0


def test_a_link_in_the_way_is_replaced_not_followed(small: Case, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"mine")
    (small.target / "d").symlink_to(outside)
    (small.target / "a").symlink_to(outside / "b")

    report = small.restore(delete=True)

    assert snapshot(outside)[b"b"]["size"] == 4
    assert os.listdir(outside) == ["b"]
    assert not (small.target / "d").is_symlink()
    assert (small.target / "d" / "b").read_bytes() == b"b"
    assert report.failed == []


def test_an_existing_file_stays_until_its_successor_is_complete(small: Case) -> None:
    chunks = [os.urandom(300_000) for _ in range(4)]
    small.reader = make_point(small.store, file(b"big", *chunks, size=1_200_001))  # longer than its chunks: damaged
    (small.target / "big").write_bytes(b"old")

    report = small.restore()

    assert (small.target / "big").read_bytes() == b"old"
    assert os.listdir(small.target) == ["big"]
    assert [path for path, _ in report.failed] == [b"big"]


def test_an_unreadable_directory_is_not_emptied(small: Case) -> None:
    small.reader = make_point(small.store, folder(b"d", extra=Extra(flags=2)), described=detail())
    (small.target / "d").mkdir()
    (small.target / "d" / "mine").touch()

    small.restore(delete=True)

    assert (small.target / "d" / "mine").exists()
