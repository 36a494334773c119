# SPDX-License-Identifier: Apache-2.0
"""The contract of `keepstone.objects.port`, sentence by sentence, over every backend, and what only a folder breaks.

The folder is held to it four times: as this machine is, without O_DIRECT at open, without it at the first transfer, and
without renameat2.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env, FileSystem, Process
from keepstone.errors import (
    AccessDenied,
    KeepstoneError,
    NotFound,
    ObjectExists,
    ObjectMissing,
    StorageError,
    StorageFull,
    StoreMissing,
    UsageError,
)
from keepstone.objects import FolderStorage, MemoryStorage, ObjectInfo, ObjectStorage, aligned, folder
from keepstone.objects.syscalls import rename_noreplace
from tests.descriptors import descriptors
from tests.tampered import NO_DIRECT_OPEN, NO_DIRECT_TRANSFER, Tampered, failing_at, fails

pytestmark = pytest.mark.store

MIB = 1 << 20
HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "packs/../../x",
    "packs/./x",
    "packs//x",
    "packs/",
    "a\0b",
    "a b",
    "a\n",
    "a\\b",
    "ü",
    ".hidden",
    "packs/.nfs01",
    "tmp",
    "tmp/x",
    "x" * 256,
    "/".join(["x" * 200] * 6),
]


class World(Env):
    """The real world, writing down its steps; `halt` makes every step fail that comes after `still` more of them."""

    def __init__(self, fs: FileSystem | None = None) -> None:
        super().__init__(fs=fs)
        self.steps: list[str] = []
        self.halt = False
        self.still = 0

    def step(self, what: str) -> None:
        self.steps.append(what)
        if self.halt:
            self.still -= 1
            if self.still < 0:
                raise Halted


class Halted(Exception):
    """The actor was stopped."""


@dataclass
class Backend:
    """`again` opens the storage anew, as another process would."""

    world: World
    again: Callable[[], ObjectStorage]


@pytest.fixture(
    params=["memory", "folder", "folder: no O_DIRECT", "folder: no direct transfer", "folder: no renameat2"],
)
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    variant: str = request.param
    if variant == "memory":
        world = World()
        objects: dict[str, bytes] = {}
        return Backend(world, lambda: MemoryStorage(world, objects=objects))
    fs = FileSystem()
    if variant.endswith("no O_DIRECT"):
        fs = NO_DIRECT_OPEN
    elif variant.endswith("no direct transfer"):
        fs = NO_DIRECT_TRANSFER
    elif variant.endswith("no renameat2"):
        monkeypatch.setattr(folder, "rename_noreplace", fails(errno.EINVAL))
    world = World(fs)
    root = tmp_path / "store"
    FolderStorage(world, root, create=True)
    return Backend(world, lambda: FolderStorage(world, root))


@pytest.fixture
def storage(backend: Backend) -> ObjectStorage:
    return backend.again()


def names(storage: ObjectStorage, prefix: str = "") -> list[str]:
    return sorted(info.name for info in storage.list(prefix))


def upload(storage: ObjectStorage, name: str, data: bytes) -> None:
    new = storage.create(name)
    new.write(data)
    new.finish()


def store(storage: ObjectStorage, way: str, name: str, data: bytes) -> None:
    storage.put(name, data) if way == "put" else upload(storage, name, data)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# put


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_was_put_is_read(backend: Backend, kind: Callable[[bytes], bytes]) -> None:
    backend.again().put("packs/3f/3f12", kind(b"content"))

    assert backend.again().read("packs/3f/3f12") == b"content"
    assert backend.again().size("packs/3f/3f12") == 7


def test_put_keeps_its_own_copy(storage: ObjectStorage) -> None:
    data = bytearray(b"before")
    storage.put("a", data)
    data[:] = b"after!"

    assert storage.read("a") == b"before"


@pytest.mark.parametrize("content", [b"", b"x", b"content"])
@pytest.mark.parametrize("first", ["put", "create"])
@pytest.mark.parametrize("second", ["put", "create"])
def test_a_name_is_taken_once_even_by_the_same_content(
    backend: Backend, content: bytes, first: str, second: str
) -> None:
    store(backend.again(), first, "a/b", content)

    for data in (content, b"other"):
        with pytest.raises(ObjectExists, match="a/b"):
            store(backend.again(), second, "a/b", data)

    assert backend.again().read("a/b") == content
    assert list(backend.again().list()) == [ObjectInfo("a/b", len(content))]


def creator(backend: Backend, way: str, name: str, ready: threading.Barrier, number: int) -> bool:
    """Whether this one of many got the name."""
    storage = backend.again()
    new = storage.create(name) if way == "create" else None
    if new:
        new.write(b"%d" % number)
    ready.wait()
    try:
        new.finish() if new else storage.put(name, b"%d" % number)
    except ObjectExists:
        return False
    return True


@pytest.mark.parametrize("way", ["put", "create"])
def test_of_twenty_concurrent_creators_one_succeeds(backend: Backend, way: str) -> None:
    for turn in range(5):
        name = f"commits/{turn}"
        ready = threading.Barrier(20)
        with ThreadPoolExecutor(20) as pool:
            won = list(pool.map(partial(creator, backend, way, name, ready), range(20)))

        assert sum(won) == 1
        assert backend.again().read(name) == b"%d" % won.index(True)


# create


@pytest.mark.parametrize(
    "size", [0, 1, 4095, 4096, 65_536, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB, 9 * MIB + 5_000]
)
def test_uploads_of_any_size(storage: ObjectStorage, size: int) -> None:
    content = noise(size)
    new = storage.create("packs/a")
    for at in range(0, size, 1_000_003):
        new.write(memoryview(content)[at : at + 1_000_003])
    new.finish()

    assert storage.size("packs/a") == size
    assert storage.read("packs/a") == content


def test_an_upload_is_invisible_until_it_finishes_and_visible_to_all_then(backend: Backend) -> None:
    storage, other = backend.again(), backend.again()
    new = storage.create("packs/a")
    new.write(noise(5 * MIB))

    assert names(other) == []
    with pytest.raises(ObjectMissing, match="packs/a"):
        other.read("packs/a")
    with pytest.raises(ObjectMissing, match="packs/a"):
        other.size("packs/a")

    new.finish()

    assert names(other) == ["packs/a"]
    assert other.read("packs/a") == noise(5 * MIB)


def test_the_buffer_given_to_write_may_be_reused(storage: ObjectStorage) -> None:
    data = bytearray(b"1" * 100_000)
    new = storage.create("a")
    new.write(data)
    data[:] = b"2" * 100_000
    new.write(data)
    new.finish()

    assert storage.read("a") == b"1" * 100_000 + b"2" * 100_000


def test_room_is_filled_in_place(storage: ObjectStorage) -> None:
    content = noise(20 * MIB)
    source = random.Random(1)
    new = storage.create("packs/a")
    at = 0
    while at < len(content):
        length = min(source.choice([0, 1, 17, 4096, 70_000, MIB + 16, 3 * MIB]), len(content) - at)
        if source.random() < 0.3:
            new.write(content[at : at + length])
        else:
            room = new.room(min(length + source.choice([0, 100]), 3 * MIB))  # more than is used
            room[:length] = content[at : at + length]
            room.release()
            new.advance(length)
        at += length
    new.finish()

    assert storage.read("packs/a") == content


def test_the_most_room_is_there_when_the_buffer_is_nearly_full(storage: ObjectStorage) -> None:
    content = noise(7 * MIB - 1)
    new = storage.create("a")
    new.write(content[: 4 * MIB - 1])
    room = new.room(3 * MIB)

    assert len(room) == 3 * MIB

    room[:] = content[4 * MIB - 1 :]
    new.advance(3 * MIB)
    new.finish()

    assert storage.read("a") == content


def test_no_more_room_than_the_contract_says(storage: ObjectStorage) -> None:
    new = storage.create("a")
    with pytest.raises(UsageError, match="at most"):
        new.room(5 * MIB + 1)
    with pytest.raises(UsageError):
        new.advance(8 * MIB)
    new.abort()


def test_uploads_beside_each_other_do_not_mix(storage: ObjectStorage) -> None:
    contents = [noise(6 * MIB + seed, seed) for seed in range(4)]
    for _ in range(2):  # the second time with buffers that were used
        uploads = [storage.create(f"packs/{number}") for number in range(4)]
        for at in range(0, 7 * MIB, 300_000):
            for new, content in zip(uploads, contents, strict=True):
                new.write(content[at : at + 300_000])
        for new in uploads:
            new.finish()

        assert [storage.read(f"packs/{number}") for number in range(4)] == contents

        storage.delete_many(names(storage))


def test_abort_leaves_nothing_and_the_name_free(storage: ObjectStorage) -> None:
    new = storage.create("a")
    new.write(noise(5 * MIB))
    new.abort()
    new.abort()

    assert names(storage) == []
    with pytest.raises(UsageError):
        new.write(b"more")
    with pytest.raises(UsageError):
        new.finish()

    storage.put("a", b"content")
    assert storage.read("a") == b"content"


def test_abort_after_finish_keeps_the_object(storage: ObjectStorage) -> None:
    new = storage.create("a")
    new.write(b"content")
    new.finish()
    new.abort()

    assert storage.read("a") == b"content"
    with pytest.raises(UsageError):
        new.write(b"more")


def test_sync_ignores_names_that_nobody_has(storage: ObjectStorage) -> None:
    upload(storage, "packs/aa/1", b"content")
    storage.sync(["packs/aa/1", "packs/aa/2", "packs/bb/1", "nowhere/1"])
    storage.sync([])

    assert names(storage) == ["packs/aa/1"]


# read


@pytest.mark.parametrize("offset", [0, 1, 4096, 9999, 10_000, 20_000, -1, -5000, -10_000, -20_000])
def test_ranged_reads(storage: ObjectStorage, offset: int) -> None:
    content = noise(10_000)
    storage.put("a", content)
    rest = content[offset:] if offset >= -len(content) else content

    assert storage.read("a", offset) == rest
    for length in (0, 1, 5000, 20_000):
        assert storage.read("a", offset, length) == rest[:length]


@pytest.mark.parametrize("length", [0, 1, 5000, MIB, 2 * MIB, 2 * MIB + 1])
def test_read_into_a_buffer(storage: ObjectStorage, length: int) -> None:
    content = noise(4 * MIB + 4500)
    storage.put("packs/a", content)
    buffer = aligned(3 * MIB)
    for offset in (0, 1, 4096, 3 * MIB, 3 * MIB + 4096, 3 * MIB + 5000, 5 * MIB):
        for shift in (0, 1):
            buffer[:] = b"\xff" * len(buffer)
            expected = content[offset : offset + length]

            assert storage.read_into("packs/a", offset, buffer[shift : shift + length]) == len(expected)
            assert buffer[shift : shift + len(expected)] == expected
            assert bytes(buffer[shift + length :]).count(b"\xff") == len(buffer) - shift - length
            assert bytes(buffer[:shift]) == b"\xff" * shift


def test_reads_that_make_no_sense_are_refused(storage: ObjectStorage) -> None:
    storage.put("a", b"content")
    with pytest.raises(UsageError):
        storage.read("a", 0, -1)
    with pytest.raises(UsageError):
        storage.read_into("a", -1, memoryview(bytearray(3)))


@pytest.mark.parametrize("name", ["gone", "nowhere/gone", "folder", "folder/object/below"])
def test_missing_objects(storage: ObjectStorage, name: str) -> None:
    storage.put("folder/object", b"content")
    for call in (
        lambda: storage.read(name),
        lambda: storage.read(name, -5),
        lambda: storage.read_into(name, 0, memoryview(bytearray(10))),
        lambda: storage.read_into(name, 0, aligned(MIB)),
        lambda: storage.size(name),
    ):
        with pytest.raises(ObjectMissing, match=name):
            call()


# list


def test_listing_by_prefix(storage: ObjectStorage) -> None:
    sizes = {"a": 1, "packs/3e/3e1": 2, "packs/3f/3f1": 3, "packs/3f/3f2": 4, "packs/3f/4": 0, "packs2/x": 6, "tmp1": 7}
    for name, size in sizes.items():
        storage.put(name, bytes(size))

    for prefix in [
        "",
        "a",
        "p",
        "packs",
        "packs/",
        "packs/3",
        "packs/3f",
        "packs/3f/",
        "packs/3f/3",
        "x",
        "x/y/",
        "tm",
    ]:
        expected = sorted((name, size) for name, size in sizes.items() if name.startswith(prefix))
        assert sorted((info.name, info.size) for info in storage.list(prefix)) == expected
        assert sorted(storage.names(prefix)) == [name for name, _ in expected]


def test_a_listing_tells_what_was_there_all_the_time(storage: ObjectStorage) -> None:
    stay = [f"stay/{number}" for number in range(50)]
    go = [f"go/{number}" for number in range(50)]
    for name in stay + go:
        storage.put(name, b"")
    seen = []
    for info in storage.list():
        seen.append(info.name)
        if go:
            storage.delete(go.pop())
            storage.put(f"new/{len(go)}", b"")

    assert set(stay) <= set(seen)
    assert max(Counter(seen).values()) == 1


@pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../b", "a\0", "tmp/", ".x/"])
def test_hostile_prefixes(storage: ObjectStorage, prefix: str) -> None:
    with pytest.raises(UsageError):
        list(storage.list(prefix))


# delete


def test_deleted_objects_are_gone_for_everybody(backend: Backend) -> None:
    storage = backend.again()
    for name in ("a/1", "a/2", "b/1", "b/2"):
        storage.put(name, b"content")
    storage.delete("a/1")
    storage.delete_many(["a/2", "b/1", "b/never", "never/there"])

    assert names(backend.again()) == ["b/2"]
    with pytest.raises(ObjectMissing):
        backend.again().read("a/1")


@pytest.mark.parametrize("name", ["never", "nowhere/never", "packs", "packs/a/below"])
def test_deleting_what_is_no_object_is_no_error(storage: ObjectStorage, name: str) -> None:
    storage.put("packs/a", b"content")
    storage.delete(name)
    storage.delete(name)
    storage.delete_many([name, name])
    storage.delete_many([])

    assert names(storage) == ["packs/a"]


def test_a_deleted_name_can_be_given_again(storage: ObjectStorage) -> None:
    storage.put("a", b"old")
    storage.delete("a")
    storage.put("a", b"new")

    assert storage.read("a") == b"new"


# names and steps

Operation = Callable[[ObjectStorage, str], object]
OPERATIONS: dict[str, Operation] = {
    "put": lambda storage, name: storage.put(name, b""),
    "create": lambda storage, name: storage.create(name).abort(),
    "sync": lambda storage, name: storage.sync([name]),
    "read": lambda storage, name: storage.read(name),
    "read_into": lambda storage, name: storage.read_into(name, 0, memoryview(bytearray(1))),
    "read_into aligned": lambda storage, name: storage.read_into(name, 0, aligned(MIB)),
    "size": lambda storage, name: storage.size(name),
    "delete": lambda storage, name: storage.delete(name),
    "delete_many": lambda storage, name: storage.delete_many(["ok", name]),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_hostile_names_are_refused_before_anything_happens(backend: Backend, operation: str) -> None:
    storage = backend.again()
    storage.put("ok", b"content")
    backend.world.steps.clear()
    for name in HOSTILE:
        with pytest.raises(UsageError):
            OPERATIONS[operation](storage, name)

    assert backend.world.steps == []
    assert names(storage) == ["ok"]


@pytest.mark.parametrize("name", ["x" * 255, "FORMAT.md", "a-b_c.9/Z", "-", "tmpx/tmp", "a/tmp"])
def test_unusual_names_that_are_fine(storage: ObjectStorage, name: str) -> None:
    storage.put(name, b"content")

    assert names(storage) == [name]
    assert storage.read(name) == b"content"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_is_one_step_before_it_acts(backend: Backend, operation: str) -> None:
    storage = backend.again()
    storage.put("taken", b"content")
    name = "new" if operation == "put" else "taken"
    backend.world.steps.clear()
    backend.world.halt = True
    with pytest.raises(Halted):
        OPERATIONS[operation](storage, name)
    backend.world.halt = False

    assert len(backend.world.steps) == 1
    assert backend.world.steps[0].split()[0] == operation.split(maxsplit=1)[0]
    assert names(storage) == ["taken"]

    backend.world.steps.clear()
    OPERATIONS[operation](storage, name)
    assert len(backend.world.steps) == (2 if operation == "delete_many" else 1)  # of two names


def test_each_removal_of_many_is_a_step_of_its_own(backend: Backend) -> None:
    """An actor that dies between two of them has removed the first and not the second."""
    storage = backend.again()
    for name in "abc":
        storage.put(name, b"content")
    backend.world.steps.clear()
    backend.world.halt, backend.world.still = True, 1
    with pytest.raises(Halted):
        storage.delete_many(["a", "b", "c"])
    backend.world.halt = False

    assert backend.world.steps == ["delete_many a", "delete_many b"]
    assert names(storage) == ["b", "c"]


def test_list_and_finish_are_one_step(backend: Backend) -> None:
    storage = backend.again()
    new = storage.create("a")
    backend.world.steps.clear()
    backend.world.halt = True
    with pytest.raises(Halted):
        new.finish()
    with pytest.raises(Halted):
        storage.list("")
    backend.world.halt = False

    assert [step.split()[0] for step in backend.world.steps] == ["finish", "list"]
    assert names(storage) == []


def test_clean_is_one_step_and_leaves_uploads_under_way_alone(backend: Backend) -> None:
    storage = backend.again()
    storage.put("a", b"content")
    new = storage.create("b")
    new.write(noise(5 * MIB))
    backend.world.steps.clear()

    assert backend.again().clean() == 0
    assert len(backend.world.steps) == 1
    new.finish()
    assert names(storage) == ["a", "b"]


# A folder: its form


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="nowhere"):
        FolderStorage(Env(), tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreMissing, match="file"):
        FolderStorage(Env(), tmp_path / "file")
    for place in ("file", "file/below"):
        with pytest.raises(NotFound, match="file") as caught:
            FolderStorage(Env(), tmp_path / place, create=True)
        assert not isinstance(caught.value, StoreMissing)  # which would say that it can be made there


def test_files_and_folders_belong_to_their_owner_only(tmp_path: Path) -> None:
    storage = FolderStorage(Env(), tmp_path / "new/store", create=True)
    storage.put("a/b", b"content")
    upload(storage, "c/d", b"content")

    for path in (tmp_path / "new").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_opening_and_reading_write_nothing(tmp_path: Path) -> None:
    FolderStorage(Env(), tmp_path).put("a", b"content")
    (tmp_path / "tmp").rmdir()
    read_only = Tampered(**dict.fromkeys(["mkdir", "write", "pwrite", "rename", "link", "unlink"], fails(errno.EROFS)))
    storage = FolderStorage(Env(fs=read_only), tmp_path)

    assert storage.read("a") == b"content"
    assert names(storage) == ["a"]
    assert sorted(os.listdir(tmp_path)) == ["a"]
    with pytest.raises(AccessDenied, match="b in "):
        storage.put("b", b"content")


def test_a_store_that_went_away_is_not_an_empty_one(tmp_path: Path) -> None:
    storage = FolderStorage(Env(), tmp_path / "store", create=True)
    (tmp_path / "store").rmdir()

    for prefix in ("", "packs/"):
        with pytest.raises(StoreMissing):
            list(storage.list(prefix))


def test_foreign_files_in_the_folder_are_no_objects(tmp_path: Path) -> None:
    storage = FolderStorage(Env(), tmp_path)
    storage.put("packs/a", b"content")
    (tmp_path / "packs/.nfs0001").write_bytes(b"")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "tmp/left").write_bytes(b"")

    assert names(storage) == ["packs/a"]


# A folder: what is durable when


@dataclass
class Diary:
    """What reached the kernel, in order, with paths inside the store."""

    events: list[str]
    fs: FileSystem


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Diary:
    events: list[str] = []
    paths: dict[int, str] = {}

    def short(path: Any) -> str:
        relative = os.path.relpath(path, tmp_path)
        return "tmp/*" if relative.startswith("tmp/") else relative

    def open_(path: Any, flags: int, mode: int = 0o777) -> int:
        fd = os.open(path, flags, mode)
        paths[fd] = short(path)
        return fd

    def fsync(fd: int) -> None:
        os.fsync(fd)
        events.append(f"fsync {paths[fd]}")

    def mkdir(path: Any, mode: int = 0o777) -> None:
        os.mkdir(path, mode)
        events.append(f"mkdir {short(path)}")

    def unlink(path: Any) -> None:
        os.unlink(path)
        events.append(f"unlink {short(path)}")

    def rename(old: str, new: str) -> None:
        rename_noreplace(old, new)
        events.append(f"rename {short(old)} {short(new)}")

    monkeypatch.setattr(folder, "rename_noreplace", rename)
    return Diary(events, Tampered(open=open_, fsync=fsync, mkdir=mkdir, unlink=unlink))


NEW_FOLDERS = ["mkdir a", "fsync .", "mkdir a/b", "fsync a"]


def test_put_is_durable_and_so_are_the_folders_above(diary: Diary, tmp_path: Path) -> None:
    storage = FolderStorage(Env(fs=diary.fs), tmp_path)
    storage.put("a/b/c", b"content")

    published = ["fsync tmp/*", *NEW_FOLDERS, "rename tmp/* a/b/c", "fsync a/b"]
    assert diary.events == ["mkdir tmp", "fsync .", *published]

    diary.events.clear()
    storage.put("a/b/d", b"content")
    assert diary.events == ["fsync tmp/*", "rename tmp/* a/b/d", "fsync a/b"]


def test_uploads_share_one_barrier_for_their_names(diary: Diary, tmp_path: Path) -> None:
    storage = FolderStorage(Env(fs=diary.fs), tmp_path)
    for name in ("a/b/1", "a/b/2", "a/c/1"):
        upload(storage, name, b"content")

    assert diary.events == [
        *["mkdir tmp", "fsync .", "fsync tmp/*", *NEW_FOLDERS, "rename tmp/* a/b/1"],
        *["fsync tmp/*", "rename tmp/* a/b/2"],
        *["fsync tmp/*", "mkdir a/c", "fsync a", "rename tmp/* a/c/1"],
    ]

    diary.events.clear()
    storage.sync(["a/b/1", "a/c/1", "a/b/2", "nowhere/1"])
    assert diary.events == ["fsync a/b", "fsync a/c"]


def test_folders_that_somebody_else_made_are_made_durable_too(diary: Diary, tmp_path: Path) -> None:
    for made in ("tmp", "a", "a/b", "a/c"):
        (tmp_path / made).mkdir()
    storage = FolderStorage(Env(fs=diary.fs), tmp_path)
    storage.put("a/b/1", b"content")

    before = diary.events[: diary.events.index("rename tmp/* a/b/1")]
    assert {"fsync .", "fsync a"} <= set(before)

    diary.events.clear()
    storage.put("a/c/1", b"content")  # the barrier above covered it
    assert diary.events == ["fsync tmp/*", "rename tmp/* a/c/1", "fsync a/c"]


def test_who_finds_a_name_taken_may_rely_on_the_object(diary: Diary, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/cell").write_bytes(b"its writer has not synced the folder yet")
    storage = FolderStorage(Env(fs=diary.fs), tmp_path)
    with pytest.raises(ObjectExists):
        storage.put("a/cell", b"content")

    assert diary.events[-2:] == ["fsync a", "unlink tmp/*"]


def test_removals_are_durable_with_one_barrier_a_folder(diary: Diary, tmp_path: Path) -> None:
    storage = FolderStorage(Env(fs=diary.fs), tmp_path)
    for name in ("a/1", "a/2", "b/1"):
        storage.put(name, b"")
    diary.events.clear()
    storage.delete_many(["a/1", "b/1", "a/2"])

    assert diary.events == ["unlink a/1", "unlink b/1", "unlink a/2", "fsync a", "fsync b"]

    diary.events.clear()
    storage.delete("a/1")  # gone already, but perhaps not durably
    assert diary.events == ["fsync a"]


def test_a_new_store_is_durable_in_its_parents(tmp_path: Path) -> None:
    synced: list[str] = []
    fs = Tampered(fsync=lambda fd: synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path)))
    FolderStorage(Env(fs=fs), tmp_path / "new/store", create=True)

    assert synced == [".", "new"]


def test_a_folder_that_needs_no_barrier_is_fine(tmp_path: Path) -> None:
    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    FolderStorage(Env(fs=Tampered(fsync=fsync)), tmp_path).put("a/b", b"content")

    assert FolderStorage(Env(), tmp_path).read("a/b") == b"content"


# A folder: failures

FAILURES = [
    (errno.ENOSPC, StorageFull),
    (errno.EDQUOT, StorageFull),
    (errno.EACCES, AccessDenied),
    (errno.EPERM, AccessDenied),
    (errno.EROFS, AccessDenied),
    (errno.EIO, StorageError),
    (errno.ENOENT, StorageError),
    (errno.EEXIST, StorageError),
]


@pytest.mark.parametrize(("code", "error"), FAILURES)
@pytest.mark.parametrize(("call", "nth"), [("write", 1), ("fsync", 2), ("fsync", 3)])
def test_a_put_that_fails_leaves_nothing(
    tmp_path: Path, call: str, nth: int, code: int, error: type[KeepstoneError]
) -> None:
    storage = FolderStorage(Env(fs=failing_at(call, nth, code)), tmp_path)
    with pytest.raises(error, match=r"a/b in .*; ") as caught:
        storage.put("a/b", b"content")

    assert type(caught.value) is error
    assert names(storage) == []
    assert os.listdir(tmp_path / "tmp") == []

    storage.put("a/b", b"content")
    assert storage.read("a/b") == b"content"


@pytest.mark.parametrize(("code", "error"), FAILURES)
@pytest.mark.parametrize(("call", "nth"), [("pwrite", 1), ("pwrite", 2), ("ftruncate", 1), ("fsync", 2)])
def test_an_upload_that_fails_leaves_nothing(
    tmp_path: Path, call: str, nth: int, code: int, error: type[KeepstoneError]
) -> None:
    storage = FolderStorage(Env(fs=failing_at(call, nth, code)), tmp_path)
    new = storage.create("a/b")

    def write() -> None:
        for _ in range(5):
            new.write(noise(MIB + 1))
        new.finish()

    with pytest.raises(error, match=r"a/b in .*; ") as caught:
        write()

    assert type(caught.value) is error
    assert names(storage) == []
    assert os.listdir(tmp_path / "tmp") == []
    with pytest.raises(UsageError):
        new.write(b"more")
    new.abort()

    upload(storage, "a/b", noise(5 * MIB))
    assert storage.read("a/b") == noise(5 * MIB)


def test_a_put_whose_name_may_be_lost_is_no_success(tmp_path: Path) -> None:
    storage = FolderStorage(Env(fs=failing_at("fsync", 4, errno.EIO)), tmp_path)
    with pytest.raises(StorageError, match=r"a/b in .*; "):
        storage.put("a/b", b"content")

    with pytest.raises(ObjectExists):  # somebody may have seen it, so it is not taken back
        storage.put("a/b", b"other")


@pytest.mark.parametrize("way", ["put", "create"])
def test_fsync_is_never_tried_again_on_a_file(tmp_path: Path, way: str) -> None:
    tried: list[str] = []

    def fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        tried.append(path)
        if "/tmp/" in os.path.relpath(path, tmp_path.parent):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    storage = FolderStorage(Env(fs=Tampered(fsync=fsync)), tmp_path)
    with pytest.raises(StorageError):
        store(storage, way, "a", b"content")

    assert max(Counter(tried).values()) == 1
    assert len(tried) == 2  # the folder of `tmp`, and the file
    assert os.listdir(tmp_path / "tmp") == []


def test_short_writes_and_reads_are_continued(tmp_path: Path) -> None:
    fs = Tampered(
        write=lambda fd, data: os.write(fd, data[:1000]),
        pwrite=lambda fd, data, offset: os.pwrite(fd, data[: 4096 * 100], offset),
        pread=lambda fd, count, offset: os.pread(fd, min(count, 999), offset),
        preadv=lambda fd, buffers, offset: os.preadv(fd, [buffers[0][: 4096 * 50]], offset),
    )
    storage = FolderStorage(Env(fs=fs), tmp_path)
    content = noise(5 * MIB + 77)
    storage.put("small", content[:5000])
    upload(storage, "large", content)
    buffer = aligned(6 * MIB)

    assert storage.read("small") == content[:5000]
    assert storage.read_into("large", 0, buffer) == len(content)
    assert buffer[: len(content)] == content
    assert storage.read_into("large", 1, buffer[1:]) == len(content) - 1
    assert buffer[1 : len(content)] == content[1:]


def test_a_file_that_was_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    def pread(fd: int, count: int, offset: int) -> bytes:
        os.truncate(tmp_path / "a", 3)
        return os.pread(fd, count, offset)

    FolderStorage(Env(), tmp_path).put("a", b"content")

    assert FolderStorage(Env(fs=Tampered(pread=pread)), tmp_path).read("a") == b"con"


def test_a_link_whose_reply_was_lost_is_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(old: str, new: str) -> None:
        os.link(old, new)
        os.link(old, new)  # the request comes a second time

    monkeypatch.setattr(folder, "rename_noreplace", fails(errno.ENOSYS))
    storage = FolderStorage(Env(fs=Tampered(link=link)), tmp_path)
    storage.put("a", b"content")

    assert storage.read("a") == b"content"
    with pytest.raises(ObjectExists):
        storage.put("a", b"other")
    assert os.listdir(tmp_path / "tmp") == []


def test_no_descriptor_stays_open(backend: Backend) -> None:
    storage = backend.again()

    def everything() -> None:
        upload(storage, "a", noise(MIB))
        for call in (
            lambda: upload(storage, "a", noise(MIB)),
            lambda: storage.put("a", b""),
            lambda: storage.read("gone"),
            lambda: storage.read_into("gone", 0, aligned(MIB)),
            lambda: storage.read_into("packs", 0, aligned(MIB)),
        ):
            with pytest.raises((ObjectExists, ObjectMissing)):
                call()
        storage.put("packs/b", b"content")
        storage.read("a")
        storage.read_into("a", 0, aligned(MIB))
        storage.read_into("a", 1, aligned(MIB))
        storage.create("x").abort()
        next(storage.list())
        storage.delete_many(names(storage))

    everything()
    before = sorted(descriptors())
    everything()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """8 MiB of tmpfs."""
    if os.geteuid():
        pytest.skip("a file system can only be mounted by root; the stand-ins above cover its errors")
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", mount], check=True)
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk_can_be_read_and_emptied(small_disk: Path) -> None:
    storage = FolderStorage(Env(), small_disk)
    upload(storage, "packs/1", noise(5 * MIB))
    with pytest.raises(StorageFull, match="packs/2"):
        upload(storage, "packs/2", noise(5 * MIB))

    assert os.listdir(small_disk / "tmp") == []

    (small_disk / "filler").write_bytes(b"")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(8 * MIB))
    with pytest.raises(StorageFull, match="small"):
        storage.put("small", bytes(100_000))

    storage = FolderStorage(Env(), small_disk)
    assert storage.read("packs/1") == noise(5 * MIB)
    storage.delete("packs/1")
    assert storage.clean() == 0

    upload(storage, "packs/2", noise(5 * MIB))
    assert storage.read("packs/2") == noise(5 * MIB)


# A folder: other processes

WRITER = """
import sys
from pathlib import Path
from keepstone.env import Env
from keepstone.objects import FolderStorage
upload = FolderStorage(Env(), Path(sys.argv[1])).create("packs/a")
upload.write(bytes(range(256)) * 20480)
print("ready", flush=True)
sys.stdin.readline()
upload.finish()
print("done", flush=True)
"""


def start_writer(root: Path) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    assert writer.stdout.readline() == "ready\n"
    return writer


def test_what_a_killed_process_left_is_cleaned(tmp_path: Path) -> None:
    storage = FolderStorage(Env(), tmp_path)
    with start_writer(tmp_path) as writer:
        writer.send_signal(signal.SIGKILL)

    assert names(storage) == []
    assert len(os.listdir(tmp_path / "tmp")) == 1
    assert storage.clean() == 1
    assert os.listdir(tmp_path / "tmp") == []
    assert storage.clean() == 0


def test_uploads_of_running_processes_are_not_cleaned(tmp_path: Path) -> None:
    storage = FolderStorage(Env(), tmp_path)
    own = storage.create("packs/b")
    own.write(noise(5 * MIB))
    with start_writer(tmp_path) as writer:
        assert storage.clean() == 0
        assert writer.communicate("go on\n")[0] == "done\n"
    own.finish()

    assert storage.read("packs/a") == bytes(range(256)) * 20480
    assert storage.read("packs/b") == noise(5 * MIB)


class Elsewhere(Env):
    """A process that differs from this one in these respects."""

    def __init__(self, **differences: Any) -> None:
        super().__init__()
        self.differences = differences

    def process(self) -> Process:
        return replace(super().process(), **self.differences)


def test_litter_of_an_earlier_boot_and_of_an_earlier_bearer_of_the_number_goes(tmp_path: Path) -> None:
    for differences in ({"boot": "c0ffee00-0000-4000-8000-000000000000"}, {"started": 1}):
        FolderStorage(Elsewhere(**differences), tmp_path).create("a").write(noise(5 * MIB))

    assert FolderStorage(Env(), tmp_path).clean() == 2


def test_litter_of_another_host_goes_when_nobody_writes_to_it(tmp_path: Path) -> None:
    storage = FolderStorage(Env(), tmp_path)
    for differences in ({"host": "other"}, {"host": "a,b,c", "boot": "c0ffee00-0000-4000-8000-000000000000"}):
        FolderStorage(Elsewhere(**differences), tmp_path).create("a").write(noise(5 * MIB))
    (tmp_path / "tmp/what is this").write_bytes(b"")
    assert storage.clean() == 0

    for left in (tmp_path / "tmp").iterdir():
        hours_ago = left.stat().st_mtime - 2 * 3600
        os.utime(left, (hours_ago, hours_ago))
    assert storage.clean() == 3


def test_clean_needs_no_folder_of_litter(tmp_path: Path) -> None:
    assert FolderStorage(Env(), tmp_path).clean() == 0


def test_of_twenty_concurrent_processes_one_succeeds(tmp_path: Path) -> None:
    start_read, start_write = os.pipe()
    children = []
    for number in range(20):
        child = os.fork()
        if not child:
            status = 2
            try:
                storage = FolderStorage(Env(), tmp_path)
                os.close(start_write)
                os.read(start_read, 1)  # ends when the parent lets go of its end
                storage.put("commits/cell", b"%d" % number)
                status = 0
            except ObjectExists:
                status = 1
            finally:
                os._exit(status)
        children.append(child)
    os.close(start_read)
    os.close(start_write)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    assert Counter(statuses) == {0: 1, 1: 19}
    assert FolderStorage(Env(), tmp_path).read("commits/cell") == b"%d" % statuses.index(0)
    assert os.listdir(tmp_path / "tmp") == []


# Memory: what tests do with it


def test_instances_over_one_dict_share_their_objects() -> None:
    objects: dict[str, bytes] = {}
    MemoryStorage(Env(), objects=objects).put("a", b"content")

    assert MemoryStorage(Env(), objects=objects).read("a") == b"content"
    assert objects == {"a": b"content"}
    assert names(MemoryStorage(Env())) == []


def test_memory_fails_as_it_is_told() -> None:
    asked: list[tuple[str, str]] = []

    def fail(operation: str, name: str) -> Exception | None:
        asked.append((operation, name))
        return StorageFull("full") if operation == "put" and name == "a" else None

    storage = MemoryStorage(Env(), fail=fail)
    with pytest.raises(StorageFull):
        storage.put("a", b"content")
    storage.put("b", b"content")
    upload(storage, "c", b"content")
    storage.delete("b")

    assert names(storage) == ["c"]
    assert asked == [
        *[("put", "a"), ("put", "b"), ("put reply", "b"), ("create", "c"), ("finish", "c"), ("finish reply", "c")],
        *[("delete", "b"), ("delete reply", "b"), ("list", "")],
    ]


def test_memory_loses_a_reply_as_it_is_told() -> None:
    storage = MemoryStorage(Env(), fail=lambda operation, _: StorageError("lost") if "reply" in operation else None)
    with pytest.raises(StorageError, match="lost"):
        storage.put("a", b"content")

    assert storage.read("a") == b"content"
    with pytest.raises(ObjectExists):
        storage.put("a", b"content")
