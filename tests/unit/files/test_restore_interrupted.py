# SPDX-License-Identifier: Apache-2.0
"""A restore that is interrupted, after every call of the file system and every piece of work that it hands out: each
file is complete or absent, and no descriptor is closed that somebody uses.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env, FileSystem, Pool
from keepstone.objects import FolderStorage
from keepstone.store import LocalReader, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from keepstone.workloads.files.page import Extra
from tests.unit.files.points import Builder, Item, detail, file, folder, new_store, provider, sorted_items, symlink

pytestmark = pytest.mark.store

CHANCE = random.Random(1)
LARGE = [CHANCE.randbytes(70_000) for _ in range(4)]
SMALL = {b"small %d" % number: CHANCE.randbytes(30_000) for number in range(6)}
ITEMS: list[Item] = [
    file(b"empty"),
    file(b"large", *LARGE),
    file(b"sparse", LARGE[0], size=400_000, extra=Extra(extents=[(300_000, 70_000)])),
    file(b"hole", size=500_000, extra=Extra(extents=[])),
    folder(b"d", *[file(name, content) for name, content in SMALL.items()], file(b"nothing"), symlink(b"l", b"x")),
    file(b"one", b"shared", inode=3, extra=Extra(link=(1, 2))),
    file(b"two", b"shared", inode=3, extra=Extra(link=(1, 2))),
]
WANTED = {
    b"empty": b"",
    b"large": b"".join(LARGE),
    b"sparse": bytes(300_000) + LARGE[0] + bytes(30_000),
    b"hole": bytes(500_000),
    b"nothing": b"",
    b"one": b"shared",
    b"two": b"shared",
    **SMALL,
}


def interrupt() -> None:
    """What Ctrl-C does: the main thread is interrupted, whoever calls this."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Watched(FileSystem):
    """Calls `after` after every call; notes descriptors that are closed while they are used, or used when closed."""

    def __init__(self, after: Callable[[], None]) -> None:
        self.wrong: list[str] = []
        self._after = after
        self._used: Counter[int] = Counter()
        self._lock = threading.Lock()
        for name, call in vars(FileSystem).items():
            if isinstance(call, staticmethod):
                setattr(self, name, self._watching(name, call.__func__))

    def _watching(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*given: Any, **named: Any) -> Any:
            fds = [fd for fd in (*given[:1], named.get("dir_fd")) if isinstance(fd, int)]
            with self._lock:
                if name == "close" and self._used[fds[0]]:
                    self.wrong.append("closed in use")
                if name != "close":
                    self._used.update(fds)
            try:
                if threading.current_thread().name.startswith("keepstone"):
                    time.sleep(0.0002)  # so that others get on meanwhile
                return call(*given, **named)
            except OSError as error:
                if error.errno == errno.EBADF:
                    self.wrong.append(f"{name} of what is closed")
                raise
            finally:
                with self._lock:
                    if name != "close":
                        self._used.subtract(fds)
                self._after()

        return watched


class Nth:
    """Calls `then` the `left`-th time that it is called."""

    def __init__(self, left: int, then: Callable[[], None]) -> None:
        self.left = left
        self._then = then
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.left -= 1
            if self.left:
                return
        self._then()


