# SPDX-License-Identifier: Apache-2.0
"""Points mounted by the kernel's FUSE and looked at by ordinary system calls, compared with what was backed up."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import AccessDenied, CorruptObject, HostileName, UsageError
from keepstone.mount import mount_point
from keepstone.mount.device import detach
from keepstone.store import LocalReader, Store
from keepstone.store.footer import DATA
from keepstone.workloads import Silent
from keepstone.workloads.files import Selection, backup_files
from keepstone.workloads.files.page import UNREADABLE, Extra
from tests.unit.files.points import Builder, Item, detail, file, folder, make_point, new_store, symlink
from tests.unit.files.test_restore_damage import Damaged
from tests.unit.files.trees import acl, make_tree, snapshot
from tests.unit.images.disk import CHUNK, Shelf, noise, sparse
from tests.unit.mount.mounting import mounted, mounts, needs_fuse

pytestmark = [pytest.mark.store, needs_fuse]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Where to mount."""
    path = tmp_path / "mounted"
    path.mkdir()
    yield path
    assert not mounts(path)


def backed_up(env: Env, store: Store, source: Path) -> LocalReader:
    """A point of this tree."""
    with store.writer("tree", "files") as writer:
        backup_files(env, writer, source, Selection(), Silent())
    return store.reader(store.points.find("latest"))


@pytest.mark.parametrize("shared", [False, True], ids=["mine", "shared"])
def test_the_whole_tree_is_as_it_was(env: Env, store: Store, tmp_path: Path, root: Path, shared: bool) -> None:
    source = tmp_path / "source"
    make_tree(source)
    with mounted(env, backed_up(env, store, source), root, shared=shared) as point:
        assert snapshot(root) == snapshot(source)
        before, after = os.stat(source), os.stat(root)
        names = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_ctime_ns")
        assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]
        for name in os.listdir(source):
            if stat.S_ISREG(os.lstat(source / name).st_mode):
                there, here = (root / name).stat(), (source / name).stat()
                assert (there.st_nlink, there.st_ctime_ns) == (here.st_nlink, here.st_ctime_ns)
        assert point.lost == {}


def test_programs_can_work_with_it(env: Env, store: Store, tmp_path: Path, root: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    with mounted(env, backed_up(env, store, source), root):
        subprocess.run(["diff", "-r", "--no-dereference", source / "folder", root / "folder"], check=True)
        subprocess.run(["cp", "-a", "--sparse=auto", root, tmp_path / "copy"], check=True)
        found = subprocess.run(["find", root], check=True, capture_output=True).stdout.replace(bytes(root), b"")
    here = subprocess.run(["find", source], check=True, capture_output=True).stdout.replace(bytes(source), b"")
    assert sorted(found.split(b"\n")) == sorted(here.split(b"\n"))
    assert snapshot(tmp_path / "copy") == snapshot(source)


def test_devices_have_their_numbers(env: Env, store: Store, root: Path) -> None:
    numbers = {b"null": os.makedev(1, 3), b"large": os.makedev(259, 70_000), b"largest": os.makedev(4095, 1_048_575)}
    items = [Item(name, stat.S_IFBLK | 0o600, extra=Extra(rdev=number)) for name, number in numbers.items()]
    with mounted(env, make_point(store, *items), root):
        assert {os.fsencode(entry.name): entry.stat().st_rdev for entry in os.scandir(root)} == numbers


def test_nothing_can_be_changed_run_or_opened_as_a_device(env: Env, store: Store, root: Path) -> None:
    null = Item(b"null", stat.S_IFCHR | 0o666, extra=Extra(rdev=os.makedev(1, 3)))
    script = file(b"script", b"#!/bin/sh\n", mode=0o4755)
    with mounted(env, make_point(store, null, script, folder(b"d")), root):
        ((_, _, kind, options, *_),) = mounts(root)
        assert kind == "fuse.keepstone"
        assert {"ro", "nodev", "nosuid", "noexec"} <= set(options.split(","))
        for change in (
            (root / "new").touch,
            lambda: (root / "script").write_bytes(b""),
            (root / "script").unlink,
            (root / "d").rmdir,
            lambda: os.chmod(root / "script", 0),
            lambda: os.setxattr(root / "script", "user.x", b"1"),
        ):
            with pytest.raises(OSError, match="Read-only"):
                change()
        with pytest.raises(PermissionError):
            os.open(root / "null", os.O_RDONLY)
        with pytest.raises(PermissionError):
            subprocess.run([root / "script"], check=False)
        full = os.statvfs(root)
        assert (full.f_bavail, full.f_namemax) == (0, 255)
        assert full.f_files == 3


@pytest.mark.parametrize("shared", [False, True], ids=["mine", "shared"])
def test_who_may_look(env: Env, store: Store, tmp_path: Path, root: Path, shared: bool) -> None:
    (tmp_path / "f").touch()
    granted = acl(tmp_path / "f", (0x01, 6, -1), (0x02, 4, 65534), (0x04, 0, -1), (0x10, 4, -1), (0x20, 0, -1))
    listed = file(b"listed", b"3", mode=0o640, extra=Extra(xattrs={b"system.posix_acl_access": granted}))
    reader = make_point(store, file(b"open", b"1"), file(b"secret", b"2", mode=0o600), listed)
    code = "import os, sys; os.setuid(65534); print(open(sys.argv[1]).read())"
    root.parent.chmod(0o755)
    for above in root.parent.parents[:3]:  # pytest's own folders, one more where several of its processes run
        if above.stat().st_mode & 0o011 != 0o011:
            above.chmod(above.stat().st_mode | 0o011)
    with mounted(env, reader, root, shared=shared):
        reads = {
            name: not subprocess.call([sys.executable, "-S", "-c", code, root / name], stderr=subprocess.DEVNULL)
            for name in ("open", "secret", "listed")
        }
    assert reads == {"open": shared, "secret": False, "listed": shared}


def test_any_bytes_in_any_order_by_many(env: Env, store: Store, tmp_path: Path, root: Path) -> None:
    contents = {f"{number}": random.Random(number).randbytes(5_000_000 + number) for number in range(4)}
    source = tmp_path / "source"
    source.mkdir()
    for name, content in contents.items():
        (source / name).write_bytes(content)

    def read(seed: int) -> None:
        chance = random.Random(seed)
        name = chance.choice(list(contents))
        fd = os.open(root / name, os.O_RDONLY | (os.O_DIRECT if seed % 2 else 0))
        try:
            for _ in range(60):
                offset, length = chance.randrange(5_100_000) & ~511, chance.choice([512, 4096, 70_000 & ~511, 1 << 20])
                buffer = mmap.mmap(-1, length)
                count = os.preadv(fd, [buffer], offset)
                assert buffer[:count] == contents[name][offset : offset + length]
        finally:
            os.close(fd)

    with mounted(env, backed_up(env, store, source), root), ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(12)))
        for name, content in contents.items():
            assert (root / name).read_bytes() == content


