# SPDX-License-Identifier: Apache-2.0
"""Forged points and hostile bystanders against a restore: nothing outside of its target may change.

Each forged point is written by the store's own writer, as by somebody who has the keys, and restored into a new target
and into one that holds traps, with openat2 and without. The tree outside, with files that the forgeries aim at, is
compared before and after in content, owner, mode, times, attributes and numbers of links.
"""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import FormatError, HostileName, KeepstoneError
from keepstone.store import LocalReader, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import Conflict, RestoreOptions, restore_files, walk, write_tar
from keepstone.workloads.files.page import Extra, stored
from keepstone.workloads.files.restore import beneath as beneath_module
from keepstone.workloads.files.restore.beneath import Beneath
from tests.unit.files.points import (
    Builder,
    Item,
    deep,
    detail,
    file,
    folder,
    make_point,
    new_store,
    node,
    only_directory,
    root_page,
    symlink,
)
from tests.unit.files.trees import CAPABILITY

pytestmark = pytest.mark.store

BAIT = b"of the outside\n"
NO_ID = 0xFFFFFFFF
EVIL = Extra(xattrs={b"user.evil": b"1"})


class World:
    """`outside/` with what is to stay as it is, `target/` beside it."""

    def __init__(self, root: Path) -> None:
        self.outside = root / "outside"
        self.target = root / "target"
        (self.outside / "inner").mkdir(parents=True)
        for name in ("bait", "f", "x", "inner/bait", "inner/f", "inner/x", "evil"):
            (self.outside / name).write_bytes(BAIT)
            (self.outside / name).chmod(0o640)
        os.link(self.outside / "bait", self.outside / "second name of bait")
        self.before = self.seen()

    def seen(self) -> dict[str, tuple[object, ...]]:
        """Everything about the outside."""
        found: dict[str, tuple[object, ...]] = {}
        for path in [self.outside, *self.outside.rglob("*")]:
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            kept = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_nlink,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
            found[str(path)] = (*kept, status.st_ino, content, tuple(os.listxattr(path)))
        return found

    def traps(self) -> None:
        """A target that leads outside wherever a forged or an honest name could step."""
        self.target.mkdir()
        for name in ("a", "d", "link", "evil", "inner"):
            (self.target / name).symlink_to(self.outside / "inner")
        (self.target / "f").symlink_to(self.outside / "f")
        (self.target / "x").symlink_to("../outside/x")
        (self.target / "real").mkdir()
        (self.target / "real" / "d").symlink_to(self.outside)
        os.link(self.outside / "evil", self.target / "hard")
        self.before = self.seen()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    subprocess.run(["rm", "-rf", str(world.target)], check=True)  # it may be deeper than Python's own removal can go


@pytest.fixture(scope="module")
def store() -> Store:
    return new_store(Env(threads=2))


Make = Callable[[Builder, World], list[int]]


def pages(*items: Item) -> Make:
    """One page with these entries as they stand."""
    return lambda builder, world: [builder.page(items)]


def apart(*items: Item) -> Make:
    """Each entry on a page of its own, in this order."""
    return lambda builder, world: [builder.page([item]) for item in items]


KINDS: dict[str, Callable[[bytes], Item]] = {
    "file": lambda name: file(name, b"evil"),
    "empty file": file,
    "large file": lambda name: file(name, b"evil", b"evil"),
    "directory": lambda name: folder(name, file(b"bait", b"evil"), file(b"evil", b"evil")),
    "symlink": lambda name: symlink(name, b"/etc/passwd"),
    "fifo": lambda name: node(name, stat.S_IFIFO),
    "device": lambda name: node(name, stat.S_IFCHR, 0o666, os.makedev(1, 3)),
    "hard link": lambda name: file(name, b"evil", inode=1, extra=Extra(link=(1, 2))),
}
NAMES = [
    b"..",
    b".",
    b"",
    b"/",
    b"/etc/cron.d/evil",
    b"../evil",
    b"../outside/evil",
    b"a/../../outside/evil",
    b"d/evil",
    b"x/",
]

