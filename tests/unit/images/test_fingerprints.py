# SPDX-License-Identifier: Apache-2.0
"""A chunk that did not change is taken over by its fingerprint, and one that changed never is."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.crypto import Blake3Hashing, BlockMac
from keepstone.disks import RawSource
from keepstone.env import Env, FileSystem
from keepstone.errors import SourceFailed
from keepstone.objects import MemoryStorage
from keepstone.store import DiskMemory, LocalWriter, Store
from keepstone.workloads import Silent
from keepstone.workloads.images import backup_image
from keepstone.workloads.images.leaf import LEAF_SPAN
from tests.descriptors import descriptors
from tests.unit.files.points import provider
from tests.unit.images.disk import CHUNK, Count, Shelf, naming, noise, patch, sparse
from tests.unit.images.test_backup import Shrinking
from tests.unit.images.test_changes import Tracked

pytestmark = pytest.mark.store

SIZE = BlockMac.SIZE
CODES = 86


def new_shelf(cache: Path | None, env: Env | None = None, hashing: str = "blake3") -> Shelf:
    """A store in memory of a machine that has this cache."""
    env = env or Env(threads=2)
    return Shelf(env, Store.init(env, MemoryStorage(env), [provider()], cache=cache, hashing_name=hashing))


@pytest.fixture(params=["blake3", "hmac-sha256"])
def shelf(tmp_path: Path, request: pytest.FixtureRequest) -> Shelf:
    return new_shelf(tmp_path / "cache", hashing=request.param)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of what a writer named by its id."""
    return naming(monkeypatch, LocalWriter)


def memories(shelf: Shelf) -> list[Path]:
    """The files of the cache that fingerprints are in."""
    assert shelf.store.cache is not None
    return sorted((shelf.store.cache / "fingerprints").iterdir())


def test_what_did_not_change_is_not_named(shelf: Shelf, tmp_path: Path, named: list[int]) -> None:
    disk = sparse(
        tmp_path / "disk", LEAF_SPAN + 20 * CHUNK + 99, {0: noise(40), LEAF_SPAN: noise(20), 50 * CHUNK: b"1"}
    )
    shelf.backup(disk)
    assert named.count(CHUNK) == 61
    patch(disk, {7 * CHUNK + 99: b"new", 9 * CHUNK: bytes(CHUNK), 45 * CHUNK: noise(1, 2), LEAF_SPAN + CHUNK: b"new"})
    named.clear()
    count = Count()

    report = shelf.backup(disk, count)

    assert named.count(CHUNK) == 3
    assert shelf.point(report).record.added == 3 * CHUNK
    assert count.done - count.reused == 3 * CHUNK
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()
    named.clear()
    assert shelf.point(shelf.backup(disk)).record.stored == 0
    assert CHUNK not in named


