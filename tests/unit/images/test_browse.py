# SPDX-License-Identifier: Apache-2.0
"""Looking into the disk of a point: any bytes, holes and data, without reading what is not wanted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.content import Content
from keepstone.workloads.images import DiskMap
from keepstone.workloads.images.leaf import LEAF_SPAN
from tests.unit.images.disk import CHUNK, Shelf, noise, sparse

pytestmark = pytest.mark.store

SIZE = 2 * LEAF_SPAN + 3 * CHUNK + 777
DATA = {
    0: noise(2, 1),
    9 * CHUNK + 100: noise(0.5, 2),
    LEAF_SPAN - CHUNK: noise(1, 3),
    2 * LEAF_SPAN: noise(1, 4),
    2 * LEAF_SPAN + 3 * CHUNK: noise(1, 5)[:777],
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return sparse(tmp_path / "disk", SIZE, DATA)


def test_any_bytes_of_a_disk_can_be_read(env: Env, shelf: Shelf, disk: Path) -> None:
    reader = shelf.reader(shelf.backup(disk))
    chance = random.Random(1)
    with ChunkCache(env, reader, 4 << 20) as chunks, disk.open("rb") as source:
        content = Content(DiskMap(reader), chunks)
        assert content.map.size == SIZE
        places = [*DATA, SIZE, LEAF_SPAN, 2 * LEAF_SPAN - 5]
        for _ in range(200):
            offset = max(0, chance.choice(places) + chance.randrange(-3 * CHUNK, 3 * CHUNK))
            length = chance.randrange(2 * CHUNK)
            source.seek(offset)
            assert b"".join(content.read(offset, length)) == source.read(length)
        assert b"".join(content.read(SIZE - 10, 1 << 30)) == DATA[2 * LEAF_SPAN + 3 * CHUNK][-10:]
        assert content.read(SIZE, 1) == []


def test_holes_of_a_disk_are_told(env: Env, shelf: Shelf, disk: Path) -> None:
    layout = DiskMap(shelf.reader(shelf.backup(disk)))

    assert layout.data(0) == 0
    assert layout.hole(0) == 2 * CHUNK
    assert layout.data(2 * CHUNK + 5) == 9 * CHUNK
    assert layout.hole(9 * CHUNK + 1) == 10 * CHUNK
    assert layout.data(10 * CHUNK) == LEAF_SPAN - CHUNK
    assert layout.hole(LEAF_SPAN - 1) == LEAF_SPAN
    assert layout.data(LEAF_SPAN + 1) == 2 * LEAF_SPAN
    assert layout.hole(2 * LEAF_SPAN + 3 * CHUNK) == SIZE


def test_an_empty_disk_is_one_hole(env: Env, shelf: Shelf, tmp_path: Path) -> None:
    layout = DiskMap(shelf.reader(shelf.backup(sparse(tmp_path / "disk", 3 * LEAF_SPAN + 5, {}))))

    assert layout.data(0) is None
    assert layout.hole(7) == 7
    assert [span.length for span in layout.spans(0, layout.size)] == [layout.size]


def test_a_point_of_another_kind_is_no_disk(shelf: Shelf) -> None:
    with shelf.store.writer("tree", "files") as writer:
        node = writer.put_node("files/page", [], [], b"")
        from keepstone.store import Outcome

        commit = writer.commit(Outcome(root=[node], detail=b"", source=b"/", logical=0, read=0, files=0, warnings=0))
    with pytest.raises(CorruptObject):
        DiskMap(shelf.store.reader(shelf.store.points.find(commit)))