REFUSED: dict[str, Make] = {
    f"{kind} named {name!r}": pages(make(name)) for kind, make in KINDS.items() for name in NAMES
}
REFUSED |= {
    "a name deep in the tree": pages(folder(b"a", folder(b"b", file(b"../../../outside/evil", b"evil")))),
    "a name behind good ones": pages(file(b"!", b"1"), file(b"#", b"2"), file(b"a/b", b"evil")),
    "a symlink, then a file through it": pages(
        symlink(b"a", b"../outside"), folder(b"a", file(b"bait", b"evil"), file(b"evil", b"evil"))
    ),
    "a directory, then a symlink of the same name": pages(folder(b"a", file(b"evil", b"evil")), symlink(b"a", b"..")),
    "a symlink, then a file of the same name": pages(symlink(b"f", b"../outside/bait"), file(b"f", b"evil")),
    "a symlink, then a file of the same name, on pages": apart(symlink(b"f", b"../outside/bait"), file(b"f", b"evil")),
    "a symlink, then a directory, on pages": apart(symlink(b"a", b"../outside"), folder(b"a", file(b"bait", b"evil"))),
    "a name that comes again much later": apart(
        symlink(b"a", b"../outside"), file(b"b", b"1"), folder(b"a", file(b"evil", b"evil"))
    ),
    "names out of order": pages(file(b"b", b"1"), file(b"a", b"evil")),
    "the same page twice": lambda builder, world: [builder.page([file(b"a", b"1")])] * 2,
    "a directory twice": pages(folder(b"a", file(b"x", b"1")), folder(b"a", file(b"y", b"evil"))),
}

DAMAGED: dict[str, Make] = {
    "a name with NUL": pages(file(b"good\0..", b"evil")),
    "names without an end": lambda builder, world: [builder.page([file(b"a", b"1")], names=b"../evil")],
    "columns too short": lambda builder, world: [builder.page([file(b"a", b"1")], modes=b"")],
    "columns too long": lambda builder, world: [builder.page([file(b"a", b"1")], uids=stored("I", [1, 2]))],
    "more chunks than there are": pages(file(b"a", b"1", count=9), file(b"b", b"2")),
    "chunks of a symlink": pages(symlink(b"a", b"x").but(count=1), file(b"b", b"1")),
    "a directory with more pages than there are": pages(folder(b"a", file(b"x"), count=7)),
    "a negative size": pages(file(b"a", b"1", size=-5)),
    "a node of another kind": lambda builder, world: [builder.node([], [], b"", "image/leaf")],
    "no page at all": lambda builder, world: [builder.node([], [], b"\xc1")],
    "a page of an empty map": lambda builder, world: [builder.node([], [], b"\x80")],
    "extras that are no extras": lambda builder, world: [
        builder.node([], [], b"\x9a" + b"\xc4\x00" * 9 + b"\x81\x00\x05")
    ],
}


def itself(builder: Builder, world: World) -> list[int]:
    """A directory whose page is its own: the place of the next node is known before it is written."""
    here = builder.page([file(b"before", b"1")]) + 1
    page = builder.page([folder(b"loop", count=1)], counts=stored("I", [0]))
    assert page == here
    return [builder.node([], [here + 1], only_directory(b"loop"))]


DAMAGED["a directory within itself"] = itself

LEFT_OUT: dict[str, Make] = {
    "a target of a link with NUL": pages(symlink(b"a", b"x\0y")),
    "a link to nothing": pages(symlink(b"a", b"")),
    "a kind of file that does not exist": pages(Item(b"a", 0o644)),
    "a whiteout of another kind": pages(Item(b"a", 0o160644)),
    "a size beyond all": pages(file(b"a", b"1", size=(1 << 63) - 1, extra=Extra(extents=[(0, 1)]))),
    "ranges before the beginning": pages(file(b"a", b"12", size=2, extra=Extra(extents=[(-9, 2)]))),
    "ranges beyond the end": pages(file(b"a", b"12", size=2, extra=Extra(extents=[(1 << 60, 2)]))),
    "a number that is no device": pages(node(b"a", stat.S_IFCHR, rdev=(1 << 64) - 1)),
    "a name too long for a file system": pages(file(b"n" * 300, b"evil")),
    "a name longer than a path": pages(folder(b"n" * 5000, file(b"x", b"evil"))),
    "a hard link to what was never made": pages(
        file(b"a", b"1", size=9, inode=5, extra=Extra(link=(1, 2))), file(b"b", b"1", inode=5, extra=Extra(link=(1, 2)))
    ),
}


def real_inode(builder: Builder, world: World) -> list[int]:
    """Hard links that claim to be a file of the outside."""
    status = (world.outside / "bait").stat()
    link = Extra(link=(status.st_dev, 3))
    return [
        builder.page(
            [file(b"y1", b"evil", inode=status.st_ino, extra=link), file(b"y2", inode=status.st_ino, extra=link)]
        )
    ]