def test_the_file_has_a_place_for_each_chunk(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 12 * CHUNK + 5, {0: noise(1) * 2, 4 * CHUNK: noise(1), 12 * CHUNK: b"end"})

    shelf.backup(disk)

    (file,) = memories(shelf)
    column = file.read_bytes()[CODES:]
    found = [column[at : at + SIZE] for at in range(0, len(column), SIZE)]
    assert [number for number, one in enumerate(found) if one != bytes(SIZE)] == [0, 1, 4, 12]
    assert len(set(found)) == 5  # the same chunk has another code in another place
    assert file.stat().st_mode & 0o777 == 0o600
    shelf.backup(disk)
    (again,) = memories(shelf)
    assert again == file
    assert not {column[at : at + SIZE] for at in (0, 64)} & {again.read_bytes()[CODES + at :][:SIZE] for at in (0, 64)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_is_seen(data: st.DataObject) -> None:
    """Whatever becomes of a disk and of what is remembered of it, its points are what it was."""
    content, kept = bytearray(noise(5.5)), [bytearray()]
    with tempfile.TemporaryDirectory() as folder:
        shelf = new_shelf(Path(folder, "cache"))
        disk, new = Path(folder, "disk"), Path(folder, "new")
        for _ in range(data.draw(st.integers(2, 4))):
            for _ in range(data.draw(st.integers(0, 3))):
                change(data, content)
            disk.write_bytes(content)
            assert shelf.restore(shelf.backup(disk), new).read_bytes() == content
            new.unlink()
            for file in memories(shelf):
                kept.append(bytearray(file.read_bytes()))
                if data.draw(st.booleans()):
                    file.write_bytes(spoiled(data, kept))


def change(data: st.DataObject, content: bytearray) -> None:
    """Something that happens to a disk."""
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    first = at // CHUNK * CHUNK
    match data.draw(st.sampled_from(["bit", "zeros", "exchanged", "shorter", "longer"])):
        case "bit":
            content[at : at + 1] = bytes([content[at] ^ 1 << data.draw(st.integers(0, 7))] if content else [])
        case "zeros":
            content[first : first + CHUNK] = bytes(len(content[first : first + CHUNK]))
        case "exchanged" if first:
            content[first : first + CHUNK], content[:CHUNK] = content[:CHUNK], content[first : first + CHUNK]
        case "shorter":
            del content[at:]
        case "longer":
            content += noise(0.7, at)


def spoiled(data: st.DataObject, kept: list[bytearray]) -> bytes:
    """What somebody may have put in the place of the newest file: part of it, an older one, or both mixed."""
    one, other = kept[-1], data.draw(st.sampled_from(kept))
    at = data.draw(st.integers(0, len(one)))
    return bytes(data.draw(st.sampled_from([one[:at], other, one[:at] + other[at:], other[:at] + one[at:], one + one])))


@pytest.mark.parametrize("at", [0, 6, 38, 70, CODES, CODES + SIZE - 1])
def test_a_bit_that_flipped_costs_time_alone(shelf: Shelf, tmp_path: Path, named: list[int], at: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(5))
    shelf.backup(disk)
    (file,) = memories(shelf)
    patch(file, {at: bytes([file.read_bytes()[at] ^ 4])})
    patch(disk, {CHUNK: b"new"})
    named.clear()

    report = shelf.backup(disk)

    assert named.count(CHUNK) == (5 if at < CODES else 2)
    assert shelf.point(report).record.added == CHUNK
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()


def test_the_file_of_another_point_says_nothing(shelf: Shelf, tmp_path: Path, named: list[int]) -> None:
    """The disk went back to what it was two points ago, and so did the cache: the parent is the point between."""
    disk, old = tmp_path / "disk", tmp_path / "old"
    disk.write_bytes(noise(5))
    shelf.backup(disk)
    (file,) = memories(shelf)
    shutil.copy(file, old)
    patch(disk, {CHUNK: noise(1, 2)})
    shelf.backup(disk)
    disk.write_bytes(noise(5))
    shutil.copy(old, file)
    named.clear()

    report = shelf.backup(disk)

    assert named.count(CHUNK) == 5
    assert shelf.restore(report, tmp_path / "new").read_bytes() == noise(5)


def test_two_disks_have_files_of_their_own(env: Env, tmp_path: Path) -> None:
    def remembered(parent: str, disk: str) -> bool:
        memory = DiskMemory(env, tmp_path, "item", lambda text: Blake3Hashing().keyed(bytes(32), text), parent)
        fingerprints = memory.of(disk)
        assert fingerprints is not None
        column = fingerprints.column(0, 1)
        same = column.same(0, b"chunk")
        column.close()
        if parent == "":
            memory.keep("point")
        memory.close()
        return same

    for disk in ("a", "b"):
        assert not remembered("", disk)
    one, other = tmp_path.iterdir()
    assert remembered("point", "a")
    assert remembered("point", "b")
    assert not remembered("another", "a")
    other.write_bytes(one.read_bytes())
    assert {remembered("point", "a"), remembered("point", "b")} == {True, False}


def test_no_more_is_kept_than_may_be(env: Env, tmp_path: Path) -> None:
    def keep(chunks: int) -> list[int]:
        memory = DiskMemory(env, tmp_path, "item", lambda text: Blake3Hashing().keyed(bytes(32), text), "", most=150)
        fingerprints = memory.of("disk")
        assert fingerprints is not None
        column = fingerprints.column(0, chunks)
        for index in range(chunks):
            column.same(index, b"chunk")
        column.close()
        memory.keep("point")
        return [file.stat().st_size for file in tmp_path.iterdir()]

    assert keep(5) == []
    assert keep(4) == [CODES + 4 * SIZE]


def test_items_have_files_of_their_own(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(2))
    for item in ("disk", "other"):
        with shelf.store.writer(item, "images") as writer, RawSource(shelf.env, disk) as source:
            backup_image(shelf.env, writer, source, Silent(), name=b"x")
    one, other = memories(shelf)
    shutil.copy(one, tmp_path / "one")
    shutil.copy(other, one)
    shutil.copy(tmp_path / "one", other)

    report = shelf.backup(disk)

    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()


def test_a_backup_that_fails_leaves_what_was_remembered(shelf: Shelf, tmp_path: Path, named: list[int]) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(40))
    shelf.backup(disk)
    (file,) = memories(shelf)
    before, files = file.read_bytes(), len(descriptors())
    shutil.copy(disk, tmp_path / "whole")

    with pytest.raises(SourceFailed):
        shelf.backup(Shrinking(shelf.env, disk))

    assert memories(shelf) == [file]
    assert file.read_bytes() == before
    assert len(os.listdir("/proc/self/fd")) == files
    shutil.copy(tmp_path / "whole", disk)
    named.clear()
    assert shelf.point(shelf.backup(disk)).record.added == 0
    assert CHUNK not in named


