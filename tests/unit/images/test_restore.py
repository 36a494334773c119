# SPDX-License-Identifier: Apache-2.0
"""A restore writes what was backed up, in place only what differs, and leaves nothing half-done."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import msgspec
import pytest

from keepstone.disks import RawSink, RawSource
from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, StorageFull, UsageError
from keepstone.objects import Buffer
from keepstone.store import ZERO_REF, LocalReader, LocalWriter, Node, Outcome
from keepstone.workloads import Silent
from keepstone.workloads.images import Lost, Report, backup_image, image_size, restore_image
from keepstone.workloads.images.leaf import LEAF_KIND, LEAF_SPAN, ROOT_KIND, Image, read_root
from tests.unit.images.disk import CHUNK, Count, Shelf, noise, patch, sparse

pytestmark = pytest.mark.store


def test_in_place_writes_only_what_differs(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(50.3) + bytes(4 * CHUNK))
    report = shelf.backup(disk)
    content = disk.read_bytes()
    patch(disk, {3 * CHUNK + 1: b"x", 20 * CHUNK: bytes(CHUNK), 52 * CHUNK: b"no longer zero"})
    count = Count()

    sink = shelf.restore_over(report, disk, count)

    assert disk.read_bytes() == content
    assert (sink.written, sink.zeroed) == ({3, 20}, {52})
    assert count.done == count.expected == len(content)
    assert count.reused == len(content) - 2 * CHUNK


def test_in_place_over_a_hole_and_of_a_hole(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 2 * LEAF_SPAN, {5 * CHUNK: noise(2), LEAF_SPAN: noise(1, 2)})
    report = shelf.backup(disk)
    target = sparse(tmp_path / "target", 2 * LEAF_SPAN, {5 * CHUNK: noise(1), LEAF_SPAN + 9 * CHUNK: noise(1, 3)})

    sink = shelf.restore_over(report, target)

    assert (sink.written, sink.zeroed) == ({6, LEAF_SPAN // CHUNK}, {LEAF_SPAN // CHUNK + 9})
    assert target.stat().st_blocks == disk.stat().st_blocks
    assert shelf.restore_over(report, target).written == set()


@pytest.mark.parametrize("size", [0, 3 * CHUNK + 7, 30 * CHUNK])
def test_in_place_over_a_file_of_another_length(shelf: Shelf, tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(10.1))
    report = shelf.backup(disk)
    content = disk.read_bytes()
    target = tmp_path / "target"
    target.write_bytes((content + noise(20, 1))[:size])

    shelf.restore_over(report, target)

    assert target.read_bytes() == content


class Broken(RawSink):
    """A disk that becomes full."""

    def write(self, offset: int, data: Buffer) -> None:
        if offset:
            raise StorageFull("no room")
        super().write(offset, data)


def test_failing_target_is_removed(shelf: Shelf, env: Env, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(60))
    report = shelf.backup(disk)
    target = tmp_path / "new"

    with shelf.store.reader(shelf.point(report)) as reader, pytest.raises(StorageFull):
        restore_image(env, reader, Broken(env, target, image_size(reader)), Silent())

    assert not target.exists()


class Interrupting(RawSink):
    """Interrupts the main thread again and again while it writes, and notes whether it is let go of meanwhile."""

    writing = 0
    wrong = False

    def write(self, offset: int, data: Buffer) -> None:
        self.writing += 1
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.02)
        super().write(offset, data)
        self.writing -= 1

    def abort(self) -> None:
        self.wrong = self.wrong or self.writing > 0
        super().abort()


def test_interrupted_restore_ends_before_its_target_is_let_go_of(shelf: Shelf, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(160))  # more than all buffers hold: it is not over while the first of them is written
    report = shelf.backup(disk)
    env = Env(threads=1)

    with shelf.store.reader(shelf.point(report)) as reader:
        sink = Interrupting(env, tmp_path / "new", image_size(reader))
        with pytest.raises(KeyboardInterrupt):
            try:
                with sink:
                    restore_image(env, reader, sink, Silent())
            finally:
                sink.abort()

    assert not sink.wrong
    assert not (tmp_path / "new").exists()


def test_small_target_is_refused_before_anything_is_written(shelf: Shelf, env: Env, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(2))
    report = shelf.backup(disk)
    target = tmp_path / "new"

    with shelf.store.reader(shelf.point(report)) as reader, pytest.raises(UsageError, match="larger"):
        restore_image(env, reader, RawSink(env, target, CHUNK), Silent())

    assert not target.exists()


def test_larger_target_keeps_its_rest(shelf: Shelf, env: Env, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(2))
    report = shelf.backup(disk)
    target = tmp_path / "target"
    target.write_bytes(noise(4, 1))

    with shelf.store.reader(shelf.point(report)) as reader:
        restore_image(env, reader, RawSink(env, target, 4 * CHUNK, overwrite=True), Silent())

    assert target.read_bytes() == disk.read_bytes() + noise(4, 1)[2 * CHUNK :]


def damage(shelf: Shelf, at: float) -> None:
    """Flip a bit of the largest pack."""
    storage = shelf.store.context.storage
    name = max(storage.list("packs/"), key=lambda info: info.size).name
    data = bytearray(storage.read(name))
    data[int(len(data) * at)] ^= 1
    storage.delete(name)
    storage.put(name, data)


@pytest.mark.parametrize("at", [0.01, 0.3, 0.6])
def test_damaged_data_is_left_out_and_named(shelf: Shelf, tmp_path: Path, at: float) -> None:
    """Every other byte is restored; what is lost reads as zeros in a new file, and as before in an old one."""
    disk = tmp_path / "disk"
    disk.write_bytes(noise(30.5))
    content = disk.read_bytes()
    report = shelf.backup(disk)
    damage(shelf, at)
    progress = Count()
    old = tmp_path / "old"
    old.write_bytes(noise(30.5, 1))

    lost = shelf.salvage(report, tmp_path / "new", progress)
    shelf.restore_over(report, old)

    assert 0 < sum(piece.length for piece in lost) <= 8 * CHUNK
    new, before, expected = (tmp_path / "new").read_bytes(), noise(30.5, 1), [bytearray(content), bytearray(content)]
    for piece in lost:
        end = piece.offset + piece.length
        expected[0][piece.offset : end] = bytes(piece.length)
        expected[1][piece.offset : end] = before[piece.offset : end]
        assert "packs/" in piece.reason
    assert [new, old.read_bytes()] == expected
    assert progress.warnings == [f"{piece.where} are not restored: {piece.reason}" for piece in lost]
    assert shelf.restore_over(report, disk).written == set()
    assert disk.read_bytes() == content


def test_damaged_leaf_costs_its_span(shelf: Shelf, env: Env, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 2 * LEAF_SPAN + CHUNK, {0: noise(2), 2 * LEAF_SPAN: noise(1, 2)})
    with shelf.store.writer("disk", "images") as writer, RawSource(env, disk) as source:
        report = backup_image(env, writer, source, Silent(), name=b"disk")
    reader = shelf.reader(report)
    bad = read_root(reader, reader.root())[2][0]
    before = LocalReader.node

    def node(self: LocalReader, ref: int) -> Node:
        if ref == bad:
            raise ObjectMissing("packs/gone")
        return before(self, ref)

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(LocalReader, "node", node)
        lost = shelf.salvage(report, tmp_path / "new")

    assert lost == [Lost(0, LEAF_SPAN, "packs/gone")]
    with (tmp_path / "new").open("rb") as new:
        assert new.read(2 * CHUNK) == bytes(2 * CHUNK)
        new.seek(2 * LEAF_SPAN)
        assert new.read() == noise(1, 2)


def test_a_pack_that_is_gone_costs_its_chunks(shelf: Shelf, tmp_path: Path) -> None:
    """Also in place, where chunks are compared by ids that are gone with it."""
    disk = tmp_path / "disk"
    disk.write_bytes(noise(3))
    shelf.backup(disk)
    patch(disk, {3 * CHUNK: noise(2, 1)})
    report = shelf.backup(disk)
    content = disk.read_bytes()
    storage = shelf.store.context.storage
    storage.delete(max(storage.list("packs/"), key=lambda info: info.size).name)
    patch(disk, {3 * CHUNK: bytes(5)})

    lost = shelf.salvage(report, tmp_path / "new")
    shelf.restore_over(report, disk)

    assert [(piece.offset, piece.length) for piece in lost] == [(0, 3 * CHUNK)]
    assert (tmp_path / "new").read_bytes() == bytes(3 * CHUNK) + content[3 * CHUNK :]
    assert disk.read_bytes() == content


def committed(writer: LocalWriter, root: list[int]) -> Report:
    outcome = Outcome(root=root, detail=b"", source=b"", logical=0, read=0, files=1, warnings=0)
    return Report(writer.commit(outcome), 0, 0, 0)


FORMS = {
    "no root": (None, [1], 0),
    "other kind": (msgspec.msgpack.encode(Image(CHUNK)), [1], 1),
    "no body": (b"", [1], 0),
    "other body": (b"\xc1\xc1", [1], 0),
    "negative size": (msgspec.msgpack.encode(Image(-1)), [], 0),
    "too many leaves": (msgspec.msgpack.encode(Image(CHUNK)), [1, 1], 0),
    "missing leaf": (msgspec.msgpack.encode(Image(LEAF_SPAN + 1)), [LEAF_SPAN // CHUNK], 0),
    "huge size": (msgspec.msgpack.encode(Image(2**62)), [1], 0),
    "leaf too long": (msgspec.msgpack.encode(Image(CHUNK)), [2], 0),
    "leaf too short": (msgspec.msgpack.encode(Image(2 * CHUNK)), [1], 0),
    "no chunk": (msgspec.msgpack.encode(Image(CHUNK, 0)), [1], 0),
    "odd chunk": (msgspec.msgpack.encode(Image(CHUNK, 5000)), [1], 0),
    "huge chunk": (msgspec.msgpack.encode(Image(CHUNK, 2**40)), [1], 0),
}


@pytest.mark.parametrize("form", FORMS)
def test_manifest_of_another_form_is_corrupt(shelf: Shelf, env: Env, tmp_path: Path, form: str) -> None:
    body, leaves, other = FORMS[form]
    with shelf.store.writer("disk", "images") as writer:
        children = [writer.put_node(LEAF_KIND, [ZERO_REF] * chunks, [], b"") for chunks in leaves]
        kind = "other" if other else ROOT_KIND
        root = [] if body is None else [writer.put_node(kind, [], children, body)]
        report = committed(writer, root)

    with pytest.raises(KeepstoneError) as caught, shelf.store.reader(shelf.point(report)) as reader:
        restore_image(env, reader, RawSink(env, tmp_path / "new", 4 * CHUNK), Silent())

    if form != "huge size":  # is too large for the target as well
        assert isinstance(caught.value, CorruptObject)
    assert not (tmp_path / "new").exists()


def test_chunk_of_another_length_is_corrupt(shelf: Shelf, env: Env, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(1.5))
    report = shelf.backup(disk)
    reader = shelf.reader(report)
    with shelf.store.writer("disk", "images") as writer:
        (leaf,) = writer.child_refs(writer.node(writer.parent_root()[0]))
        refs = writer.chunk_refs(writer.node(leaf))
        swapped = writer.put_node(LEAF_KIND, refs[::-1], [], b"")
        root = writer.put_node(ROOT_KIND, [], [swapped], reader.node(reader.root()[0]).body)
        forged = committed(writer, [root])

    with pytest.raises(CorruptObject, match="bytes; run `keepstone store verify`"):
        shelf.restore(forged, tmp_path / "new")

    assert not (tmp_path / "new").exists()
