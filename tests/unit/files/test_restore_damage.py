# SPDX-License-Identifier: Apache-2.0
"""Restores from a damaged store, or onto a full or failing disk: what can be had is there, the rest is named."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.env import Env, FileSystem
from keepstone.errors import AccessDenied, CorruptObject, StorageError, StorageFull
from keepstone.objects import FolderStorage
from keepstone.store import LocalReader, Store
from keepstone.store.footer import DATA
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files, walk
from keepstone.workloads.files.page import Extra
from tests.unit.files.points import Builder, Item, detail, file, folder, new_store, provider, sorted_items

pytestmark = pytest.mark.store


class Damaged:
    """A point in a folder, whose packs can be spoilt."""

    def __init__(self, env: Env, root: Path, items: list[Item]) -> None:
        self._env = env
        self._root = root
        builder = Builder(new_store(env, root), page_entries=100)
        builder.commit(builder.pages(sorted_items(items)), detail())

    def reader(self) -> LocalReader:
        """The point, opened anew."""
        store = Store.open(self._env, FolderStorage(self._env, self._root), [provider()])
        return store.reader(store.points.find("latest"))

    def frames(self, kind: int) -> list[tuple[Path, int, int]]:
        """(pack, offset, length) of every frame."""
        found = []
        store = Store.open(self._env, FolderStorage(self._env, self._root), [provider()])
        reader = store.reader(store.points.find("latest"))
        for pack, _ in reader._packs.listing():
            footer = reader._packs.footer(pack)
            if footer.kind == kind:
                path = next(self._root.rglob(pack.hex()))
                lengths = zip(footer.offsets, footer.frame_lengths, strict=False)
                found += [(path, offset, length) for offset, length in lengths]
        return found

    def flip(self, frame: tuple[Path, int, int]) -> None:
        """Change one bit of a frame."""
        path, offset, length = frame
        path.chmod(0o600)
        with path.open("r+b") as pack:
            pack.seek(offset + length // 2)
            byte = pack.read(1)[0]
            pack.seek(offset + length // 2)
            pack.write(bytes([byte ^ 0x10]))


def contents(count: int, seed: int = 1) -> dict[str, list[bytes]]:
    """Files of one to three chunks each; some share theirs."""
    chance = random.Random(seed)
    made = {f"{number:03d}": [chance.randbytes(100_000) for _ in range(1 + number % 3)] for number in range(count)}
    made["shares 000"] = made["000"]
    made["shares 002"] = [b"before", *made["002"]]
    return made


def items(made: dict[str, list[bytes]]) -> list[Item]:
    """The same as entries, half of them in a directory."""
    inner = [file(name.encode(), *chunks) for name, chunks in made.items() if int(name[-1]) % 2]
    outer = [file(name.encode(), *chunks) for name, chunks in made.items() if not int(name[-1]) % 2]
    return [*outer, folder(b"d", *inner)]


def restored(target: Path) -> dict[str, bytes]:
    """What is there, by name."""
    return {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_damaged_frames_cost_only_the_files_that_need_them(env: Env, tmp_path: Path) -> None:
    made = contents(60)
    damaged = Damaged(env, tmp_path / "store", items(made))
    frames = damaged.frames(DATA)
    for frame in random.Random(5).sample(frames, 7):
        damaged.flip(frame)
    reader = damaged.reader()
    readable = {}
    for path, _, refs in walk(reader):
        whole: list[bytes] = []
        for ref in refs:
            try:
                reader.fetch([(ref, None)], lambda _, chunk, whole=whole: whole.append(bytes(chunk)))  # type: ignore[misc]
            except CorruptObject:
                break
        name = os.path.basename(os.fsdecode(path))
        if name != "d" and len(whole) == len(refs):
            readable[name] = b"".join(whole)
    progress = Silent()

    report = restore_files(env, damaged.reader(), tmp_path / "target", RestoreOptions(), progress)

    assert restored(tmp_path / "target") == readable
    assert 0 < len(readable) < len(made)
    assert {os.path.basename(path).decode() for path, _ in report.failed} == made.keys() - readable.keys()
    assert all("packs/" in reason for _, reason in report.failed)
    assert sorted(progress.warnings) == report.failed
    assert report.files == len(readable)


def test_a_pack_that_is_gone(env: Env, tmp_path: Path) -> None:
    made = contents(700, seed=2)
    damaged = Damaged(env, tmp_path / "store", items(made))
    packs = sorted({path for path, _, _ in damaged.frames(DATA)})
    assert len(packs) > 2
    packs[1].unlink()

    report = restore_files(env, damaged.reader(), tmp_path / "target", RestoreOptions(), Silent())

    found = restored(tmp_path / "target")
    assert all(found[name] == b"".join(made[name]) for name in found)
    assert {os.path.basename(path).decode() for path, _ in report.failed} == made.keys() - found.keys()
    assert 0 < len(found) < len(made)


def test_a_damaged_page_costs_its_entries(env: Env, tmp_path: Path) -> None:
    """The rest of the directory, and of the tree, is restored; the report names the directory."""
    lost = [file(b"x%03d" % number, b"%d" % number) for number in range(100)]
    store = new_store(env, tmp_path / "store")
    builder = Builder(store, page_entries=100)
    first = builder.pages([file(b"a%03d" % number, b"%d" % number) for number in range(100)])
    broken = builder.node([], [], b"no page")
    last = builder.pages(lost)
    builder.commit([*first, broken, *last], detail())

    report = restore_files(
        env, store.reader(store.points.find("latest")), tmp_path / "target", RestoreOptions(), Silent()
    )

    assert len(restored(tmp_path / "target")) == 200
    assert [path for path, _ in report.failed] == [b"."]


def test_a_damaged_page_protects_its_directory_from_deletion(env: Env, tmp_path: Path) -> None:
    store = new_store(env, tmp_path / "store")
    builder = Builder(store)
    builder.commit([builder.node([], [], b"no page")], detail())
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").touch()

    options = RestoreOptions(in_place=True, delete=True)
    report = restore_files(env, store.reader(store.points.find("latest")), target, options, Silent())

    assert (target / "mine").exists()
    assert report.deleted == 0


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (file(b"f", b"12345", size=6), "length"),
        (file(b"f", b"12345", size=4), "length"),
        (file(b"f", b"12345", b"6", size=5), "longer"),
        (file(b"f", b"12345", b"6", size=7), "shorter"),
        (file(b"f", size=7), "content"),
        (file(b"f", b"1", size=7, extra=Extra(extents=[(0, 2)])), "shorter"),
        (file(b"f", b"1", size=7, extra=Extra(extents=[(0, 0)])), "extents"),
        (file(b"f", b"123", size=7, extra=Extra(extents=[(2, 1), (0, 2)])), "extents"),
        (file(b"f", b"123", size=7, extra=Extra(extents=[(5, 3)])), "end"),
        (file(b"f", b"123", size=7, extra=Extra(extents=[(-1, 3)])), "extents"),
        (file(b"f", b"x", size=1 << 62, extra=Extra(extents=[(1 << 61, 1)])), "large"),
    ],
)
def test_an_impossible_file_is_left_out(env: Env, tmp_path: Path, item: Item, reason: str) -> None:
    damaged = Damaged(env, tmp_path / "store", [item, file(b"good", b"good")])

    report = restore_files(env, damaged.reader(), tmp_path / "target", RestoreOptions(), Silent())

    assert restored(tmp_path / "target") == {"good": b"good"}
    ((path, why),) = report.failed
    assert path == b"f"
    assert reason in why


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    (tmp_path / "tiny").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path / "tiny")], check=True)
    yield tmp_path / "tiny"
    subprocess.run(["umount", "-l", str(tmp_path / "tiny")], check=True)


@pytest.mark.parametrize("large", [False, True])
def test_a_full_disk_is_named_and_leaves_no_partial_file(env: Env, tiny: Path, tmp_path: Path, large: bool) -> None:
    chance = random.Random(3)
    if large:
        made = {"big": [chance.randbytes(1 << 20) for _ in range(12)]}
    else:
        made = {f"{number:03d}": [chance.randbytes(100_000)] for number in range(120)}
    damaged = Damaged(env, tmp_path / "store", [file(name.encode(), *chunks) for name, chunks in made.items()])

    with pytest.raises(StorageFull, match="big" if large else r"\d{3}: No space"):
        restore_files(env, damaged.reader(), tiny / "target", RestoreOptions(), Silent())

    found = restored(tiny / "target")
    assert all(found[name] == b"".join(made[name]) for name in found)
    assert bool(found) is not large
    assert len(found) < len(made)


def test_a_full_disk_leaves_what_is_to_be_replaced(env: Env, tiny: Path, tmp_path: Path) -> None:
    """In place, what is there goes only when its successor is complete."""
    chance = random.Random(4)
    damaged = Damaged(env, tmp_path / "store", [file(b"big", *[chance.randbytes(1 << 20) for _ in range(6)])])
    (tiny / "big").write_bytes(b"o" * (5 << 20))

    with pytest.raises(StorageFull, match="big"):
        restore_files(env, damaged.reader(), tiny, RestoreOptions(in_place=True), Silent())

    assert restored(tiny) == {"big": b"o" * (5 << 20)}


class Failing(FileSystem):
    """Raises an error at one of the calls of a kind that concern the target."""

    def __init__(self, call: str, at: int, code: int) -> None:
        self.count = 0
        lock = threading.Lock()
        real = getattr(FileSystem, call)

        def failing(*args: object, **rest: object) -> object:
            with lock:
                self.count += 1
                count = self.count
            if count == at:
                raise OSError(code, os.strerror(code))
            return real(*args, **rest)

        setattr(self, call, failing)


CALLS = (
    "mkdir",
    "pwritev",
    "pwrite",
    "ftruncate",
    "chmod",
    "fchown",
    "chown",
    "utime",
    "symlink",
    "mknod",
    "link",
    "setxattr",
)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("call", CALLS)
def test_a_failing_call_never_leaves_a_wrong_file(tmp_path: Path, call: str, code: int) -> None:
    """An entry whose call was refused is absent or reported; a disk that fails ends the restore."""
    chance = random.Random(6)
    parts = [chance.randbytes(150_000) for _ in range(3)]
    inner = [
        file(b"s", b"small", mode=0o4755, extra=Extra(xattrs={b"user.a": b"1"})),
        file(b"l", *parts, uid=1, gid=1),
        file(b"h", b"h", inode=3, extra=Extra(link=(1, 2))),
        Item(b"k", 0o120777, extra=Extra(target=b"t")),
        Item(b"p", 0o010644),
        file(b"z", b"h", inode=3, extra=Extra(link=(1, 2))),
    ]
    plain = Env(threads=2)
    damaged = Damaged(plain, tmp_path / "store", [folder(b"d", *inner), file(b"e", b"e")])
    wanted = {"s": b"small", "l": b"".join(parts), "h": b"h", "z": b"h", "e": b"e"}
    seen = 0
    for at in range(1, 30):
        target = tmp_path / f"target-{at}"
        fs = Failing(call, at, code)
        try:
            report = restore_files(Env(threads=2, fs=fs), damaged.reader(), target, RestoreOptions(), Silent())
            said = {os.path.basename(path).decode() for path, _ in (*report.failed, *report.warnings)}
            ended = False
        except AccessDenied:
            assert (call, at) == ("mkdir", 1)
            said, ended = set(), True
        except StorageError:
            assert code != errno.EACCES
            said, ended = set(), True
        if fs.count < at:
            break
        seen += 1
        found = restored(target) if target.exists() else {}
        assert all(content == wanted[name] for name, content in found.items())
        if not ended:
            assert said
            gone = wanted.keys() - found.keys()
            assert gone <= said or "d" in said
    assert seen > 0