def test_holes_are_told_as_holes(env: Env, store: Store, tmp_path: Path, root: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    sparse(source / "f", 50_000_000_000, {4_000_000_000: b"in the middle", 40_000_000_000: b"and behind"})
    with mounted(env, backed_up(env, store, source), root):
        with (root / "f").open("rb") as there, (source / "f").open("rb") as here:
            for at in (0, 4_000_000_001, 5_000_000_000, 40_000_000_000):
                for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                    assert os.lseek(there.fileno(), at, whence) == os.lseek(here.fileno(), at, whence)
            for at in (45_000_000_000, 50_000_000_000):
                with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
                    os.lseek(there.fileno(), at, os.SEEK_DATA)
        assert (root / "f").stat().st_blocks < 1000


def test_a_hundred_thousand_entries(env: Env, store: Store, root: Path) -> None:
    count = 100_000
    reader = make_point(store, folder(b"d", *(file(b"%06d" % at) for at in range(count))), page_entries=4096)
    with mounted(env, reader, root):
        begin = time.monotonic()
        names = {entry.name: entry.stat().st_ino for entry in os.scandir(root / "d")}
        seconds = time.monotonic() - begin
        assert names.keys() == {f"{at:06}" for at in range(count)}
        assert len(set(names.values())) == count
        chance = random.Random(1)
        for at in chance.sample(range(count), 300):
            assert (root / "d" / f"{at:06}").stat().st_ino == names[f"{at:06}"]
        assert not (root / "d" / "no such file").exists()
        assert [entry.name for entry in os.scandir(root / "d")] == sorted(names)
    assert seconds < 60  # 1.5 s on a machine that does nothing else


def test_a_damaged_chunk_costs_its_file_only(env: Env, tmp_path: Path, root: Path) -> None:
    contents = {b"%02d" % number: random.Random(number).randbytes(900_000) for number in range(12)}
    items = [file(name, content) for name, content in contents.items()]
    damaged = Damaged(env, tmp_path / "store", [folder(b"d", *items)])
    damaged.flip(damaged.frames(DATA)[5])
    broken = []
    with mounted(env, damaged.reader(), root) as point:
        for name, content in contents.items():
            try:
                assert (root / "d" / os.fsdecode(name)).read_bytes() == content
            except OSError as error:
                assert error.errno == errno.EIO
                broken.append(name)
        assert len(broken) == 1
        with pytest.raises(OSError, match="Input/output"):
            (root / "d" / os.fsdecode(broken[0])).read_bytes()
        assert list(point.lost) == [b"d/" + broken[0]]
        assert isinstance(point.lost[b"d/" + broken[0]], CorruptObject)
        assert "packs/" in str(point.lost[b"d/" + broken[0]])
        assert sorted(os.listdir(root / "d")) == [os.fsdecode(name) for name in contents]


def test_a_damaged_page_costs_its_entries_and_an_error(env: Env, store: Store, root: Path) -> None:
    builder = Builder(store)
    pages = [builder.page([file(b"a")]), builder.node([], [], b"no page"), builder.page([file(b"z", b"last")])]
    with mounted(env, store.reader(builder.commit(pages, detail())), root) as point:
        names = []
        with pytest.raises(OSError, match="Input/output"), os.scandir(root) as entries:
            for entry in entries:
                names.append(entry.name)
        assert names == ["a", "z"]
        assert (root / "z").read_bytes() == b"last"
        assert list(point.lost) == [b"."]


def test_a_file_that_could_not_be_backed_up_cannot_be_read(env: Env, store: Store, root: Path) -> None:
    with mounted(env, make_point(store, file(b"f", size=5, extra=Extra(flags=UNREADABLE))), root) as point:
        assert (root / "f").stat().st_size == 5
        with pytest.raises(OSError, match="Input/output"):
            (root / "f").read_bytes()
        assert "when the point was made" in str(point.lost[b"f"])


@pytest.mark.parametrize("name", [b"..", b"a/b", b"../../etc/passwd", b"/x"])
def test_hostile_names_do_not_come_through(env: Env, store: Store, root: Path, name: bytes) -> None:
    reader = make_point(store, folder(b"d", Item(name, stat.S_IFREG | 0o644), file(b"!")), file(b"good", b"1"))
    with mounted(env, reader, root) as point:
        assert (root / "good").read_bytes() == b"1"
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(root / "d")
        with pytest.raises(OSError, match="Input/output"):
            os.stat(root / "d" / "!")
        assert sorted(os.listdir(root)) == ["d", "good"]
        assert isinstance(point.lost[b"d"], HostileName)


def test_names_and_links_that_are_odd_but_possible(env: Env, store: Store, root: Path) -> None:
    names = [b"\xff\xfe", b"line\nbreak", b" ", b"\\", b"\x1b[2J", b"x" * 255]
    items = [symlink(b"link", b"../../etc/\xff"), file(b"y" * 256, b"too long"), *(file(name, name) for name in names)]
    with mounted(env, make_point(store, *items), root) as point:
        assert sorted(os.listdir(bytes(root))) == sorted([*names, b"link"])
        for name in names:
            with open(bytes(root) + b"/" + name, "rb") as found:
                assert found.read() == name
        assert os.readlink(bytes(root) + b"/link") == b"../../etc/\xff"
        assert "too long" in str(point.lost[b"."])


def test_a_disk_is_one_file(env: Env, shelf: Shelf, tmp_path: Path, root: Path) -> None:
    size = 40 * CHUNK + 513
    disk = sparse(tmp_path / "disk", size, {0: noise(3, 1), 17 * CHUNK + 5: noise(2, 2), 40 * CHUNK: noise(1, 3)[:513]})
    reader = shelf.store.reader(shelf.point(shelf.backup(disk)))
    with mounted(env, reader, root):
        assert os.listdir(root) == ["disk.img"]
        assert (root / "disk.img").stat().st_size == size
        assert not (root / "other").exists()
        assert (root / "disk.img").read_bytes() == disk.read_bytes()
        with (root / "disk.img").open("rb") as image:
            assert os.lseek(image.fileno(), 3 * CHUNK, os.SEEK_DATA) == 17 * CHUNK
            assert os.pread(image.fileno(), 1000, size - 10) == disk.read_bytes()[-10:]


def test_a_file_system_in_a_disk_can_be_mounted(env: Env, shelf: Shelf, tmp_path: Path, root: Path) -> None:
    mkfs = shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if mkfs is None:
        pytest.skip("mkfs.ext4 is not installed; `make test` installs it")
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "hello").write_bytes(noise(2.5, 4))
    disk = sparse(tmp_path / "disk", 64 << 20, {})
    subprocess.run([mkfs, "-q", "-F", "-d", tmp_path / "content", disk], check=True)
    reader = shelf.store.reader(shelf.point(shelf.backup(disk)))
    inner = tmp_path / "inner"
    inner.mkdir()
    with mounted(env, reader, root):
        tried = subprocess.run(
            ["mount", "-o", "loop,ro,noload", root / "disk.img", inner], capture_output=True, check=False
        )
        if tried.returncode:
            pytest.skip(f"this machine has no loop devices: {tried.stderr.decode()}")
        try:
            assert (inner / "hello").read_bytes() == noise(2.5, 4)
        finally:
            subprocess.run(["umount", inner], check=True)