class Refusing(FileSystem):
    """A file system that does not do one thing."""

    def __init__(self, call: str) -> None:
        def refuse(*_: object, **__: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        setattr(self, call, refuse)


@pytest.mark.parametrize("call", ["open", "pwrite", "pread", "link", "rename", "listdir", "lstat", "unlink", "close"])
def test_a_cache_that_cannot_be_used_is_no_failure(tmp_path: Path, call: str) -> None:
    shelf = new_shelf(tmp_path / "cache")
    disk = tmp_path / "disk"
    disk.write_bytes(noise(5))
    shelf.backup(disk)
    patch(disk, {CHUNK: b"new"})
    source = RawSource(Env(), disk)
    shelf.store.context.env.fs = Refusing(call)

    report = shelf.backup(source)

    shelf.store.context.env.fs = FileSystem()
    assert shelf.point(report).record.added == CHUNK
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()
    assert shelf.point(shelf.backup(disk)).record.added == 0


def test_without_a_cache_nothing_is_remembered(tmp_path: Path, named: list[int]) -> None:
    shelf = new_shelf(None)
    disk = tmp_path / "disk"
    disk.write_bytes(noise(5))
    shelf.backup(disk)
    named.clear()

    assert shelf.point(shelf.backup(disk)).record.added == 0
    assert named.count(CHUNK) == 5


def test_what_a_killed_process_had_begun_has_no_name(shelf: Shelf, tmp_path: Path) -> None:
    with shelf.store.writer("disk", "images") as writer:
        fingerprints = writer.fingerprints("")
        assert fingerprints is not None
        fingerprints.note(0, bytes(100))
        assert memories(shelf) == []


def test_files_that_nobody_makes_anew_go(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(1))
    shelf.backup(disk)
    (file,) = memories(shelf)
    old, young = file.with_name("old"), file.with_name("young")
    for other, days in ((old, 91), (young, 89)):
        other.write_bytes(b"x")
        os.utime(other, ns=(0, shelf.env.wall_time() - days * 86_400 * 10**9))

    shelf.backup(disk)

    assert memories(shelf) == [file, young]


def test_a_chunk_that_may_go_is_not_taken_over(shelf: Shelf, tmp_path: Path) -> None:
    """A pack in which somebody found damage: what is in it is stored anew, though it did not change."""
    disk = tmp_path / "disk"
    disk.write_bytes(noise(5))
    first = shelf.backup(disk)
    reader = shelf.reader(first)
    (pack,) = {reader.node(ref).packs.hex() for ref in reader.child_refs(reader.node(reader.root()[0]))}
    shelf.store.damaged = frozenset([f"packs/{pack[:2]}/{pack}"])

    report = shelf.backup(disk)

    assert shelf.point(report).record.added == 5 * CHUNK
    shelf.store.context.storage.delete(f"packs/{pack[:2]}/{pack}")
    assert shelf.restore(report, tmp_path / "new").read_bytes() == disk.read_bytes()


def test_a_disk_that_tracks_its_changes_has_none(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(5))

    shelf.backup(Tracked(shelf.env, disk, "one"))

    assert shelf.store.cache is not None
    assert not (shelf.store.cache / "fingerprints").exists()
