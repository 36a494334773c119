# SPDX-License-Identifier: Apache-2.0
"""The process that looks at a tree before its backup: what it tells, and what becomes of a backup to which it tells
nothing, nonsense, or what is not so any more."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keepstone.env import FileSystem
from keepstone.store import Lane
from keepstone.store import lane as lane_module
from keepstone.workloads.directories import scout
from keepstone.workloads.directories.ahead import PROGRAM, Ahead
from keepstone.workloads.directories.columns import PAGE_ENTRIES
from keepstone.workloads.directories.scout import HEADER, Told, look
from keepstone.workloads.files.backup import run
from keepstone.workloads.files.backup.folders import Folders
from keepstone.workloads.files.selection import Selection
from tests.unit.files.backed import Backups, assert_like
from tests.unit.files.trees import make_tree

pytestmark = [pytest.mark.store, pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such a tree")]


@pytest.fixture(autouse=True)
def worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a tree is."""
    monkeypatch.setattr(run, "WORTH", 1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with everything, and with folders below folders."""
    path = tmp_path / "source"
    make_tree(path)
    for number in range(30):
        (path / f"f{number % 3}" / f"{number}" / "below").mkdir(parents=True)
        (path / f"f{number % 3}" / f"{number}" / "file").write_bytes(b"%d" % number)
    (path / "f1.x").mkdir()  # in the order of bytes after `f1`, and before all in it where a slash is one of them
    return path


@pytest.fixture
def vast(source: Path) -> Path:
    """The same with a folder that is longer than a page, and one that is deep."""
    long = source / "long"
    long.mkdir()
    for number in range(PAGE_ENTRIES + 1):
        (long / f"{number:05}").touch()
    (long / "00007x" / "in it").mkdir(parents=True)
    deep = source / "deep"
    for _ in range(scout._DEEPEST + 20):
        deep /= "d"
    deep.mkdir(parents=True)
    return source


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The directories that a backup opens itself."""
    names: list[bytes] = []
    enter = Folders.enter

    def entering(self: Folders, above: Any, name: bytes, device: int, inode: int) -> Any:
        names.append(name)
        return enter(self, above, name, device, inode)

    monkeypatch.setattr(Folders, "enter", entering)
    return names


def twice(source: Path) -> Backups:
    backups = Backups()
    backups.run(source)
    return backups


def told(root: Path, device: int | None = None) -> list[Told]:
    found: list[Told] = []
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    look(FileSystem(), fd, found.append, device)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)
    return found


def test_what_was_seen_is_not_opened(vast: Path, entered: list[bytes]) -> None:
    backups = twice(vast)
    entered.clear()
    first = backups.run(vast)
    root = backups.point().record.root
    opened = set(entered)
    entered.clear()

    again = backups.run(vast)

    assert again == of_the_same_point(first, again)
    assert backups.new_bytes == 0
    assert backups.point().record.root == root
    assert opened >= {b"long", b"00007x", b"in it", b"d"}  # the long one, all in it, and what is too deep
    assert set(entered) == opened
    assert entered.count(b"d") == 21
    assert b"below" not in entered
    assert_like(backups.seen(), vast)


def of_the_same_point(report: Any, other: Any) -> Any:
    """The same report of another point."""
    return replace(report, commit=other.commit)


def test_ways_come_in_their_order(vast: Path) -> None:
    ways = [one.way for one in told(vast)]
    assert ways == sorted(ways)
    assert b"f1\x0010\x00below\0" in ways
    assert ways.index(b"f1\x0010\0") < ways.index(b"f1.x\0")
    assert b"long\0" not in ways
    assert b"deep\0" in ways
    there = {os.fsencode(path.relative_to(vast)).replace(b"/", b"\0") + b"\0" for path in vast.rglob("*")}
    assert set(ways) <= there


def test_it_stays_on_its_device(source: Path) -> None:
    device = source.stat().st_dev
    assert told(source, device) == told(source)
    assert told(source, device + 1) == []