# ---------------------------------------------------------------------- beginning and end


def test_anybody_may_unmount(env: Env, store: Store, root: Path) -> None:
    with mounted(env, make_point(store, file(b"f", b"1")), root) as point:
        assert not point.mount.wait(0)
        subprocess.run(["umount", root], check=True)
        assert point.mount.wait(30)
        assert os.listdir(root) == []


def test_closing_does_not_wait_for_who_still_looks(env: Env, store: Store, root: Path) -> None:
    with mounted(env, make_point(store, file(b"f", b"1" * 10)), root) as point:
        fd = os.open(root / "f", os.O_RDONLY)
        try:
            point.mount.close()
            assert point.mount.wait(0)
            assert not mounts(root)
            with pytest.raises(OSError):  # noqa: PT011 - ENOTCONN or ECONNABORTED, as the kernel likes
                os.pread(fd, 10, 0)
        finally:
            with contextlib.suppress(OSError):  # the kernel tells here as well
                os.close(fd)
        point.mount.close()


def test_where_nothing_can_be_mounted(env: Env, store: Store, root: Path) -> None:
    reader = make_point(store)
    (root / "mine").touch()
    with pytest.raises(UsageError, match="empty"):
        mount_point(env, reader, root)
    with pytest.raises(UsageError, match="no directory"):
        mount_point(env, reader, root / "mine")
    with pytest.raises(UsageError, match="mkdir"):
        mount_point(env, reader, root / "none")
    (root / "mine").unlink()