HARMLESS: dict[str, Make] = {
    "an inode of the outside": real_inode,
    "a hard link to a symlink that leads outside": pages(
        symlink(b"a", b"../outside/bait").but(inode=4, extra=Extra(target=b"../outside/bait", link=(1, 2))),
        file(b"b", b"evil", mode=0o666, inode=4, extra=Extra(link=(1, 2))),
    ),
    "a symlink in the place of a directory": pages(
        folder(b"a", symlink(b"up", b"../../outside")), symlink(b"b", b"a/up")
    ),
    "a directory that is a symlink there": pages(
        folder(b"a", file(b"bait", b"evil"), file(b"new", b"evil")), folder(b"d", file(b"x", b"evil"), extra=EVIL)
    ),
    "a directory deeper that is a symlink there": pages(
        folder(b"real", folder(b"d", file(b"bait", b"evil"), file(b"evil", b"evil"), mode=0o777))
    ),
    "a file that is a symlink there": pages(file(b"f", b"evil", mode=0o4777), file(b"x", b"evil", uid=1, gid=1)),
    "an empty file that is a symlink there": pages(file(b"f"), file(b"x")),
    "a large file that is a symlink there": pages(file(b"f", b"evil", b"evil"), file(b"x", b"e", b"v", size=2)),
    "a file that has a second name outside": pages(file(b"hard", b"evil", mode=0o777, uid=1, gid=1, extra=EVIL)),
    "only other metadata for what has a name outside": pages(file(b"hard", BAIT, mode=0o4777, uid=1, extra=EVIL)),
    "a fifo where a symlink is": pages(node(b"f", stat.S_IFIFO, 0o777), node(b"x", stat.S_IFSOCK, 0o777)),
    "a device named like everyday things": pages(
        node(b"etc", stat.S_IFCHR, 0o666, os.makedev(1, 1)), node(b"zero", stat.S_IFBLK, 0o666, os.makedev(7, 0))
    ),
    "owners that chown would leave as they are": pages(
        file(b"a", b"evil", mode=0o6755, uid=NO_ID, gid=NO_ID), folder(b"b", uid=NO_ID, gid=NO_ID, mode=0o6777)
    ),
    "attributes with strange names": pages(
        file(
            b"a",
            b"1",
            extra=Extra(xattrs={b"": b"1", b"user.\0": b"1", b"trusted.overlay.opaque": b"y", b"x" * 300: b""}),
        )
    ),
    "attributes too long": pages(file(b"a", b"1", extra=Extra(xattrs={b"user.long": b"v" * 100_000}))),
    "an ACL that is none": pages(file(b"a", b"1", extra=Extra(xattrs={b"system.posix_acl_access": b"\xff" * 7}))),
    "capabilities on a link": pages(
        symlink(b"a", b"b").but(extra=Extra(target=b"b", xattrs={b"security.capability": CAPABILITY}))
    ),
    "times at both ends": pages(file(b"a", mtime=-(1 << 63)), file(b"b", mtime=(1 << 63) - 1), folder(b"c", mtime=-1)),
    "a directory with several names": pages(
        folder(b"a", file(b"x", b"1"), inode=7, extra=Extra(link=(1, 2))),
        folder(b"b", inode=7, extra=Extra(link=(1, 2))),
    ),
    "a number of links that is a lie": pages(
        *[file(b"l%d" % number, b"1", inode=8, extra=Extra(link=(1, 2))) for number in range(5)]
    ),
    "no links at all, it says": pages(file(b"a", b"1", inode=9, extra=Extra(link=(1, 0))), file(b"b", b"1", inode=9)),
    "the tools of the restore as names": pages(
        file(b".keepstone-0000000000000000", b"1"),
        symlink(b"proc", b"/proc/self/fd"),
        symlink(b"self", b"/proc/self/cwd"),
    ),
    "a directory below a link to /proc": pages(
        folder(b"a", symlink(b"fd", b"/proc/self/fd/3")), folder(b"fd", file(b"x", b"1"))
    ),
    "a tree of a thousand levels": lambda builder, world: deep(builder, 1000, file(b"evil", b"evil")),
}


CORPUS = {**REFUSED, **DAMAGED, **LEFT_OUT, **HARMLESS}