@pytest.mark.parametrize("seed", range(12))
def test_changes_are_seen(source: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Anything may become anything. Who looks ahead sees the tree as it is now; who does not is the measure."""
    backups = twice(source)
    alone = Backups()
    alone.run(source)
    chance = random.Random(seed)
    folders = [path for path in source.rglob("*") if path.is_dir() and not path.is_symlink()]
    for path in chance.sample(folders, 6):
        if not path.exists():
            continue
        match chance.randrange(6):
            case 0:
                shutil.rmtree(path)
            case 1:
                (path / "new").mkdir()
                (path / "new" / "file").write_bytes(b"new")
            case 2:
                path.rename(path.with_name(path.name + "~"))
            case 3:
                path.rename(source.parent / f"moved-{chance.random()}")
                path.mkdir()
            case 4:
                os.chmod(path, 0o700)
            case 5:
                os.setxattr(path, "user.other", b"x")

    report = backups.run(source)

    monkeypatch.setattr(run, "WORTH", 1 << 60)
    assert of_the_same_point(alone.run(source), report) == report
    assert_like(backups.seen(), source)


def test_what_changes_behind_it_is_looked_at_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told of all before the backup comes, and of a directory that is another one by then."""
    backups = twice(source)
    seen = Ahead.seen
    moved = []

    def late(self: Ahead, way: bytes, device: int, inode: int) -> Any:
        if way == b"f1\0":
            (source / "f1" / "10" / "below").rmdir()
            (source / "f2").rename(source / "f2-before")
            (source / "f2").mkdir()
            moved.append(way)
        return seen(self, way, device, inode)

    monkeypatch.setattr(Ahead, "seen", late)
    backups.run(source)
    assert moved
    monkeypatch.setattr(Ahead, "seen", seen)
    backups.run(source)
    assert_like(backups.seen(), source)


@pytest.mark.parametrize(
    "program",
    [
        ("/nowhere/at/all",),
        ("false",),
        ("sh", "-c", "echo this is no message at all; sleep 60"),
        ("sh", "-c", f"{' '.join(PROGRAM)} $0 | head -c 2000"),
        ("sh", "-c", f"{' '.join(PROGRAM)} $0 | head -c 3"),
        ("sh", "-c", "printf '\\377\\377\\377\\377'; sleep 60"),
    ],
    ids=["none", "fails", "nonsense", "ends", "ends at once", "without end"],
)
def test_nothing_depends_on_it(source: Path, monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...]) -> None:
    backups = twice(source)
    root = backups.run(source), backups.point().record.root
    monkeypatch.setattr(Ahead.__init__, "__kwdefaults__", {"device": None, "program": program})

    report = backups.run(source)

    assert (of_the_same_point(root[0], report), root[1]) == (report, backups.point().record.root)


def test_a_selection_is_the_backups_own(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not know the patterns is of no use."""
    started: list[int] = []

    class Counted(Ahead):
        def __init__(self, root: int, lane: Lane, **more: Any) -> None:
            started.append(root)
            super().__init__(root, lane, **more)

    monkeypatch.setattr(run, "Ahead", Counted)
    backups = twice(source)
    for selection in (Selection(exclude=("f1",)), Selection(skip_caches=True)):
        backups.run(source, selection)
    assert started == []
    backups.run(source)
    assert len(started) == 1


def test_it_passes_over_what_nobody_asks_for(source: Path) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    known = {one.way: one for one in told(source)}
    looking = Ahead(fd, Lane())
    try:
        for way in (b"f0\0", b"f0\x0012\x00below\0", b"f1.x\0"):
            one = known[way]
            assert looking.seen(way, one.device, one.inode) == one.seen
        one = known[b"f2\0"]
        assert looking.seen(b"f1.y\0", one.device, one.inode) is None
        assert looking.seen(b"f2\0", one.device, one.inode + 1) is None  # another one
        assert looking.seen(b"f2\x0011\0", 0, 0) is None
        assert looking.seen(b"z\0", 0, 0) is None
        assert looking.seen(b"zz\0", 0, 0) is None
    finally:
        looking.close()
        os.close(fd)


def test_others_use_the_lane_while_it_waits(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "PATIENCE", 60.0)  # nobody goes on without it here
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    lane = Lane()
    looking = Ahead(fd, lane, program=("sleep", "60"))
    os.close(fd)
    process = looking._process
    assert process is not None
    had: list[bool] = []

    def other() -> None:
        with lane.taken():
            had.append(lane._holder == threading.get_ident())
        process.kill()

    thread = threading.Thread(target=other)
    with lane.taken():
        thread.start()
        assert looking.seen(b"a\0", 0, 0) is None
        assert lane._holder == threading.get_ident()
    thread.join()
    assert had == [True]


def test_it_ends_with_the_backup(source: Path) -> None:
    """With one that ends before it, and with one that was killed: nobody reads then."""
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    looking = Ahead(fd, Lane())
    process = looking._process
    assert process is not None
    looking.close()
    looking.close()
    assert process.returncode is not None

    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*PROGRAM, str(fd)], check=False, pass_fds=[fd], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    os.close(fd)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_it_begins_at_once() -> None:
    """It costs a backup the time of its beginning: nothing is imported that looking does not need."""
    program = "import sys, keepstone.workloads.directories.scout; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, check=True, text=True)
    found = set(loaded.stdout.split())
    assert "msgspec" in found
    assert not {name for name in found if name.startswith(("numpy", "keepstone.store", "keepstone.crypto", "ssl"))}


def test_messages_are_bounded(tmp_path: Path) -> None:
    """Also where there is nothing in any directory."""
    for number in range(3000):
        (tmp_path / f"{number:040}").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    said = subprocess.run([*PROGRAM, str(fd)], pass_fds=[fd], capture_output=True, check=True, timeout=60).stdout
    os.close(fd)
    sizes = []
    while said:
        sizes.append(int.from_bytes(said[:HEADER], "little"))
        said = said[HEADER + sizes[-1] :]
    assert len(sizes) > 1
    assert max(sizes) < 4 * scout._PIECE


def test_messages_are_of_one_form(source: Path) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    said = subprocess.run([*PROGRAM, str(fd)], pass_fds=[fd], capture_output=True, check=True, timeout=60).stdout
    os.close(fd)
    found = []
    while said:
        size = int.from_bytes(said[:HEADER], "little")
        found += msgspec.msgpack.decode(said[HEADER : HEADER + size], type=list[Told])
        said = said[HEADER + size :]
    assert found == told(source)
