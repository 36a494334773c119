# SPDX-License-Identifier: Apache-2.0
"""The difference of two points is where their disks differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.workloads.images import diff_images
from keepstone.workloads.images.leaf import LEAF_SPAN
from tests.unit.images.disk import CHUNK, Shelf, noise, patch, sparse

pytestmark = pytest.mark.store


def test_changed_chunks_are_found_and_neighbours_joined(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", LEAF_SPAN + 10 * CHUNK, {0: noise(20), LEAF_SPAN: noise(10, 1)})
    first = shelf.backup(disk)
    patch(disk, {CHUNK: b"a", 2 * CHUNK: bytes(CHUNK), 30 * CHUNK: b"b", LEAF_SPAN - 1: b"cc"})
    second = shelf.backup(disk)

    found = list(diff_images(shelf.reader(first), shelf.reader(second)))

    expected = [
        range(CHUNK, 3 * CHUNK),
        range(30 * CHUNK, 31 * CHUNK),
        range(LEAF_SPAN - CHUNK, LEAF_SPAN + CHUNK),
    ]
    assert found == expected
    assert list(diff_images(shelf.reader(second), shelf.reader(first))) == expected
    assert list(diff_images(shelf.reader(second), shelf.reader(second))) == []


@pytest.mark.parametrize("size", [5 * CHUNK, 20 * CHUNK + 9, LEAF_SPAN + 1])
def test_what_only_the_longer_disk_has_differs(shelf: Shelf, tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(noise(4))
    first = shelf.backup(disk)
    with disk.open("r+b") as file:
        file.truncate(size)
    second = shelf.backup(disk)

    assert list(diff_images(shelf.reader(first), shelf.reader(second))) == [range(4 * CHUNK, size)]
    assert list(diff_images(shelf.reader(second), shelf.reader(first))) == [range(4 * CHUNK, size)]
