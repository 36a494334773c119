# SPDX-License-Identifier: Apache-2.0
"""Parts of disks are known to be the same without reading them, and never are where a byte is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.store import LocalReader
from keepstone.workloads.images.identity import identity
from keepstone.workloads.images.leaf import LEAF_SPAN
from tests.unit.images.disk import CHUNK, Shelf, noise, patch, sparse

pytestmark = pytest.mark.store
SIZE = 2 * LEAF_SPAN + 3 * CHUNK + 5


@pytest.mark.parametrize("at", [0, 5 * CHUNK, LEAF_SPAN - 1, LEAF_SPAN, LEAF_SPAN + 9 * CHUNK, SIZE - 1])
def test_one_byte(shelf: Shelf, tmp_path: Path, at: int) -> None:
    """A range is another one where a chunk of it has this byte, and no other one is."""
    disk = sparse(tmp_path / "disk", SIZE, {0: noise(6), LEAF_SPAN - CHUNK: noise(12, 1), SIZE - 5: b"tail!"})
    first = shelf.reader(shelf.backup(disk))
    second = shelf.reader(shelf.backup(patch(disk, {at: b"?"})))
    edges = [0, CHUNK, 6 * CHUNK, LEAF_SPAN - CHUNK, LEAF_SPAN, LEAF_SPAN + CHUNK, 2 * LEAF_SPAN, SIZE]
    for begin in edges:
        for end in edges:
            if begin < end:
                ranges = [(begin, end - begin)]
                is_same = identity(first, ranges) == identity(second, ranges)
                assert is_same == (not begin <= at < end), (begin, end)
    assert identity(first, [(0, SIZE)]) == identity(first, [(0, SIZE)]) != identity(second, [(0, SIZE)])


def test_a_range_that_ends_within_a_chunk(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", SIZE, {0: noise(8)})
    first = shelf.reader(shelf.backup(disk))
    second = shelf.reader(shelf.backup(patch(disk, {6 * CHUNK + 3: b"?"})))
    for begin, size in ((5 * CHUNK, CHUNK + 7), (6 * CHUNK, 4), (6 * CHUNK + 3, 1), (6 * CHUNK + 2, CHUNK)):
        assert identity(first, [(begin, size)]) != identity(second, [(begin, size)])


def test_ranges_are_told_apart(shelf: Shelf, tmp_path: Path) -> None:
    reader = shelf.reader(shelf.backup(sparse(tmp_path / "disk", SIZE, {})))
    ranges = [[(0, CHUNK)], [(CHUNK, CHUNK)], [(0, 2 * CHUNK)], [(0, CHUNK), (CHUNK, CHUNK)], [], [(SIZE, CHUNK)]]
    assert len({identity(reader, one) for one in ranges}) == len(ranges)


def test_whole_leaves_are_not_read(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = shelf.reader(shelf.backup(sparse(tmp_path / "disk", SIZE, {0: noise(6)})))
    nodes: list[int] = []
    real = LocalReader.node
    monkeypatch.setattr(LocalReader, "node", lambda self, ref: nodes.append(ref) or real(self, ref))  # type: ignore[func-returns-value]
    identity(reader, [(0, SIZE)])
    assert len(nodes) == 1
    identity(reader, [(CHUNK, SIZE)])
    assert len(nodes) == 3
