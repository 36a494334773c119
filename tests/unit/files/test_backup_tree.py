# SPDX-License-Identifier: Apache-2.0
"""A backup of every kind of thing that a Linux file system can hold."""

from __future__ import annotations

import os
import random
import resource
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import FileSystem
from keepstone.store import SEGMENT, cut_file, lane
from keepstone.workloads.files.backup import intake, links
from keepstone.workloads.files.page import decode_page, entries
from tests.descriptors import descriptors
from tests.tampered import Tampered
from tests.unit.files.backed import Backups, World, assert_like

pytestmark = pytest.mark.store

KIB, MIB = 1 << 10, 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


@pytest.fixture(params=[0, 2, 8], ids=["inline", "two threads", "eight threads"])
def backups(request: pytest.FixtureRequest) -> Backups:
    return Backups(World(threads=request.param))


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source"
    path.mkdir()
    yield path
    subprocess.run(["rm", "-rf", path], check=True)  # shutil cannot remove what is too deep


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel takes it: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ACL = acl((1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF))


def test_ordinary_files_and_directories(backups: Backups, source: Path) -> None:
    for size in (0, 1, 4095, 4096, 4097, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 3 * MIB + 5):
        (source / f"size-{size}").write_bytes(noise(size, size))
    (source / "empty").mkdir()
    below = source / "a" / "b" / "c"
    below.mkdir(parents=True)
    (below / "file").write_text("deep")
    (source / "a" / "b" / "private").touch(mode=0o600)
    (source / "sticky").mkdir(mode=0o1777)

    report = backups.run(source)

    assert_like(backups.seen(), source)
    assert report.files == 11
    assert report.directories == 6
    assert report.bytes == report.read == sum(p.stat().st_size for p in source.rglob("*") if p.is_file())
    assert report.unchanged == 0
    assert report.commit == backups.point().id
    record = backups.point().record
    assert (record.logical, record.read, record.files, record.warnings) == (report.bytes, report.read, 11, 0)
    assert record.source == os.fsencode(source)


def test_an_empty_source_is_a_point(backups: Backups, source: Path) -> None:
    report = backups.run(source)

    assert backups.seen() == {}
    assert (report.files, report.directories) == (0, 1)


def test_the_root_itself(backups: Backups, source: Path) -> None:
    source.chmod(0o2750)
    os.utime(source, ns=(1, 1_234_567_890_123_456_789))
    os.setxattr(source, "user.root", b"yes")
    (source / "file").touch()
    os.utime(source, ns=(1, 1_234_567_890_123_456_789))

    backups.run(source)

    detail = backups.detail()
    (root,) = entries(decode_page(detail.root))
    assert (root.name, root.mode, root.mtime) == (b".", stat.S_IFDIR | 0o2750, 1_234_567_890_123_456_789)
    assert root.extra.xattrs == {b"user.root": b"yes"}
    assert not detail.single
    assert detail.users[os.geteuid()]
    assert os.getegid() in detail.groups


def test_times_before_1970_and_to_the_nanosecond(backups: Backups, source: Path) -> None:
    for name, date in (("old", -1_000_000_000_000_000_001), ("new", 4_000_000_000_999_999_999)):
        (source / name).touch()
        os.utime(source / name, ns=(0, date))

    backups.run(source)

    assert_like(backups.seen(), source)


def test_names_are_bytes(backups: Backups, source: Path) -> None:
    names = [
        b"\xff\xfe",
        b"\xed\xb3\xbf",
        "é".encode(),
        "\ue000".encode(),
        "😀".encode(),
        b" ",
        b"-x",
        b"a\nb",
        b"\\",
        b"*",
    ]
    names += [b"d\x80ir", b"x" * 255]
    for name in names:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(name)
    folder = os.fsencode(source) + b"/\xc3("
    os.mkdir(folder)
    Path(os.fsdecode(folder + b"/\xa0")).touch()

    backups.run(source)

    assert_like(backups.seen(), source)