class Handing(Env):
    """Calls `after` when a piece of work was handed out."""

    def __init__(self, after: Callable[[], None]) -> None:
        super().__init__(threads=2)
        self._handed = after

    def pool(self, more: int = 0) -> Pool:
        pool = super().pool(more)
        submit = pool.submit

        def submitted(*given: Any) -> Any:
            future = submit(*given)
            self._handed()
            return future

        pool.submit = submitted  # type: ignore[method-assign]
        return pool


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A store with the point; afterwards as many descriptors are open as before."""
    root = tmp_path / "store"
    builder = Builder(new_store(Env(threads=2), root))
    builder.commit(builder.pages(sorted_items(ITEMS)), detail())
    before = len(os.listdir("/proc/self/fd"))
    yield root
    assert len(os.listdir("/proc/self/fd")) == before


def opened(env: Env, root: Path) -> LocalReader:
    store = Store.open(env, FolderStorage(env, root), [provider()])
    return store.reader(store.points.find("latest"))


def restored(env: Env, reader: LocalReader, target: Path) -> bool:
    """Whether it came to its end, uninterrupted; what it left is checked."""
    with reader:
        try:
            restore_files(env, reader, target, RestoreOptions(), Silent())
            time.sleep(0.002)  # an interrupt that came late
            ended = True
        except (KeyboardInterrupt, RuntimeError):
            ended = False
        left = {
            os.fsencode(path.name): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        time.sleep(0.002)
    later = {os.fsencode(path.name) for path in target.rglob("*") if path.is_file() and not path.is_symlink()}
    assert later == left.keys(), "somebody went on"
    for name, content in left.items():
        assert content == WANTED[name], name
    if ended:
        assert left.keys() == WANTED.keys()
    return ended


def test_interrupted_after_any_call_of_the_file_system(root: Path, tmp_path: Path) -> None:
    ended, count = False, 0
    while not ended:
        count += 1
        nth = Nth(count, interrupt)
        watched = Watched(nth)
        plain = Env(threads=2)
        complete = restored(Env(threads=2, fs=watched), opened(plain, root), tmp_path / f"{count}")
        assert watched.wrong == [], count
        ended = nth.left > 0
        assert complete == ended
    assert count > 50


def test_interrupted_when_any_work_was_handed_out(root: Path, tmp_path: Path) -> None:
    """As above, or no thread is to be had for it."""
    for then in (interrupt, _no_thread):
        ended, count = False, 0
        while not ended:
            count += 1
            nth = Nth(count, then)
            watched = Watched(lambda: None)
            reader = opened(Handing(nth), root)
            complete = restored(Env(threads=2, fs=watched), reader, tmp_path / f"{then.__name__} {count}")
            assert watched.wrong == [], count
            ended = nth.left > 0
            assert complete == ended
        assert count > 1


def _no_thread() -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("threads", [0, 2])
def test_ended_by_what_it_tells_its_progress(root: Path, tmp_path: Path, threads: int) -> None:
    """A program that ends a restore does it there."""

    class Ending(Silent):
        def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
            nth()

    def end() -> None:
        raise KeyboardInterrupt

    ended, count = False, 0
    while not ended:
        count += 1
        nth = Nth(count, end)
        watched = Watched(lambda: None)
        env = Env(threads=threads, fs=watched)
        target = tmp_path / f"{count}"
        with opened(Env(threads=threads), root) as reader:
            try:
                restore_files(env, reader, target, RestoreOptions(), Ending())
                ended = True
            except KeyboardInterrupt:
                pass
        for path in target.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert path.read_bytes() == WANTED[os.fsencode(path.name)], count
        assert watched.wrong == [], count
    assert count > len(WANTED)


def test_interrupted_in_place_leaves_what_was_there(root: Path, tmp_path: Path) -> None:
    """What is to be replaced has its old content or its new one, and nothing lies beside it."""
    ended, count = False, 0
    while not ended:
        count += 1
        target = tmp_path / f"{count}"
        target.mkdir()
        for name in (b"large", b"empty", b"one"):
            Path(os.fsdecode(os.path.join(os.fsencode(target), name))).write_bytes(b"old")
        nth = Nth(count, interrupt)
        watched = Watched(nth)
        with opened(Env(threads=2), root) as reader:
            try:
                restore_files(Env(threads=2, fs=watched), reader, target, RestoreOptions(in_place=True), Silent())
                time.sleep(0.002)
            except KeyboardInterrupt:
                pass
        ended = nth.left > 0
        assert watched.wrong == [], count
        for path in target.rglob("*"):
            if path.is_file() and not path.is_symlink():
                name = os.fsencode(path.name)
                allowed = {WANTED.get(name)} | ({b"old"} if name in (b"large", b"empty", b"one") else set())
                assert path.read_bytes() in allowed, (count, name)
        assert {"large", "empty", "one"} <= set(os.listdir(target)), count
    assert count > 50