CHILD = """
import os, subprocess, sys
from pathlib import Path
from keepstone.env import Env
from keepstone.mount import mount_point
from keepstone.objects import FolderStorage
from keepstone.store import Store
from tests.unit.files.points import provider
env = Env(threads=1)
store = Store.open(env, FolderStorage(env, Path(sys.argv[1])), [provider()])
reader = store.reader(store.points.find("latest"))
if sys.argv[3] != "0":
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[3]))
with mount_point(env, reader, Path(sys.argv[2])) as mount:
    print("mounted", flush=True)
    subprocess.run(["cat", sys.argv[2] + "/f"], check=True)  # not this process: its death would wait for its own answer
    sys.stdin.read()
print("unmounted", flush=True)
"""


def child(store: Path, root: Path, user: int = 0, *within: str) -> subprocess.Popen[str]:
    """A process that mounts the newest point, as this user, until its input ends; started by another program."""
    return subprocess.Popen(
        [*within, sys.executable, "-c", CHILD, store, root, str(user)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_that_dies_leaves_a_mount_that_says_so(env: Env, tmp_path: Path, root: Path) -> None:
    store = new_store(env, tmp_path / "store")
    reader = make_point(store, file(b"f", b"content"))
    process = child(tmp_path / "store", root)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "mounted\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.listdir(root)
        with pytest.raises(UsageError, match=f"umount {root}"):
            mount_point(env, reader, root)
    finally:
        detach(root)
    with mounted(env, reader, root):
        assert (root / "f").read_bytes() == b"content"


@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fusermount3 is not installed (package fuse3)")
def test_others_than_root_mount_with_the_helper(env: Env) -> None:
    """In a mount namespace of its own, because not every machine has a /dev/fuse that is for everybody."""
    with tempfile.TemporaryDirectory() as folder:
        store, place, device = (Path(folder) / name for name in ("store", "mounted", "fuse"))
        make_point(new_store(env, store), file(b"f", b"content", mode=0o600))
        place.mkdir()
        os.mknod(device, stat.S_IFCHR, os.makedev(10, 229))
        os.chmod(device, 0o666)
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, 65534, 65534)
        alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        process = child(store, place, 65534, *alone, f'mount --bind {device} /dev/fuse && exec "$@"', "sh")
        assert process.stdout is not None
        with process:
            assert process.stdout.readline() == "mounted\n", process.communicate()[1]
            ((_, _, kind, options, *_),) = mounts(place, process.pid)
            assert kind == "fuse.keepstone"
            assert {"ro", "nodev", "nosuid", "noexec", "user_id=65534"} <= set(options.split(","))
            out, err = process.communicate()
            assert (out, process.returncode) == ("contentunmounted\n", 0), err


def test_without_helper_others_than_root_are_told_what_to_install(
    env: Env, store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(root))
    with pytest.raises(AccessDenied, match="apt install fuse3"):
        mount_point(env, make_point(store), root)
