# SPDX-License-Identifier: Apache-2.0
"""A tree with everything that Linux has is backed up, restored, and compared in everything."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env, FileSystem
from keepstone.errors import NotFound, TargetExists, UsageError
from keepstone.store import LocalReader, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, Selection, backup_files, restore_files
from keepstone.workloads.files.page import Extra
from tests.unit.files.points import DATE, Builder, deep, detail, file, folder, make_point, new_store, root_page, symlink
from tests.unit.files.trees import ACL_FOR_1234, acl, make_tree, snapshot

pytestmark = [
    pytest.mark.store,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and capabilities can only be made by root"),
]


def backed_up(env: Env, store: Store, source: Path) -> LocalReader:
    """The point of a real directory or file."""
    with store.writer("tree", "files") as writer:
        report = backup_files(env, writer, source, Selection(), Silent())
    return store.reader(store.points.find(report.commit))


@pytest.mark.parametrize("threads", [0, 2])
def test_everything_comes_back(tmp_path: Path, threads: int) -> None:
    env = Env(threads=threads)
    make_tree(tmp_path / "source")
    reader = backed_up(env, new_store(env), tmp_path / "source")
    progress = Silent()

    report = restore_files(env, reader, tmp_path / "target", RestoreOptions(), progress)

    wanted = snapshot(tmp_path / "source")
    assert snapshot(tmp_path / "target") == wanted
    assert (report.failed, report.warnings, progress.warnings) == ([], [], [])
    assert report.files == sum(not stat.S_ISDIR(facts["mode"]) for facts in wanted.values())
    assert report.directories == sum(stat.S_ISDIR(facts["mode"]) for facts in wanted.values()) - 1
    assert len({tuple(facts["inode"]) for facts in wanted.values() if facts.get("inode")}) == 2


def test_an_existing_empty_target_becomes_the_root(env: Env, store: Store, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    os.chmod(tmp_path / "source", 0o2711)
    os.setxattr(tmp_path / "source", "user.root", b"r")
    (tmp_path / "target").mkdir()

    restore_files(env, backed_up(env, store, tmp_path / "source"), tmp_path / "target", RestoreOptions(), Silent())

    assert snapshot(tmp_path / "target") == snapshot(tmp_path / "source")


@pytest.mark.parametrize("what", ["file", "directory", "dangling"])
def test_a_target_that_holds_something_is_refused(env: Env, store: Store, tmp_path: Path, what: str) -> None:
    target = tmp_path / "target"
    if what == "file":
        target.touch()
    elif what == "directory":
        target.mkdir()
        (target / "mine").touch()
    else:
        target.symlink_to("nowhere")
    before = snapshot(tmp_path)

    with pytest.raises((TargetExists, NotFound), match="target"):
        restore_files(env, make_point(store, file(b"a")), target, RestoreOptions(), Silent())

    assert snapshot(tmp_path) == before


def test_a_target_without_a_parent(env: Env, store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="parent"):
        restore_files(env, make_point(store, file(b"a")), tmp_path / "parent" / "x", RestoreOptions(), Silent())


def test_options_for_a_restore_in_place_need_it() -> None:
    with pytest.raises(UsageError, match="in place"):
        RestoreOptions(delete=True)


def test_a_single_file(env: Env, store: Store, tmp_path: Path) -> None:
    (tmp_path / "only").write_bytes(b"one")
    os.utime(tmp_path / "only", ns=(DATE, DATE))

    restore_files(env, backed_up(env, store, tmp_path / "only"), tmp_path / "target", RestoreOptions(), Silent())

    assert (tmp_path / "target" / "only").read_bytes() == b"one"
    assert (tmp_path / "target" / "only").stat().st_mtime_ns == DATE


def test_selected_paths_and_the_way_to_them(env: Env, store: Store, tmp_path: Path) -> None:
    inner = folder(b"inner", file(b"x", b"x"), file(b"y", b"y"), mode=0o711)
    reader = make_point(store, folder(b"way", inner, file(b"z", b"z"), mode=0o750), file(b"w", b"w"), file(b"v", b"v"))

    report = restore_files(
        env, reader, tmp_path / "target", RestoreOptions(paths=(b"/way/./inner/", b"way/inner/x", b"w")), Silent()
    )

    assert [*snapshot(tmp_path / "target")] == [b"", b"w", b"way", b"way/inner", b"way/inner/x", b"way/inner/y"]
    assert stat.S_IMODE((tmp_path / "target" / "way").stat().st_mode) == 0o750
    assert (tmp_path / "target" / "way" / "inner").stat().st_mtime_ns == DATE
    assert (report.files, report.directories) == (3, 2)


def test_a_path_that_is_not_there_is_told_before_anything_is_written(env: Env, store: Store, tmp_path: Path) -> None:
    reader = make_point(store, folder(b"a", file(b"b")), file(b"c"))

    for paths in [(b"c", b"a/x"), (b"c/b",), (b"zz",), (b"a/b/c",)]:
        with pytest.raises(NotFound, match=os.fsdecode(paths[-1])):
            restore_files(env, reader, tmp_path / "target", RestoreOptions(paths=paths), Silent())
    with pytest.raises(UsageError, match="upwards"):
        restore_files(env, reader, tmp_path / "target", RestoreOptions(paths=(b"a/../c",)), Silent())

    assert not (tmp_path / "target").exists()


def test_the_name_of_a_group_is_selected_alone(env: Env, store: Store, tmp_path: Path) -> None:
    """Each name of an inode carries its content, so any of them can be restored without the others."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"shared")
    os.link(tmp_path / "source" / "a", tmp_path / "source" / "b")

    reader = backed_up(env, store, tmp_path / "source")
    restore_files(env, reader, tmp_path / "target", RestoreOptions(paths=(b"b",)), Silent())

    assert (tmp_path / "target" / "b").read_bytes() == b"shared"