@pytest.fixture(params=["openat2", "walk"])
def opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How directories are opened: by openat2, or as where there is none."""
    if request.param == "walk":
        monkeypatch.setattr(beneath_module, "_OPENAT2", 100_000)
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Every descriptor is closed again, whatever happened."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    after = set(os.listdir("/proc/self/fd"))
    assert len(after) <= len(before)


def forged(store: Store, world: World, make: Make) -> LocalReader:
    """The point, ready to be read."""
    builder = Builder(store, item=str(world.target))
    return store.reader(builder.commit(make(builder, world), detail()))


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(CORPUS) >= 60


@pytest.mark.usefixtures("opening")
@pytest.mark.parametrize("mode", ["new", "in place", "keep both", "skip", "delete"])
@pytest.mark.parametrize("name", CORPUS)
def test_a_forged_point_changes_nothing_outside(store: Store, world: World, name: str, mode: str) -> None:
    reader = forged(store, world, CORPUS[name])
    options = {
        "new": RestoreOptions(),
        "in place": RestoreOptions(in_place=True),
        "keep both": RestoreOptions(in_place=True, conflict=Conflict.KEEP_BOTH),
        "skip": RestoreOptions(in_place=True, conflict=Conflict.SKIP),
        "delete": RestoreOptions(in_place=True, delete=True, compare_content=True),
    }[mode]
    if mode != "new":
        world.traps()

    try:
        failed, error = restore_files(Env(threads=2), reader, world.target, options, Silent()).failed, None
    except KeepstoneError as raised:
        failed, error = [], raised

    after = world.seen()
    if mode != "new":  # a second name of an outside file in the target may go; that changes its number of links
        forget_links(after, world.before)
    assert after == world.before
    if name in REFUSED:
        assert isinstance(error, HostileName)
        assert repr(str(world.target)) in str(error)
    elif name in DAMAGED:
        assert isinstance(error, FormatError) or failed
    else:
        assert error is None
        assert failed or name not in LEFT_OUT or mode in ("skip", "in place")


def forget_links(*seen: dict[str, tuple[object, ...]]) -> None:
    """Leave out the number of links, and the time when it changed, of the file that the traps link."""
    for found in seen:
        for path, facts in found.items():
            if path.endswith("outside/evil"):
                found[path] = (*facts[:3], 0, facts[4], 0, *facts[6:])


@pytest.mark.parametrize("name", REFUSED)
def test_nobody_gets_to_see_a_forged_name(store: Store, world: World, name: str) -> None:
    """Listing, searching, comparing and tar go through the same check."""
    reader = forged(store, world, CORPUS[name])

    with pytest.raises(HostileName):
        list(walk(reader))
    with open(os.devnull, "wb") as stream, pytest.raises(HostileName):
        write_tar(reader, (), stream, Silent())


def test_a_message_cannot_play_with_the_terminal(store: Store, world: World) -> None:
    reader = forged(store, world, pages(file(b"\x1b]0;owned\x07/x", b"")))

    with pytest.raises(HostileName) as caught:
        list(walk(reader))

    assert str(caught.value).isprintable()


def test_setuid_is_not_given_to_whom_chown_ignores(store: Store, world: World) -> None:
    """The id -1 means "leave the owner": a setuid file would stay root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    reader = forged(store, world, pages(file(b"a", b"evil", mode=0o6755, uid=NO_ID, gid=NO_ID)))

    restore_files(Env(), reader, world.target, RestoreOptions(), Silent())

    status = (world.target / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 65534, 65534)


WAYS = [
    b"..", b"../outside", b"/", b"/etc", b"a", b"link", b"link/inner", b"real/d", b"real/d/inner", b"real/../../link",
    b"real/up/outside", b"real/magic/etc", b"real/self", b"real/../link", b"f", b"real/here",
]  # fmt: skip


@pytest.mark.usefixtures("opening")
@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_out(world: World, way: bytes) -> None:
    """Neither does any lead through a link, even one that stays beneath the target."""
    world.traps()
    (world.target / "real" / "up").symlink_to("../..")
    (world.target / "real" / "magic").symlink_to("/proc/self/root")
    (world.target / "real" / "self").symlink_to("/proc/self/cwd")
    (world.target / "real" / "here").symlink_to(".")
    beneath = Beneath(Env(), world.target)
    try:
        beneath.open(b"real").close()
        with pytest.raises(OSError, match=r"."):
            beneath.open(way)
        with pytest.raises(OSError, match=r"."):
            beneath.remove(way + b"/inner", lambda path, is_directory: False, lambda _: False)
    finally:
        beneath.close()
    forget_links(before := dict(world.before), after := world.seen())
    assert after == before


# ---------------------------------------------------------------------- races

