# SPDX-License-Identifier: Apache-2.0
"""A point as a tar stream, read by Python's tarfile and unpacked by GNU tar."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject, NotFound
from keepstone.objects import FolderStorage
from keepstone.store import LocalReader, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreReport, Selection, backup_files, walk, write_tar
from keepstone.workloads.files.page import Extra
from tests.unit.files.points import Builder, detail, file, folder, make_point, new_store, node, provider, symlink
from tests.unit.files.trees import ACL_FOR_1234, acl, make_tree, snapshot

pytestmark = pytest.mark.store


def written(reader: LocalReader, *paths: bytes) -> tuple[bytes, RestoreReport]:
    """The whole stream."""
    stream = io.BytesIO()
    report = write_tar(reader, paths, stream, Silent())
    return stream.getvalue(), report


def opened(data: bytes) -> tarfile.TarFile:
    """Read by Python."""
    return tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape")


@pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and capabilities can only be made by root")
@pytest.mark.parametrize("options", [("--xattrs",), ("--xattrs", "--acls")])
def test_gnu_tar_unpacks_everything(env: Env, store: Store, tmp_path: Path, options: tuple[str, ...]) -> None:
    """But sockets, of which a tar knows nothing. The folder that it is unpacked into becomes what the source is."""
    make_tree(tmp_path / "source")
    os.setxattr(tmp_path / "source", "user.root", b"r")
    os.setxattr(tmp_path / "source", "system.posix_acl_default", acl(tmp_path / "source" / "attributed", *ACL_FOR_1234))
    os.chmod(tmp_path / "source", 0o2751)
    os.chown(tmp_path / "source", 11, 12)
    os.utime(tmp_path / "source", ns=(1_700_000_000_000_000_001, 1_700_000_000_000_000_001))
    os.utime(tmp_path / "source" / "small", ns=(1_234_567_890, 1_234_567_890))  # tar warns of times before 1970
    with store.writer("tree", "files") as writer:
        backup_files(env, writer, tmp_path / "source", Selection(), Silent())
    data, report = written(store.reader(store.points.find("latest")))
    (tmp_path / "target").mkdir()

    command = ["tar", "-x", "-p", "--numeric-owner", *options, "--xattrs-include=*", "-C", str(tmp_path / "target")]
    done = subprocess.run(command, input=data, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    wanted, found = snapshot(tmp_path / "source"), snapshot(tmp_path / "target")
    del wanted[b"socket"]
    for facts in (wanted, found):
        for entry in facts.values():
            if stat.S_ISLNK(entry["mode"]):
                del entry["mtime"]  # GNU tar leaves out the nanoseconds of a link with several names
    assert found == wanted
    assert len(data) < 20_000_000
    assert [path for path, _ in report.warnings] == [b"socket"]
    assert report.failed == []


def test_python_reads_the_same(store: Store) -> None:
    long = b"n" * 180
    chance = random.Random(1)
    large = [chance.randbytes(300_000) for _ in range(3)]
    xattrs = {b"user.plain": b"value", b"user.a=b%": b"\0\n\xff", b"user.empty": b""}
    data, report = written(
        make_point(
            store,
            file(b"plain", b"content", mode=0o4755, uid=1000, gid=2000),
            file(b"attributed", b"x", extra=Extra(xattrs=xattrs)),
            file(b"large", *large, uid=3_000_000_000),
            file(b"empty", mtime=-1_500_000_000),
            folder(long, folder(long, file(b"deep", b"d"), symlink(b"link", long * 2)), mode=0o1777),
            file(b"\xff\xfe", b"bytes"),
            file("ü".encode(), b"utf-8"),
            file(b"one", b"shared", inode=3, extra=Extra(link=(1, 2))),
            file(b"two", b"shared", inode=3, extra=Extra(link=(1, 2))),
            node(b"device", stat.S_IFBLK, 0o660, os.makedev(259, 70_000)),
            node(b"fifo", stat.S_IFIFO),
            described=detail(users={1000: "somebody", 2: "x" * 40}),
        )
    )

    with opened(data) as tar:
        members = {os.fsencode(member.name): member for member in tar.getmembers()}
        contents = {name: tar.extractfile(member) for name, member in members.items() if member.isreg()}
        read = {name: opened.read() for name, opened in contents.items() if opened is not None}
        assert {os.fsencode(name) for name in tar.getnames()} == members.keys()
    deep = long + b"/" + long
    assert read == {
        b"plain": b"content",
        b"attributed": b"x",
        b"large": b"".join(large),
        b"empty": b"",
        deep + b"/deep": b"d",
        b"\xff\xfe": b"bytes",
        "ü".encode(): b"utf-8",
        b"one": b"shared",
    }
    plain = members[b"plain"]
    assert (plain.mode, plain.uid, plain.gid, plain.uname) == (0o4755, 1000, 2000, "somebody")
    assert plain.pax_headers["mtime"] == "1700000000.123456789"
    assert members[b"empty"].pax_headers["mtime"] == "-1.500000000"
    assert members[b"large"].uid == 3_000_000_000
    assert members[b"attributed"].pax_headers["SCHILY.xattr.user.plain"] == "value"
    assert os.fsencode(members[b"attributed"].pax_headers["SCHILY.xattr.user.a%3Db%25"]) == b"\0\n\xff"
    assert members[b"attributed"].pax_headers["SCHILY.xattr.user.empty"] == ""
    assert os.fsencode(members[deep + b"/link"].linkname) == long * 2
    assert members[long].isdir()
    assert members[long].mode == 0o1777
    assert (members[b"two"].islnk(), members[b"two"].linkname) == (True, "one")
    device = members[b"device"]
    assert (device.isblk(), device.devmajor, device.devminor) == (True, 259, 70_000)
    assert members[b"fifo"].isfifo()
    assert (report.files, report.directories, report.warnings) == (12, 3, [])


@pytest.mark.parametrize("seconds", [8**11 - 1, 8**11, 9_000_000_000, -1])
def test_times_that_the_header_has_no_room_for(store: Store, seconds: int) -> None:
    data, _ = written(make_point(store, file(b"f", mtime=seconds * 10**9)))

    with opened(data) as tar:
        assert tar.getmember("f").mtime == seconds
    read = subprocess.run(["tar", "-t", "-v", "--full-time"], input=data, capture_output=True, check=True)
    assert datetime.fromtimestamp(seconds, UTC).strftime("%Y") in read.stdout.decode().splitlines()[-1]


@pytest.mark.parametrize("value", [b"", b"\2\0\0\0" + b"x" * 7, b"\2\0\0\0" + b"\3" * 8, b"other"])
def test_what_is_no_acl_is_kept_as_it_is(store: Store, value: bytes) -> None:
    data, _ = written(make_point(store, file(b"f", extra=Extra(xattrs={b"system.posix_acl_access": value}))))

    with opened(data) as tar:
        headers = tar.getmember("f").pax_headers
    assert os.fsencode(headers["SCHILY.xattr.system.posix_acl_access"]) == value
    assert "SCHILY.acl.access" not in headers


def test_sparse_files_stay_small(store: Store) -> None:
    data = random.Random(2).randbytes(9_000)
    extents = [(512, 4_000), (1 << 40, 5_000)]
    size = (1 << 40) + 7_000
    stream, _ = written(
        make_point(
            store,
            file(b"s", data[:6_000], data[6_000:], size=size, extra=Extra(extents=extents)),
            folder(b"d", file(b"hole", size=1 << 30, extra=Extra(extents=[]))),
            file(b"z", b"after"),
        )
    )

    assert len(stream) < 30_000
    with opened(stream) as tar:
        sparse = tar.extractfile("s")
        hole = tar.getmember("d/hole")
        assert sparse is not None
        assert tar.getmember("s").size == size
        assert (hole.size, hole.issparse()) == (1 << 30, True)
        for offset, expected in ((512, data[:4_000]), (1 << 40, data[4_000:]), (5_000, bytes(1000)), (0, bytes(512))):
            sparse.seek(offset)
            assert sparse.read(len(expected)) == expected
        last = tar.extractfile("z")
        assert last is not None
        assert last.read() == b"after"


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
def test_the_records_count_their_own_length(store: Store, tmp_path: Path) -> None:
    """A record of pax says how long it is, with that number in it: every length near a carry is tried."""
    names = ["é".encode() + b"x" * count for count in range(70, 120)]
    stream, _ = written(make_point(store, *[file(name, b"1") for name in names], page_entries=100))

    done = subprocess.run(["tar", "-t", "--quoting-style=literal"], input=stream, capture_output=True, check=True)

    assert done.stdout.split() == [b"./", *sorted(names)]


def test_selected_paths(store: Store) -> None:
    reader = make_point(store, folder(b"a", folder(b"b", file(b"c", b"c")), file(b"d")), file(b"e"))

    with opened(written(reader, b"a/b", b"e")[0]) as tar:
        assert tar.getnames() == ["a/b", "a/b/c", "e"]
    stream = io.BytesIO()
    with pytest.raises(NotFound, match="a/x"):
        write_tar(reader, [b"e", b"a/x"], stream, Silent())
    assert stream.getvalue() == b""


def damaged(env: Env, root: Path, *sizes: int) -> tuple[LocalReader, list[bytes]]:
    """A point of files of so many chunks each, of which the chunks of the second one are damaged."""
    chance = random.Random(3)
    builder = Builder(new_store(env, root), page_entries=100)
    chunks = [[chance.randbytes(1 << 20) for _ in range(size)] for size in sizes]
    builder.commit([builder.page([file(b"%d" % index, *parts) for index, parts in enumerate(chunks)])], detail())
    store = Store.open(env, FolderStorage(env, root), [provider()])
    reader = store.reader(store.points.find("latest"))
    ref = [refs for path, _, refs in walk(reader)][1][-1]
    footer, position = reader._footer(ref)
    path = next(root.rglob(footer.pack.hex()))
    path.chmod(0o600)
    with path.open("r+b") as pack:
        pack.seek(footer.offsets[footer.frame_of(position)] + 1000)
        pack.write(b"damaged")
    return store.reader(store.points.find("latest")), [b"".join(parts) for parts in chunks]


def test_a_damaged_file_is_left_out(env: Env, tmp_path: Path) -> None:
    reader, contents = damaged(env, tmp_path, 1, 2, 3)

    stream, report = written(reader)

    with opened(stream) as tar:
        found = {member.name: tar.extractfile(member) for member in tar}
        assert {name: part.read() for name, part in found.items() if part} == {"0": contents[0], "2": contents[2]}
    assert [path for path, _ in report.failed] == [b"1"]


def test_a_large_damaged_file_breaks_the_stream_off(env: Env, tmp_path: Path) -> None:
    reader, _ = damaged(env, tmp_path, 1, 40, 1)
    stream = io.BytesIO()

    with pytest.raises(CorruptObject, match=r"1: .*breaks off"):
        write_tar(reader, (), stream, Silent())

    done = subprocess.run(["tar", "-x", "-O"], input=stream.getvalue(), capture_output=True, check=False)
    assert done.returncode != 0
    assert b"Unexpected EOF" in done.stderr


def test_a_large_file_goes_through_in_windows(env: Env, tmp_path: Path) -> None:
    chance = random.Random(4)
    chunks = [chance.randbytes(1 << 20) for _ in range(80)]
    reader = make_point(new_store(env, tmp_path / "store"), file(b"large", *chunks), file(b"z", b"z"))
    largest = 0

    class Watched(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            nonlocal largest
            largest = max(largest, len(data))
            return sink.write(data)

    with (tmp_path / "tar").open("wb") as sink:
        write_tar(reader, (), Watched(), Silent())  # type: ignore[arg-type]

    assert largest <= 4 << 20
    with tarfile.open(tmp_path / "tar") as tar:
        large = tar.extractfile("large")
        assert large is not None
        assert large.read() == b"".join(chunks)
        assert tar.getnames() == [".", "large", "z"]