def test_a_tree_deeper_than_a_path_can_say(env: Env, store: Store, tmp_path: Path) -> None:
    name = b"d" * 200
    item = file(b"bottom", b"down here")
    for _ in range(60):
        item = folder(name, item)

    report = restore_files(env, make_point(store, item), tmp_path / "target", RestoreOptions(), Silent())

    fd = os.open(tmp_path / "target", os.O_RDONLY)
    for _ in range(60):
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    bottom = os.open(b"bottom", os.O_RDONLY, dir_fd=fd)
    assert os.read(bottom, 100) == b"down here"
    assert os.fstat(fd).st_mtime_ns == DATE
    os.close(fd)
    os.close(bottom)
    assert (report.failed, report.directories) == ([], 60)


class Counted(FileSystem):
    """Knows how many descriptors were open at most when a directory was made."""

    def __init__(self) -> None:
        self.most = 0

        def mkdir(*args: Any, **rest: Any) -> None:
            os.mkdir(*args, **rest)
            self.most = max(self.most, len(os.listdir("/proc/self/fd")))

        self.mkdir = mkdir


@pytest.fixture
def a_thousand_descriptors() -> Iterator[None]:
    """What a process is commonly allowed."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@pytest.mark.usefixtures("a_thousand_descriptors")
def test_more_directories_than_descriptors(store: Store, tmp_path: Path) -> None:
    folders = [folder(b"%04d" % number, file(b"f", b"%d" % number)) for number in range(1500)]
    counted = Counted()

    reader = make_point(store, *folders, page_entries=500)
    report = restore_files(Env(fs=counted), reader, tmp_path / "target", RestoreOptions(), Silent())

    assert (report.files, report.directories, report.failed) == (1500, 1500, [])
    assert counted.most < 600
    assert (tmp_path / "target" / "1499" / "f").read_bytes() == b"1499"


@pytest.mark.usefixtures("a_thousand_descriptors")
def test_more_directories_on_the_way_down_than_descriptors(store: Store, tmp_path: Path) -> None:
    """They are closed meanwhile, and opened again by paths that are longer than one call takes."""
    item = folder(b"wide", *[folder(b"%03d" % number) for number in range(600)])
    for _ in range(100):
        item = folder(b"d" * 100, item, file(b"z", b"later"), mode=0o751)
    counted = Counted()

    reader = make_point(store, item, page_entries=500)
    report = restore_files(Env(threads=2, fs=counted), reader, tmp_path / "target", RestoreOptions(), Silent())

    assert (report.files, report.directories, report.failed) == (100, 701, [])
    assert counted.most < 600
    os.chdir(tmp_path / "target")
    for _ in range(100):
        os.chdir("d" * 100)
        assert Path("z").read_bytes() == b"later"
        assert (stat.S_IMODE(Path().stat().st_mode), Path().stat().st_mtime_ns) == (0o751, DATE)


@pytest.fixture(autouse=True)
def back_again() -> Iterator[None]:
    """Wherever a test goes."""
    here = Path.cwd()
    yield
    os.chdir(here)


@pytest.mark.usefixtures("a_thousand_descriptors")
def test_a_tree_deeper_than_there_are_descriptors(store: Store, tmp_path: Path) -> None:
    builder = Builder(store)
    reader = store.reader(builder.commit(deep(builder, 700, file(b"bottom", b"down here")), detail()))
    counted = Counted()

    report = restore_files(Env(threads=2, fs=counted), reader, tmp_path / "target", RestoreOptions(), Silent())

    assert (report.failed, report.directories) == ([], 700)
    assert counted.most < 600
    assert (tmp_path / "target" / ("d/" * 700) / "bottom").read_bytes() == b"down here"
    subprocess.run(["rm", "-rf", str(tmp_path / "target")], check=True)  # deeper than Python's own removal likes


def test_large_files_are_written_by_several_threads(store: Store, tmp_path: Path) -> None:
    """Chunks of a large file come in the order of the packs; a file is dated only after the last of them."""
    chunks = [os.urandom(300_000 + number) for number in range(300)]
    reader = make_point(store, file(b"large", *chunks))
    writers: set[int] = set()
    dated: list[int] = []

    class Watched(FileSystem):
        @staticmethod
        def pwrite(*args: object) -> int:
            writers.add(threading.get_ident())
            assert not dated
            return os.pwrite(*args)  # type: ignore[arg-type]

        @staticmethod
        def utime(where: Any, *rest: Any, **more: Any) -> None:  # type: ignore[override]
            if isinstance(where, int) and stat.S_ISREG(os.fstat(where).st_mode):
                dated.append(more["ns"][1])
            os.utime(where, *rest, **more)

    restore_files(Env(threads=2, fs=Watched()), reader, tmp_path / "target", RestoreOptions(), Silent())

    assert (tmp_path / "target" / "large").read_bytes() == b"".join(chunks)
    assert 1 < len(writers) <= 4  # as many as were asked for, and two beside
    assert dated == [DATE]


def test_chunks_across_the_ranges_of_a_sparse_file(env: Env, store: Store, tmp_path: Path) -> None:
    data = os.urandom(50_000)
    extents = [(4096, 10_000), (1_000_000, 3), (2_000_000, 39_997)]
    item = file(b"s", data[:12_345], data[12_345:], size=5_000_000, extra=Extra(extents=extents))

    restore_files(env, make_point(store, item), tmp_path / "target", RestoreOptions(), Silent())

    expected = bytearray(5_000_000)
    at = 0
    for offset, length in extents:
        expected[offset : offset + length] = data[at : at + length]
        at += length
    assert (tmp_path / "target" / "s").read_bytes() == expected


def test_what_the_target_gives_to_new_files_does_not_stay(env: Env, store: Store, tmp_path: Path) -> None:
    """A default ACL and a setgid bit of the target are inherited by what is made in it, and must not remain."""
    make_tree(tmp_path / "source")
    target = tmp_path / "target"
    target.mkdir()
    os.setxattr(target, "system.posix_acl_default", acl(tmp_path / "source" / "small", *ACL_FOR_1234))
    os.removexattr(tmp_path / "source" / "small", "system.posix_acl_access")
    os.chown(target, 0, 777)
    os.chmod(target, 0o2777)

    restore_files(env, backed_up(env, store, tmp_path / "source"), target, RestoreOptions(), Silent())

    assert snapshot(target) == snapshot(tmp_path / "source")


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_the_umask_has_no_say(env: Env, store: Store, tmp_path: Path, mask: int) -> None:
    reader = make_point(store, file(b"f", b"1", mode=0o666), folder(b"d", mode=0o777), file(b"s", mode=0o4711))
    before = os.umask(mask)
    try:
        restore_files(env, reader, tmp_path / "target", RestoreOptions(), Silent())
        assert os.umask(mask) == mask
    finally:
        os.umask(before)

    modes = {name: stat.S_IMODE(facts["mode"]) for name, facts in snapshot(tmp_path / "target").items()}
    assert modes == {b"": 0o755, b"d": 0o777, b"f": 0o666, b"s": 0o4711}


def test_owners_by_name_and_by_number(env: Env, store: Store, tmp_path: Path) -> None:
    described = detail(users={54321: "daemon", 54322: "nobody of that name"})
    reader = make_point(store, file(b"a", uid=54321), file(b"b", uid=54322), described=described)

    restore_files(env, reader, tmp_path / "by-name", RestoreOptions(), Silent())
    restore_files(env, reader, tmp_path / "by-number", RestoreOptions(numeric_ids=True), Silent())

    assert [(tmp_path / "by-name" / name).stat().st_uid for name in "ab"] == [1, 54322]
    assert [(tmp_path / "by-number" / name).stat().st_uid for name in "ab"] == [54321, 54322]


def test_what_can_be_left_out(env: Env, store: Store, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")
    options = RestoreOptions(xattrs=False, setuid=False, devices=False)

    reader = backed_up(env, store, tmp_path / "source")
    report = restore_files(env, reader, tmp_path / "target", options, Silent())

    wanted = snapshot(tmp_path / "source", but=["xattrs"])
    for name in (b"null", b"loop"):
        del wanted[name]
    wanted[b"script"]["mode"] &= ~0o6000
    found = snapshot(tmp_path / "target")
    assert not any(facts.pop("xattrs") for facts in found.values())
    assert found == wanted
    assert report.failed == []


def test_capabilities_can_be_left_out_alone(env: Env, store: Store, tmp_path: Path) -> None:
    make_tree(tmp_path / "source")

    reader = backed_up(env, store, tmp_path / "source")
    restore_files(env, reader, tmp_path / "target", RestoreOptions(capabilities=False), Silent())

    wanted = snapshot(tmp_path / "source")
    assert wanted[b"capable"]["xattrs"].pop("security.capability")
    assert snapshot(tmp_path / "target") == wanted


def test_what_was_unreadable_is_told_and_left_out(env: Env, store: Store, tmp_path: Path) -> None:
    unreadable = Extra(flags=2)
    reader = make_point(store, file(b"f", size=5, extra=unreadable), folder(b"d", extra=unreadable), file(b"g", b"g"))

    report = restore_files(env, reader, tmp_path / "target", RestoreOptions(), Silent())

    assert [*snapshot(tmp_path / "target")] == [b"", b"d", b"g"]
    assert [path for path, _ in report.warnings] == [b"d", b"f"]
    assert report.failed == []


def test_without_openat2_everything_comes_back_too(
    env: Env, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keepstone.workloads.files.restore import beneath

    monkeypatch.setattr(beneath, "_OPENAT2", 100_000)  # a number that no kernel has
    make_tree(tmp_path / "source")

    restore_files(env, backed_up(env, store, tmp_path / "source"), tmp_path / "target", RestoreOptions(), Silent())

    assert snapshot(tmp_path / "target") == snapshot(tmp_path / "source")


def test_names_are_bytes_and_pages_do_not_show(env: Env, store: Store, tmp_path: Path) -> None:
    names = sorted({b"a", b"B", b"\xff\xfe", "ü".encode(), b" ", b"-", b"a\n", b"\x1b[31m", b"...", b"~", b"a b"})
    reader = make_point(store, *[file(name, name) for name in names], page_entries=2)

    restore_files(env, reader, tmp_path / "target", RestoreOptions(), Silent())

    assert sorted(os.listdir(os.fsencode(tmp_path / "target"))) == names


def test_the_root_of_a_point_without_a_root_entry(env: Env, store: Store, tmp_path: Path) -> None:
    reader = make_point(store, symlink(b"l", b"t"), described=detail(root=b""))

    restore_files(env, reader, tmp_path / "target", RestoreOptions(), Silent())

    assert os.readlink(tmp_path / "target" / "l") == "t"


def test_the_root_has_its_own_attributes(env: Env, store: Store, tmp_path: Path) -> None:
    described = detail(root=root_page(mode=0o1750, mtime=5, extra=Extra(xattrs={b"user.r": b"1"})))

    restore_files(env, make_point(store, described=described), tmp_path / "target", RestoreOptions(), Silent())

    found = snapshot(tmp_path / "target")[b""]
    assert (found["mode"], found["mtime"], found["xattrs"]) == (stat.S_IFDIR | 0o1750, 5, {"user.r": b"1"})