ATTACK = """
import ctypes, os, sys
target, outside, names = sys.argv[1], sys.argv[2], sys.argv[3:]
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir(f"{target}-links")
links = []
for number, name in enumerate(names):
    link = f"{target}-links/{number}"
    os.symlink(outside, link)
    links.append((*os.path.split(os.fsencode(f"{target}/{name}")), os.fsencode(link)))
swaps = 0
count = os.open(f"{target}-swaps", os.O_WRONLY | os.O_CREAT, 0o600)
os.pwrite(count, b"0", 0)
print("ready", flush=True)
while not os.path.exists(f"{target}-stop"):
    os.pwrite(count, b"%d" % swaps, 0)
    for folder, name, link in links:
        try:  # the attack itself must not go through its own links
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        if not os.path.islink(link) and not os.path.islink(b"/proc/self/fd/%d/" % fd + name):
            os.rename(link, link + b"-%d" % swaps)  # a directory of a target that is no more
            os.symlink(outside, link)
        swaps += libc.renameat2(fd, name, -100, link, 2) == 0
        os.close(fd)
"""
SWAPS = 10_000


@pytest.mark.usefixtures("opening")
@pytest.mark.parametrize("in_place", [False, True])
def test_directories_that_become_links_meanwhile(store: Store, world: World, in_place: bool) -> None:
    """A second process swaps directories of the target with links to the outside, by one call each, at least 10,000
    times while restores run one after the other.
    """
    tree = [
        folder(
            b"d",
            *[file(b"%02d" % number, b"evil", mode=0o777) for number in range(20)],
            file(b"bait", b"evil"),
            file(b"big", b"evil", b"evil"),
            folder(b"e", file(b"bait", b"evil"), file(b"f", b"evil"), symlink(b"s", b"x"), node(b"p", stat.S_IFIFO)),
            folder(b"inner", file(b"bait", b"evil"), file(b"x", b"evil")),
            file(b"h1", b"evil", inode=1, extra=Extra(link=(1, 2))),
            file(b"h2", b"evil", inode=1, extra=Extra(link=(1, 2))),
            mode=0o777,
        ),
        folder(b"inner", file(b"bait", b"evil"), file(b"f", b"evil", uid=1, gid=1, extra=EVIL)),
        *[folder(b"k%d" % number, file(b"bait", b"evil"), file(b"evil", b"evil")) for number in range(10)],
    ]
    readers = [
        make_point(store, *[item.but(mtime=number) for item in tree], described=detail(root=root_page(mtime=number)))
        for number in range(2)
    ]
    places = ["d", "d/e", "d/inner", "inner", *(f"k{number}" for number in range(10))]
    attack = subprocess.Popen(
        [sys.executable, "-c", ATTACK, str(world.target), str(world.outside), *places], stdout=subprocess.PIPE
    )
    swaps = restores = refused = 0
    deadline = time.monotonic() + 120
    with attack:
        assert attack.stdout is not None
        assert attack.stdout.readline() == b"ready\n"
        try:
            while (swaps < SWAPS or not refused) and time.monotonic() < deadline:
                target = world.target
                if not in_place and target.exists():
                    target.rename(target.with_name(f"done-{restores}"))
                options = RestoreOptions(in_place=in_place, delete=in_place)
                try:
                    report = restore_files(Env(threads=2), readers[restores % 2], target, options, Silent())
                    refused += len(report.failed)
                except FormatError:
                    raise
                except KeepstoneError:
                    refused += 1
                restores += 1
                swaps = int(Path(f"{world.target}-swaps").read_text())
        finally:
            Path(f"{world.target}-stop").touch()

    assert world.seen() == world.before
    assert swaps >= SWAPS, f"{swaps} swaps in {restores} restores"
    assert refused > 0, "the attack never hit"


def test_a_hard_link_is_made_to_the_restored_inode_only(store: Store, world: World) -> None:
    """The first name of an inode is replaced by an outside file before the second one is made."""
    link = Extra(link=(1, 2))
    reader = make_point(
        store, file(b"a", b"good", inode=1, extra=link), folder(b"b", file(b"c", b"good", inode=1, extra=link))
    )
    replaced = threading.Event()

    env = Env(threads=2)
    real_open = env.fs.open

    def open_and_attack(path: object, flags: int, *rest: object, **more: object) -> int:
        if path == b"a" and flags & os.O_PATH and not replaced.is_set():
            replaced.set()
            os.unlink(world.target / "a")
            os.link(world.outside / "bait", world.target / "a")
        return real_open(path, flags, *rest, **more)  # type: ignore[arg-type]

    env.fs.open = open_and_attack

    report = restore_files(env, reader, world.target, RestoreOptions(), Silent())

    assert replaced.is_set()
    assert [path for path, _ in report.failed] == [b"b/c"]
    assert not (world.target / "b" / "c").exists()
    assert (world.outside / "bait").read_bytes() == BAIT


def test_the_kernel_has_openat2_here() -> None:
    """Otherwise half of these tests would test the other half again."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(437, -1, None, None, 0) == -1
    assert ctypes.get_errno() != 38, "no openat2 in this kernel; the restore walks instead"
