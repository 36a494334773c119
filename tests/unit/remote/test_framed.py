# SPDX-License-Identifier: Apache-2.0
"""Chunks that come in the frames that they are stored in."""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.control.sessions import reading
from keepstone.disks import RawSink
from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.remote import service
from keepstone.remote.framed import Taker, framed, unframed
from keepstone.remote.reader import RemoteReader
from keepstone.remote.wire import CHUNK_HEAD, FRAMED, Fetch, chunk_head, parse_chunk_head
from keepstone.store import StoredFrame
from keepstone.store.frame import CODEC_RAW, CODEC_ZSTD, MAX_FRAME, compressed
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from keepstone.workloads.files.restore.contents import Contents
from keepstone.workloads.images import image_size, restore_image
from tests.unit.files.points import new_store
from tests.unit.images.disk import CHUNK, noise, sparse

from .far import DirectPoint, Far

pytestmark = pytest.mark.agents

TEXT = b"to be compressed, and that by a good deal. " * 8000


def alone(far: Far, commit: str) -> tuple[DirectPoint, RemoteReader]:
    """A point as the machine reads it that brought all that there is."""
    point = far.far(commit)
    point.readings.alone = True
    opened = point.open()
    assert opened.frames
    return point, RemoteReader(far.env, point, opened, far.veil(opened))


def kinds(point: DirectPoint) -> list[bool]:
    """Of each piece of the answers, whether it is a frame."""
    data, at, found = memoryview(b"".join(point.pieces)), 0, []
    while at < len(data):
        node, _, length = parse_chunk_head(data[at : at + CHUNK_HEAD])
        found.append(node == FRAMED)
        at += CHUNK_HEAD + length
    return found


def image(tmp_path: Path) -> tuple[Far, Path]:
    far = Far(Env(threads=2), new_store(Env()), "disk")
    some = {20 * CHUNK: noise(2, 1), 30 * CHUNK: TEXT, 40 * CHUNK: b"end"}
    many = {number * CHUNK: (b"%d " % number) * 50_000 for number in range(12)}
    return far, sparse(tmp_path / "disk", 40 * CHUNK + 512, many | some)


def test_a_disk(tmp_path: Path) -> None:
    """In frames, and with far fewer bytes."""
    far, disk = image(tmp_path)
    report = far.back_up_image(disk)
    point, reader = alone(far, report.commit)

    with reader:
        sink = RawSink(far.env, tmp_path / "target", image_size(reader))
        assert restore_image(far.env, reader, sink, Silent()) == []

    assert (tmp_path / "target").read_bytes() == disk.read_bytes()
    assert all(kinds(point))
    assert sum(map(len, point.pieces)) < 3 * CHUNK


def test_a_tree(tmp_path: Path) -> None:
    """Also where only some of a frame is wanted, which then goes as ever."""
    far = Far(Env(threads=2), new_store(Env()))
    root = tmp_path / "source"
    root.mkdir()
    for number in range(40):
        (root / f"{number}").write_bytes(b"%d " % number * 3000)
    report = far.back_up(root)
    for paths, frames in (((), True), ((b"3", b"17"), False)):
        point, reader = alone(far, report.commit)
        target = tmp_path / f"target{len(paths)}"
        with reader:
            restore_files(far.env, reader, target, RestoreOptions(paths=paths), Silent())
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {
            path.name: path.read_bytes() for path in root.iterdir() if not paths or os.fsencode(path.name) in paths
        }
        assert any(kinds(point)) is frames


def test_batches_end_between_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far, disk = image(tmp_path)
    report = far.back_up_image(disk)
    monkeypatch.setattr(reading, "_BATCH", 3 * CHUNK)  # and frames have six
    point, reader = alone(far, report.commit)

    with reader:
        sink = RawSink(far.env, tmp_path / "target", image_size(reader))
        assert restore_image(far.env, reader, sink, Silent()) == []

    assert (tmp_path / "target").read_bytes() == disk.read_bytes()
    assert all(kinds(point))


