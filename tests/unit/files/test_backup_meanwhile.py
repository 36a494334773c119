# SPDX-License-Identifier: Apache-2.0
"""A tree that does not hold still while it is backed up, and one that cannot be read."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import FileSystem
from keepstone.errors import SourceFailed, StorageError
from keepstone.store import SEGMENT
from keepstone.workloads import Silent
from keepstone.workloads.files import Selection, backup_files
from tests.descriptors import descriptors
from tests.unit.files.backed import Backups, World, assert_like

pytestmark = pytest.mark.store

KIB, MIB = 1 << 10, 1 << 20


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


class Meddling(FileSystem):
    """The real file calls; before or after the first one of a kind on this name something happens."""

    def __init__(
        self, call: str, name: bytes, action: Callable[[], object], *, after: bool = False, always: bool = False
    ) -> None:
        self._name = name
        self._action = action
        self._after = after
        self._always = always
        self._lock = threading.Lock()
        self._watched: set[int] = set()
        self.calls = 0
        self._call = call
        self._real = getattr(FileSystem, call)
        if call != "open":
            self.open = self._open
        setattr(self, call, self._meddle)

    def _open(self, path: Any, *given: Any, **named: Any) -> int:
        fd = FileSystem.open(path, *given, **named)
        with self._lock:
            self._watched.discard(fd)
            if path == self._name or os.readlink(f"/proc/self/fd/{fd}").encode().endswith(b"/" + self._name):
                self._watched.add(fd)
        return fd

    def _meddle(self, first: Any, *given: Any, **named: Any) -> Any:
        mine = first == self._name if self._call == "open" else first in self._watched
        if mine:
            with self._lock:
                self.calls += 1
                mine = self._always or self.calls == 1
        if mine and not self._after:
            self._action()
        try:
            return self._real(first, *given, **named)
        finally:
            if mine and self._after:
                self._action()


def raising(code: int) -> Callable[[], None]:
    def action() -> None:
        raise OSError(code, os.strerror(code))

    return action


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    (path / "folder" / "below").mkdir(parents=True)
    (path / "folder" / "file").write_bytes(b"f" * 1000)
    (path / "folder" / "below" / "deep").write_bytes(b"d")
    (path / "large").write_bytes(noise(3 * SEGMENT))
    (path / "small").write_bytes(b"s" * 5000)
    (path / "zero").touch()
    return path


def run(source: Path, fs: FileSystem, *, warnings: int = 0, threads: int = 2) -> Backups:
    backups = Backups(World(threads=threads, fs=fs))
    backups.run(source, warnings=warnings)
    return backups


@pytest.mark.parametrize("name", ["small", "zero", "large"])
def test_a_file_vanishes_before_it_is_opened(source: Path, name: str) -> None:
    backups = run(source, Meddling("open", name.encode(), (source / name).unlink), warnings=1)

    assert backups.heard.warnings[0][0] == os.fsencode(source / name)
    assert "vanished" in backups.heard.warnings[0][1]
    assert_like(backups.seen(), source)
    assert backups.point().record.files == 4
    assert backups.point().record.logical == sum(p.stat().st_size for p in source.rglob("*") if p.is_file())


def test_a_file_vanishes_between_listing_and_looking(source: Path) -> None:
    class Disappearing(FileSystem):
        """The directory still names what is gone."""

        @staticmethod
        def scandir(fd: int) -> Any:  # type: ignore[override]
            found = list(os.scandir(fd))
            (source / "small").unlink(missing_ok=True)
            return Held(found)

    backups = run(source, Disappearing(), warnings=1)

    assert "vanished" in backups.heard.warnings[0][1]
    assert_like(backups.seen(), source)


class Held:
    """Entries of a directory as `os.scandir` gives them."""

    def __init__(self, entries: list[os.DirEntry[str]]) -> None:
        self._entries = entries

    def __enter__(self) -> Any:
        return iter(self._entries)

    def __exit__(self, *_: object) -> None:
        return None


def test_a_folder_vanishes(source: Path) -> None:
    backups = run(source, Meddling("open", b"below", lambda: shutil.rmtree(source / "folder" / "below")), warnings=1)

    assert backups.heard.warnings[0][0] == os.fsencode(source / "folder" / "below")
    seen = backups.seen()
    assert b"folder/below" not in seen
    assert b"folder/file" in seen


def becomes(source: Path, name: str, what: str) -> Callable[[], None]:
    def action() -> None:
        path = source / name
        path.rename(source.parent / "gone")
        if what == "fifo":
            os.mkfifo(path)
        elif what == "link":
            path.symlink_to("/etc")
        elif what == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"another file")

    return action


@pytest.mark.parametrize("what", ["fifo", "link", "folder"])
@pytest.mark.parametrize("name", ["small", "zero", "large"])
def test_a_file_becomes_something_else(source: Path, name: str, what: str) -> None:
    backups = run(source, Meddling("open", name.encode(), becomes(source, name, what)), warnings=1)

    assert backups.heard.warnings[0][0] == os.fsencode(source / name)
    assert "became something else" in backups.heard.warnings[0][1]
    assert name.encode() not in backups.seen()
    assert len(backups.seen()) == 6


@pytest.mark.parametrize("what", ["fifo", "link", "file"])
def test_a_folder_becomes_something_else(source: Path, what: str) -> None:
    backups = run(source, Meddling("open", b"folder", becomes(source, "folder", what)), warnings=1)

    assert sorted(backups.seen()) == [b"large", b"small", b"zero"]


@pytest.mark.parametrize("name", ["small", "zero", "large"])
def test_a_file_is_replaced_by_another_one(source: Path, name: str) -> None:
    """As editors save: what is stored is the new file, in one state."""
    backups = run(source, Meddling("open", name.encode(), becomes(source, name, "file")))

    seen = backups.seen()
    assert seen[name.encode()].content == b"another file"
    changed = {path for path, one in seen.items() if one.entry.extra.flags}
    assert changed == set()
    assert seen[name.encode()].entry.inode == (source / name).stat().st_ino
    backups.env.fs = FileSystem()
    backups.run(source)
    assert_like(backups.seen(), source)


def append(path: Path, data: bytes) -> Callable[[], None]:
    def action() -> None:
        with path.open("ab") as file:
            file.write(data)

    return action


@pytest.mark.parametrize("name", ["small", "zero"])
def test_a_file_that_grew_before_it_was_read_is_read_as_it_is_then(source: Path, name: str) -> None:
    backups = run(
        source, Meddling("preadv" if name == "small" else "open", name.encode(), append(source / name, b"more"))
    )

    seen = backups.seen()
    assert seen[name.encode()].content == (source / name).read_bytes()
    assert_like(seen, source)


def test_a_small_file_that_became_a_large_one(source: Path) -> None:
    fs = Meddling("open", b"small", append(source / "small", noise(2 * SEGMENT)))

    backups = run(source, fs)

    assert_like(backups.seen(), source)
    assert backups.point().record.logical == sum(p.stat().st_size for p in source.rglob("*") if p.is_file())


def test_many_small_files_that_grow_out_of_their_batch(source: Path) -> None:
    for number in range(40):
        (source / f"n{number}").write_bytes(b"x")
    grown: set[bytes] = set()

    class Growing(FileSystem):
        @staticmethod
        def open(path: Any, *given: Any, **named: Any) -> int:
            if isinstance(path, bytes) and path.startswith(b"n") and path not in grown:
                grown.add(path)
                append(source / os.fsdecode(path), noise(MIB, len(grown)))()
            return os.open(path, *given, **named)

    backups = run(source, Growing())

    assert len(grown) == 40
    assert_like(backups.seen(), source)


def test_a_file_that_always_changes_is_taken_and_marked(source: Path) -> None:
    fs = Meddling("preadv", b"small", append(source / "small", b"+"), always=True, after=True)

    backups = run(source, fs, warnings=1)

    assert "changed while it was read" in backups.heard.warnings[0][1]
    seen = backups.seen()[b"small"]
    assert seen.entry.extra.flags == 1
    assert seen.content.startswith(b"s" * 5000)
    backups.env.fs = FileSystem()
    backups.run(source)
    assert_like(backups.seen(), source)


def test_a_file_that_is_rewritten_with_its_date_kept(source: Path) -> None:
    """Only ctime tells."""
    path = source / "small"
    status = path.stat()

    def action() -> None:
        with path.open("r+b") as file:
            file.write(b"t" * 100)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    backups = run(source, Meddling("preadv", b"small", action, after=True))

    assert backups.seen()[b"small"].content == path.read_bytes()
    assert_like(backups.seen(), source)


@pytest.mark.parametrize("size", [0, 100, 5 * MIB, SEGMENT, SEGMENT + 4 * MIB])
def test_a_large_file_becomes_shorter(source: Path, size: int) -> None:
    fs = Meddling("preadv", b"large", lambda: os.truncate(source / "large", size))

    backups = run(source, fs, warnings=1)

    seen = backups.seen()[b"large"]
    assert seen.entry.extra.flags == 1
    assert len(seen.content) == seen.entry.size >= size
    assert seen.content[:size] == noise(3 * SEGMENT)[:size]
    backups.env.fs = FileSystem()
    backups.run(source)
    assert_like(backups.seen(), source)


def test_a_large_file_grows(source: Path) -> None:
    backups = run(source, Meddling("preadv", b"large", append(source / "large", b"tail")), warnings=1)

    seen = backups.seen()[b"large"]
    assert (seen.entry.extra.flags, seen.content) == (1, noise(3 * SEGMENT))


@pytest.fixture
def sparse(source: Path) -> Path:
    """Two pages, of zeros all else."""
    with (source / "sparse").open("wb") as file:
        file.write(b"a" * 4096)
        file.seek(60 * KIB)
        file.write(b"b" * 12 * KIB)
    return source / "sparse"


def test_a_sparse_file_that_became_shorter_is_read_once_more(source: Path, sparse: Path) -> None:
    backups = run(source, Meddling("preadv", b"sparse", lambda: os.truncate(sparse, 66 * KIB)))

    assert_like(backups.seen(), source)
    assert backups.seen()[b"sparse"].entry.extra.extents == [(0, 4096), (60 * KIB, 6 * KIB)]


def test_a_sparse_file_that_becomes_shorter_and_shorter_is_marked(source: Path, sparse: Path) -> None:
    sizes = iter(range(70 * KIB, 0, -3 * KIB))
    fs = Meddling("preadv", b"sparse", lambda: os.truncate(sparse, next(sizes)), always=True)

    backups = run(source, fs, warnings=1)

    seen = backups.seen()[b"sparse"]
    assert seen.entry.extra.flags == 1
    assert seen.content.startswith(b"a" * 4096)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENODEV])
@pytest.mark.parametrize("call", ["open", "preadv"])
@pytest.mark.parametrize("name", ["small", "large"])
def test_a_file_that_cannot_be_read(source: Path, name: str, call: str, code: int) -> None:
    fs = Meddling(call, name.encode(), raising(code), always=True)

    backups = run(source, fs, warnings=1)

    assert backups.heard.warnings == [
        (os.fsencode(source / name), f"cannot be read ({os.strerror(code)}); its content is not in this point")
    ]
    seen = backups.seen()
    assert seen[name.encode()].entry.extra.flags == 2
    assert seen[name.encode()].refs == []
    assert seen[name.encode()].entry.size == (source / name).stat().st_size
    del seen[name.encode()]
    (source / name).unlink()
    assert_like(seen, source)
    assert backups.store.verify(deep=True).ok


def test_names_of_a_file_that_cannot_be_read(source: Path) -> None:
    os.link(source / "small", source / "zz")
    os.link(source / "small", source / "folder" / "aa")
    broken = {b"small", b"zz"}  # these come first

    class Broken(FileSystem):
        @staticmethod
        def open(path: Any, *given: Any, **named: Any) -> int:
            if path in broken:
                raise OSError(errno.EIO, "broken")
            return os.open(path, *given, **named)

    backups = run(source, Broken(), warnings=2)

    seen = backups.seen()
    assert {path: one.entry.extra.flags for path, one in seen.items() if one.entry.extra.link} == {
        b"folder/aa": 0, b"small": 2, b"zz": 2,
    }  # fmt: skip


def test_the_first_name_vanishes_and_the_others_do_not(source: Path) -> None:
    os.link(source / "small", source / "zz")
    os.link(source / "large", source / "large2")

    backups = run(source, Meddling("open", b"small", (source / "small").unlink), warnings=1)

    seen = backups.seen()
    assert b"small" not in seen
    assert seen[b"zz"].content == b"s" * 5000


def test_one_name_becomes_another_file_and_the_others_do_not(source: Path) -> None:
    os.link(source / "small", source / "zz")

    backups = run(source, Meddling("open", b"small", becomes(source, "small", "file")))

    seen = backups.seen()
    assert seen[b"small"].content == b"another file"
    assert seen[b"zz"].content == b"s" * 5000
    assert seen[b"zz"].entry.inode != seen[b"small"].entry.inode


def test_a_file_changes_between_its_names(source: Path) -> None:
    (source / "zz").mkdir()
    os.link(source / "large", source / "zz" / "too")

    backups = run(source, Meddling("open", b"zz", append(source / "large", b"tail")), threads=0)

    seen = backups.seen()
    assert seen[b"large"].content == noise(3 * SEGMENT)
    assert seen[b"zz/too"].content == noise(3 * SEGMENT) + b"tail"


def test_a_folder_that_cannot_be_opened_or_listed(source: Path) -> None:
    class Denying(FileSystem):
        @staticmethod
        def scandir(fd: int) -> Any:  # type: ignore[override]
            if os.readlink(f"/proc/self/fd/{fd}").endswith("/below"):
                raise OSError(errno.EIO, "I/O error")
            return os.scandir(fd)

    for fs in (Meddling("open", b"below", raising(errno.EACCES)), Denying()):
        backups = run(source, fs, warnings=1)

        seen = backups.seen()
        assert (seen[b"folder/below"].entry.extra.flags, seen[b"folder/below"].refs) == (2, [])
        assert seen[b"folder/file"].content == b"f" * 1000


def test_attributes_that_cannot_be_read(source: Path) -> None:
    class Denying(FileSystem):
        @staticmethod
        def listxattr(path: Any = None, *, follow_symlinks: bool = True) -> list[str]:
            raise OSError(errno.EACCES, "Permission denied")

    (source / "link").symlink_to("x")
    (source / "other").mkdir()

    backups = Backups(World(fs=FileSystem()))
    backups.env.fs = Denying()
    backups.run(source, warnings=10)

    assert {one.entry.extra.flags for one in backups.seen().values()} == {0}
    assert all("attributes" in message for _, message in backups.heard.warnings)


def test_a_file_system_without_attributes_is_asked_once(source: Path) -> None:
    asked: list[Any] = []

    class Without(FileSystem):
        @staticmethod
        def listxattr(path: Any = None, *, follow_symlinks: bool = True) -> list[str]:
            asked.append(path)
            raise OSError(errno.ENOTSUP, "not supported")

    backups = run(source, Without(), threads=0)

    assert len(asked) == 2  # once for the root, which is looked at on its own
    assert_like(backups.seen(), source)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("name", [b"small", b"large", b"folder"])
def test_what_concerns_the_machine_ends_the_backup(source: Path, name: bytes, code: int) -> None:
    backups = Backups(World(fs=Meddling("open", name, raising(code))))
    before = sorted(descriptors())

    with pytest.raises(SourceFailed):
        backups.run(source)

    assert backups.store.points.list() == []
    assert [info.name for info in backups.storage.list("leases/")] == []
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_failing_store_ends_the_backup_and_leaves_nothing_open(source: Path) -> None:
    backups = Backups()
    before = sorted(descriptors())

    def refuse(*_: object) -> int:
        raise StorageError("the disk is gone")

    writer = backups.writer()
    writer.put_node = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(StorageError, match="the disk is gone"):
        backup_files(backups.env, writer, source, Selection(), Silent())

    assert backups.store.points.list() == []
    assert list(backups.storage.list("leases/")) == []
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_lease_on_a_file_is_waited_for(source: Path) -> None:
    """Samba takes such leases; an open that must not wait fails while there is one."""
    program = f"""
import fcntl, os, signal, sys, time
fd = os.open({os.fspath(source / "small")!r}, os.O_RDWR)
def give_back(*_):
    time.sleep(0.2)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
signal.signal(signal.SIGIO, give_back)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"ready\n"
        with pytest.raises(BlockingIOError):
            os.open(source / "small", os.O_RDONLY | os.O_NONBLOCK)

        backups = run(source, FileSystem())

        holder.stdin.close()
    assert_like(backups.seen(), source)


def test_access_times_stay_where_that_is_allowed(source: Path) -> None:
    long_ago = 10**18
    names = ("small", "large", "folder/file")
    for name in names:
        os.utime(source / name, ns=(long_ago, long_ago + 1))

    backups = run(source, FileSystem())

    assert [os.stat(source / name).st_atime_ns for name in names] == [long_ago] * 3
    assert_like(backups.seen(), source)


def test_without_the_right_to_leave_access_times_alone(source: Path) -> None:
    class Foreign(FileSystem):
        @staticmethod
        def open(path: Any, flags: int, *given: Any, **named: Any) -> int:
            if flags & os.O_NOATIME:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return os.open(path, flags, *given, **named)

    assert_like(run(source, Foreign()).seen(), source)
