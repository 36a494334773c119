# SPDX-License-Identifier: Apache-2.0
"""A restore writes what was backed up, in place only what differs, and leaves nothing half-done."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from keepstone.disks import RawSink
from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError, StorageFull, UsageError
from keepstone.objects import Buffer
from keepstone.store import ZERO_REF, LocalWriter, Outcome
from keepstone.workloads import Silent
from keepstone.workloads.images import Report, image_size, restore_image
from keepstone.workloads.images.leaf import LEAF_KIND, LEAF_SPAN, ROOT_KIND, Image
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


@pytest.mark.parametrize("place", range(3))
def test_damaged_data_is_never_restored(shelf: Shelf, tmp_path: Path, place: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(12))
    report = shelf.backup(disk)
    storage = shelf.store.context.storage
    largest = max(storage.list("packs/"), key=lambda info: info.size)
    data = bytearray(storage.read(largest.name))
    data[100 + place * (len(data) // 4)] ^= 1
    storage.delete(largest.name)
    storage.put(largest.name, data)

    with pytest.raises(CorruptObject):
        shelf.restore(report, tmp_path / "new")

    assert not (tmp_path / "new").exists()


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

    with pytest.raises(CorruptObject, match="bytes; run verify"):
        shelf.restore(forged, tmp_path / "new")

    assert not (tmp_path / "new").exists()