def test_somebody_begins_to_write_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before is not sent, and read again, one by one."""
    far, disk = image(tmp_path)
    report = far.back_up_image(disk)
    point, reader = alone(far, report.commit)
    asked = iter((True, False))
    monkeypatch.setattr(point.readings, "_framed", lambda one, machine: next(asked, False))

    with reader:
        sink = RawSink(far.env, tmp_path / "target", image_size(reader))
        assert restore_image(far.env, reader, sink, Silent()) == []

    assert (tmp_path / "target").read_bytes() == disk.read_bytes()
    assert not any(kinds(point))


def test_one_that_is_damaged(tmp_path: Path) -> None:
    """All others come, and it is said."""
    far, disk = image(tmp_path)
    report = far.back_up_image(disk)
    storage = far.store.context.storage
    name = max((one for one in storage.list("packs/")), key=lambda one: one.size).name
    data = bytearray(storage.read(name))
    data[5000] ^= 1
    storage.delete(name)
    storage.put(name, bytes(data))
    point, reader = alone(far, report.commit)

    with reader:
        sink = RawSink(far.env, tmp_path / "target", image_size(reader))
        assert restore_image(far.env, reader, sink, Silent())

    assert sum(kinds(point)) > 1
    assert (tmp_path / "target").read_bytes()[: 12 * CHUNK] == disk.read_bytes()[: 12 * CHUNK]


def test_a_service_that_lies(tmp_path: Path) -> None:
    """Every chunk out of a frame is compared with its id."""
    far, disk = image(tmp_path)
    report = far.back_up_image(disk)
    point, reader = alone(far, report.commit)

    class Lying(DirectPoint):
        def fetch(self, fetch: Fetch, taker: Taker) -> None:
            assert taker.check is not None
            taker.check(0, 0, memoryview(b"something else"))

    point.__class__ = Lying
    with reader, pytest.raises(CorruptObject, match="is not what was stored"):
        root = reader.node(reader.root()[0])
        leaf = root if reader.chunk_refs(root) else reader.node(reader.child_refs(root)[0])
        reader.fetch([(reader.chunk_refs(leaf)[0], 0)], lambda *_: None)


@pytest.mark.parametrize("codec", [CODEC_RAW, CODEC_ZSTD])
def test_there_and_back(codec: int) -> None:
    parts = [b"a" * 100, b"b" * 1000, os.urandom(10)]
    data = b"".join(parts)
    payload = compressed(3, data)[0] if codec == CODEC_ZSTD else data
    frame = StoredFrame(codec, len(data), [len(part) for part in parts], memoryview(payload))

    made = memoryview(framed([(0, 5), (0, 9), (3, 0)], frame))

    node, count, length = parse_chunk_head(made[:CHUNK_HEAD])
    assert (node, count, length) == (FRAMED, 3, len(made) - CHUNK_HEAD)
    assert [(node, index, bytes(chunk)) for node, index, chunk in unframed(count, made[CHUNK_HEAD:])] == [
        (0, 5, parts[0]),
        (0, 9, parts[1]),
        (3, 0, parts[2]),
    ]


def test_a_frame_is_handed_out_in_one_turn() -> None:
    """As it comes from the service; what is no frame needs none."""
    told: list[object] = []

    @contextmanager
    def turn(count: int, size: int) -> Iterator[None]:
        told.append((count, size))
        yield
        told.append("over")

    def take(node: int, index: int, chunk: memoryview, *, checked: bool) -> None:
        told.append((node, index, bytes(chunk), checked))

    frame = StoredFrame(CODEC_RAW, 5, [2, 3], memoryview(b"aabbb"))
    sent = framed([(0, 5), (0, 9)], frame) + chunk_head(1, 7, 4) + b"cccc" + framed([(2, 0), (2, 1)], frame)

    service._read(cast(HTTPResponse, io.BytesIO(sent)), take, Taker(lambda *_: None, turn=turn))

    assert told == [
        (2, 5), (0, 5, b"aa", False), (0, 9, b"bbb", False), "over",
        (1, 7, b"cccc", True),
        (2, 5), (2, 0, b"aa", False), (2, 1, b"bbb", False), "over",
    ]  # fmt: skip


def test_a_tree_is_made_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What restores small files is asked for its turn through a service as well."""
    turns: list[tuple[int, int]] = []
    real = Contents.turn

    def turn(contents: Contents, count: int, size: int) -> AbstractContextManager[object]:
        turns.append((count, size))
        return real(contents, count, size)

    monkeypatch.setattr(Contents, "turn", turn)
    far = Far(Env(threads=2), new_store(Env()))
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"{number}").write_bytes(TEXT[: 1000 + number])
    report = far.back_up(source)
    _, reader = alone(far, report.commit)

    with reader:
        restore_files(far.env, reader, tmp_path / "target", RestoreOptions(), Silent())

    assert sum(count for count, _ in turns) == 40
    assert sum(size for _, size in turns) == sum(1000 + number for number in range(40))


@given(st.binary(max_size=80), st.integers(0, 8))
def test_any_bytes(body: bytes, count: int) -> None:
    try:
        list(unframed(count, memoryview(body)))
    except CorruptObject:
        return
    assert count


def test_bytes_that_were_changed() -> None:
    """Each is refused, or tells the right number of chunks; none asks for memory that nobody has."""
    data = TEXT[:5000]
    frame = StoredFrame(CODEC_ZSTD, len(data), [2000, 3000], memoryview(compressed(3, data)[0]))
    good = framed([(0, 0), (0, 1)], frame)[CHUNK_HEAD:]
    chance = random.Random(1)
    for _ in range(3000):
        body = bytearray(good)
        body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            found = list(unframed(2, memoryview(body)))
        except CorruptObject:
            continue
        assert [len(chunk) for _, _, chunk in found] in ([2000, 3000],)
    bomb = struct.pack("<B3xI", CODEC_ZSTD, MAX_FRAME + 1) + struct.pack("<III", 0, 0, MAX_FRAME + 1)
    with pytest.raises(CorruptObject, match="another length"):
        list(unframed(1, memoryview(bomb)))