def test_symbolic_links(backups: Backups, source: Path) -> None:
    (source / "relative").symlink_to("nowhere/../x")
    (source / "absolute").symlink_to("/etc/passwd")
    os.symlink(b"\xff" * 4000, os.fsencode(source) + b"/long")
    (source / "folder").symlink_to(".")

    backups.run(source)

    assert_like(backups.seen(), source)


def test_hard_links_are_read_once(backups: Backups, source: Path) -> None:
    data = noise(300 * KIB)
    (source / "a").write_bytes(data)
    (source / "sub").mkdir()
    os.link(source / "a", source / "sub" / "b")
    os.link(source / "a", source / "z")
    (source / "large").write_bytes(noise(SEGMENT + 10))
    os.link(source / "large", source / "sub" / "large too")
    (source / "link").symlink_to("a")
    os.link(source / "link", source / "link too", follow_symlinks=False)

    report = backups.run(source)

    seen = backups.seen()
    assert_like(seen, source)
    assert seen[b"a"].refs == seen[b"z"].refs == seen[b"sub/b"].refs
    assert report.read == len(data) + SEGMENT + 10
    assert report.bytes == 3 * len(data) + 2 * (SEGMENT + 10)


def test_fifos_and_sockets(backups: Backups, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(source / "fifo", 0o640)
    monkeypatch.chdir(source)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")

        backups.run(source)

    assert_like(backups.seen(), source)


@needs_root
def test_devices(backups: Backups, source: Path) -> None:
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "disk", stat.S_IFBLK | 0o660, os.makedev(4095, 1 << 19))

    backups.run(source)

    assert_like(backups.seen(), source)
    assert backups.seen()[b"null"].entry.extra.rdev == os.makedev(1, 3)


def test_extended_attributes_and_acls(backups: Backups, source: Path) -> None:
    (source / "file").write_bytes(b"x")
    (source / "empty").touch()
    (source / "large").write_bytes(noise(SEGMENT + 1))
    (source / "folder").mkdir()
    for path in (source / "file", source / "empty", source / "large", source / "folder"):
        os.setxattr(path, "user.one", b"1" * 1000)
        os.setxattr(path, "user.\xe4", b"")
        os.setxattr(path, "system.posix_acl_access", ACL)
    os.setxattr(source / "folder", "system.posix_acl_default", ACL)

    backups.run(source)

    seen = backups.seen()
    assert_like(seen, source)
    assert seen[b"folder"].entry.extra.xattrs[b"system.posix_acl_default"] == ACL


def test_a_file_with_attributes_is_read_once(source: Path) -> None:
    """With SELinux every file has some."""
    (source / "file").write_bytes(noise(5000))
    os.setxattr(source / "file", "user.x", b"1")
    read: list[int] = []

    def reading(fd: int, buffers: list[memoryview], offset: int) -> int:
        read.append(len(buffers[0]))
        return os.preadv(fd, buffers, offset)

    Backups(World(fs=Tampered(preadv=reading))).run(source)

    assert read == [5000]


@needs_root
def test_capabilities_and_attributes_of_what_is_no_file(backups: Backups, source: Path) -> None:
    (source / "program").write_bytes(b"#!")
    os.setxattr(source / "program", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
    (source / "link").symlink_to("program")
    os.setxattr(source / "link", "trusted.link", b"1", follow_symlinks=False)
    os.mkfifo(source / "fifo")
    os.setxattr(source / "fifo", "trusted.fifo", b"2")
    os.mknod(source / "device", stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(source / "device", "security.x", b"3")
    os.chown(source / "program", 4_000_000_000, 12345)

    backups.run(source)

    seen = backups.seen()
    assert_like(seen, source)
    assert seen[b"link"].entry.extra.xattrs == {b"trusted.link": b"1"}
    assert seen[b"program"].entry.uid == 4_000_000_000
    assert 4_000_000_000 not in backups.detail().users


def sparse(path: Path, size: int, pieces: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)


def test_sparse_files_keep_their_holes(backups: Backups, source: Path) -> None:
    sparse(source / "hole", 100 * KIB, {})
    sparse(source / "small", 200 * KIB, {0: b"a" * 4096, 100 * KIB: b"b" * 10})
    sparse(source / "middle", 5 * MIB, {MIB: noise(2 * MIB), 5 * MIB - 1: b"z"})
    sparse(source / "vast", 1 << 40, {3: b"begin", 1 << 39: noise(100), (1 << 40) - 7: b"the end"})
    many = {at * 64 * KIB: noise(5000, at) for at in range(400)}
    sparse(source / "many", 400 * 64 * KIB, many)
    sparse(source / "all hole", SEGMENT + 4096, {})

    report = backups.run(source)

    seen = backups.seen()
    assert seen[b"hole"].entry.extra.extents == []
    assert seen[b"all hole"].entry.extra.extents == []
    for name in ("hole", "small", "middle", "many", "all hole"):
        assert seen[name.encode()].content == (source / name).read_bytes()
        assert seen[name.encode()].entry.extra.extents is not None
    assert len(seen[b"many"].entry.extra.extents or []) == 400
    vast = seen[b"vast"].entry
    assert vast.size == 1 << 40
    assert [offset for offset, _ in vast.extra.extents or []] == [0, 1 << 39, (1 << 40) - 4096]
    assert report.read < 8 * MIB
    assert report.bytes > 1 << 40
    assert seen[b"vast"].content.strip(b"\0").startswith(b"begin")
    assert seen[b"vast"].content.endswith(b"the end")


def test_a_file_of_very_many_extents_is_read_with_its_smallest_holes(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MOST_EXTENTS", 100)
    backups = Backups()
    pieces = {at * 12 * KIB: b"x" for at in range(120)}
    sparse(source / "file", 60 * MIB, pieces | {50 * MIB: b"y"})

    backups.run(source)

    seen = backups.seen()[b"file"]
    assert seen.content == (source / "file").read_bytes()
    assert seen.entry.extra.extents == [(0, 119 * 12 * KIB + 4096), (50 * MIB, 4096)]


@pytest.mark.parametrize("threads", [0, 2, 8])
@pytest.mark.parametrize("size", [SEGMENT + 1, 3 * SEGMENT, 40 * MIB + 12345])
def test_a_large_file_is_cut_as_if_it_were_read_at_once(source: Path, threads: int, size: int) -> None:
    data = noise(size)
    (source / "large").write_bytes(data)
    backups = Backups(World(threads=threads))

    report = backups.run(source)

    seen = backups.seen()
    assert_like(seen, source)
    assert report.read == size
    assert seen[b"large"].lengths == cut_file(memoryview(data), True)


def test_an_insertion_into_a_large_file_costs_a_few_chunks(source: Path) -> None:
    backups = Backups()
    data = noise(40 * MIB)
    (source / "large").write_bytes(data)
    backups.run(source)
    (source / "large").write_bytes(data[: 13 * MIB] + b"inserted" + data[13 * MIB :])

    report = backups.run(source)

    assert_like(backups.seen(), source)
    assert report.read == 40 * MIB + 8
    assert 0 < backups.new_bytes < 9 * MIB


def test_a_directory_of_many_pages(backups: Backups, source: Path) -> None:
    for number in range(9000):
        (source / f"{number:05}-{number * 7919 % 9001}").touch()
    for name in ("00500-", "05000", "08999-a"):
        (source / name).mkdir()
        (source / name / "inside").write_text(name)

    report = backups.run(source)

    assert_like(backups.seen(), source)
    assert (report.files, report.directories) == (9003, 4)
    sizes = page_sizes(backups)
    assert max(sizes) <= 4096
    assert 3 <= len(sizes) <= 9


def page_sizes(backups: Backups) -> list[int]:
    reader = backups.store.reader(backups.point())
    return [decode_page(reader.node(ref).body).names.count(b"\0") for ref in reader.root()]


def test_a_new_name_in_a_long_directory_costs_one_page(source: Path) -> None:
    backups = Backups()
    for number in range(20_000):
        (source / f"{number:05}").touch()
    backups.run(source)
    before = page_ids(backups)
    (source / "00000-first").touch()

    report = backups.run(source)

    after = page_ids(backups)
    assert report.unchanged == 20_000
    assert_like(backups.seen(), source)
    assert len(before) == len(after) > 5
    assert len(set(after) - set(before)) == 1


def page_ids(backups: Backups) -> list[bytes]:
    reader = backups.store.reader(backups.point())
    return [reader.chunk_id(ref) for ref in reader.root()]


def test_a_tree_deeper_than_a_path_can_say(backups: Backups, source: Path, request: pytest.FixtureRequest) -> None:
    # pytest would remove it by recursion
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", source], check=True))
    name = "n" * 60
    depth = 1000
    make_deep(source, name, depth)

    report = backups.run(source)

    assert report.directories == depth + 1
    assert report.files == 2 * depth
    seen = backups.seen()
    deepest = b"/".join([name.encode()] * depth)
    assert len(deepest) > 60_000
    assert seen[deepest + b"/~after"].content == f"{depth}".encode()
    again = backups.run(source)
    assert again.unchanged == 2 * depth


def make_deep(source: Path, name: str, depth: int) -> None:
    fd = os.open(source, os.O_RDONLY)
    for level in range(1, depth + 1):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        for file in ("before", "~after"):
            handle = os.open(file, os.O_WRONLY | os.O_CREAT, dir_fd=fd)
            os.write(handle, f"{level}".encode())
            os.close(handle)
    os.close(fd)


def test_few_descriptors_are_enough(source: Path) -> None:
    make_deep(source, "d", 200)
    for number in range(150):
        (source / f"x{number}").mkdir()
        (source / f"x{number}" / "file").write_text(str(number))
    (source / "large").write_bytes(noise(SEGMENT * 2))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (110, limit[1]))
    try:
        backups = Backups(World(threads=4))
        report = backups.run(source)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)

    assert report.files == 400 + 150 + 1
    assert_like(backups.seen(), source)


def test_no_descriptor_is_left_open(backups: Backups, source: Path) -> None:
    make_deep(source, "d", 300)
    (source / "large").write_bytes(noise(SEGMENT * 2))
    before = sorted(descriptors())

    backups.run(source)

    assert sorted(os.listdir("/proc/self/fd")) == before


def test_more_files_with_other_names_than_are_remembered(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_MOST", 50)
    for number in range(200):
        (source / f"{number:03}").write_bytes(noise(100 * KIB, number))
        os.link(source / f"{number:03}", source / f"{number:03} too")
        os.link(source / f"{number:03}", source / f"z{number:03}")
    backups = Backups(World(threads=0))

    report = backups.run(source)

    assert_like(backups.seen(), source)
    assert report.read == 400 * 100 * KIB  # the second names came in time, the third ones too late


class Places(FileSystem):
    """Counts how often another thread than before makes a call: opens and reads of small files."""

    def __init__(self) -> None:
        self.changes = 0
        last = 0

        def call() -> None:
            nonlocal last
            self.changes += last != threading.get_ident()
            last = threading.get_ident()

        def open_(*args: Any, **rest: Any) -> int:
            call()
            return os.open(*args, **rest)

        def preadv(*args: Any, **rest: Any) -> int:
            call()
            return os.preadv(*args, **rest)

        self.open = open_
        self.preadv = preadv


def test_small_files_do_not_make_threads_change_places(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change costs more than the call at which it happens; 8 here, and 1,300 without the lane."""
    monkeypatch.setattr(lane, "PATIENCE", 60)  # a slow machine is no reason to go on without it here
    count = 4000
    for number in range(40):
        folder = source / str(number)
        folder.mkdir()
        for other in range(count // 40):
            (folder / str(other)).write_bytes(noise(3000, number * 1000 + other))
    places = Places()

    Backups(World(threads=2, fs=places)).run(source)

    assert places.changes < count / 20
