# SPDX-License-Identifier: Apache-2.0
"""A disk that knows what changed is read there only, and the point is that of the whole disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.disks import Extent, RawSource
from keepstone.env import Env
from keepstone.objects import PAGE
from keepstone.store import Store
from keepstone.workloads.images import Report, backup_image
from keepstone.workloads.images.backup import parent_token
from keepstone.workloads.images.changes import Listing, listed
from keepstone.workloads.images.leaf import LEAF_SPAN
from tests.unit.images.disk import CHUNK, Count, Shelf, noise, patch, sparse

pytestmark = pytest.mark.vm


class Tracked:
    """A raw disk that says what changed since the state `before`; `asked`: where it was read."""

    block_size = PAGE

    def __init__(self, env: Env, path: Path, token: str, before: str = "", changed: tuple[Extent, ...] = ()) -> None:
        self._source = RawSource(env, path)
        self._token, self._before, self._changed = token, before, changed
        self.size = self._source.size
        self.asked: list[tuple[int, int]] = []

    def token(self) -> str:
        return self._token

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        return iter(self._changed) if since == self._before else self._source.extents()

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        self.asked.append((offset, len(buffer)))
        return self._source.pread_into(buffer, offset)

    def close(self) -> None:
        self._source.close()


def back_up(shelf: Shelf, source: Tracked, count: Count | None = None) -> Report:
    with shelf.store.writer("disk", "images") as writer:
        return backup_image(shelf.env, writer, source, count or Count(), name=b"disk")


def equal(env: Env, one: Path, other: Path) -> bool:
    """Whether two files have the same bytes; holes of both are not looked at."""
    ranges = set()
    for path in (one, other):
        with RawSource(env, path) as source:
            ranges |= {(extent.offset, extent.end) for extent in source.extents() if not extent.zero}
    with one.open("rb") as first, other.open("rb") as second:
        for start, end in ranges:
            first.seek(start)
            second.seek(start)
            if first.read(end - start) != second.read(end - start):
                return False
    return one.stat().st_size == other.stat().st_size


def changed(*ranges: tuple[float, float]) -> tuple[Extent, ...]:
    """Extents of data from chunk to chunk."""
    return tuple(Extent(int(start * CHUNK), int((end - start) * CHUNK), zero=False) for start, end in ranges)


def test_only_what_changed_is_read(shelf: Shelf, tmp_path: Path) -> None:
    size = 2 * LEAF_SPAN + 5 * CHUNK + 777
    disk = sparse(tmp_path / "disk", size, {0: noise(4), LEAF_SPAN - CHUNK: noise(2, 1), size - 1000: b"end"})
    back_up(shelf, Tracked(shelf.env, disk, "one"))
    patch(disk, {CHUNK + 5000: noise(0.5, 2), LEAF_SPAN: bytes(CHUNK), 3 * CHUNK: bytes(10)})
    source = Tracked(shelf.env, disk, "two", "one", changed((1.1, 1.2), (4096, 4097)))
    count = Count()

    report = back_up(shelf, source, count)

    assert report.read == 2 * CHUNK
    assert sorted(offset for offset, _ in source.asked) == [CHUNK, LEAF_SPAN]
    assert count.done == count.expected == size
    # Bytes that it did not list are not read: it says what changed, and these ten are not what it said.
    patch(disk, {3 * CHUNK: noise(4)[3 * CHUNK : 3 * CHUNK + 10]})
    assert equal(shelf.env, shelf.restore(report, tmp_path / "new"), disk)


def test_zeros_that_are_listed_are_not_read(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 8 * CHUNK, {0: noise(8)})
    back_up(shelf, Tracked(shelf.env, disk, "one"))
    patch(disk, {int(1.5 * CHUNK): bytes(4 * CHUNK)})
    zeros = (Extent(int(1.5 * CHUNK), 4 * CHUNK, zero=True),)
    source = Tracked(shelf.env, disk, "two", "one", zeros)

    report = back_up(shelf, source)

    assert report.read == 2 * CHUNK  # the chunks that are zeros in part
    assert equal(shelf.env, shelf.restore(report, tmp_path / "new"), disk)


def test_a_disk_that_did_not_change_is_the_same_node(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 5 * CHUNK + 1, {0: noise(3)})
    back_up(shelf, Tracked(shelf.env, disk, "one"))

    report = back_up(shelf, Tracked(shelf.env, disk, "two", "one"))

    assert report.read == 0
    assert shelf.point(report).record.stored == 0
    assert msgspec.msgpack.decode(shelf.point(report).record.detail) == {"token": "two"}


@pytest.mark.parametrize("token", ["other", "zero", ""])
def test_the_token_of_another_point_means_a_full_read(shelf: Shelf, tmp_path: Path, token: str) -> None:
    """The source could tell what changed since `token`; the parent point is of another state."""
    disk = sparse(tmp_path / "disk", 6 * CHUNK, {0: noise(6)})
    back_up(shelf, Tracked(shelf.env, disk, "zero"))
    back_up(shelf, Tracked(shelf.env, disk, "one", "zero"))
    patch(disk, {0: b"changed"})

    report = back_up(shelf, Tracked(shelf.env, disk, "two", token))

    assert report.read == 6 * CHUNK
    assert equal(shelf.env, shelf.restore(report, tmp_path / "new"), disk)


@pytest.mark.parametrize("before", [0, 1, CHUNK, 2 * CHUNK + 5000, LEAF_SPAN - 1, LEAF_SPAN])
def test_what_a_disk_grew_by_is_read(shelf: Shelf, tmp_path: Path, before: int) -> None:
    disk = sparse(tmp_path / "disk", before, {0: noise(2)[:before]})
    back_up(shelf, Tracked(shelf.env, disk, "one"))
    with disk.open("r+b") as file:
        file.truncate(LEAF_SPAN + 3 * CHUNK)
    patch(disk, {before: b"more", LEAF_SPAN + CHUNK: noise(1, 5)})
    source = Tracked(shelf.env, disk, "two", "one")

    report = back_up(shelf, source)

    assert report.read <= 3 * CHUNK
    assert equal(shelf.env, shelf.restore(report, tmp_path / "new"), disk)


def test_a_disk_that_became_shorter_is_read_in_full(shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 6 * CHUNK, {0: noise(6)})
    back_up(shelf, Tracked(shelf.env, disk, "one"))
    with disk.open("r+b") as file:
        file.truncate(3 * CHUNK + 10)

    report = back_up(shelf, Tracked(shelf.env, disk, "two", "one"))

    assert report.read == 3 * CHUNK + 10
    assert equal(shelf.env, shelf.restore(report, tmp_path / "new"), disk)


def test_where_the_parent_is_damaged_the_disk_is_read(tmp_path: Path, env: Env) -> None:
    from tests.unit.files.points import new_store

    shelf = Shelf(env, new_store(env, tmp_path / "store"))
    disk = sparse(tmp_path / "disk", 6 * CHUNK, {0: noise(6)})
    back_up(shelf, Tracked(shelf.env, disk, "one"))
    packs = {path.name for path in (tmp_path / "store/packs").glob("*/*")}
    shelf.store.damaged = frozenset(f"packs/{name[:2]}/{name}" for name in packs)
    patch(disk, {0: b"changed"})

    report = back_up(shelf, Tracked(shelf.env, disk, "two", "one"))

    assert report.read == 6 * CHUNK
    assert equal(shelf.env, shelf.restore(report, tmp_path / "new"), disk)


def test_points_of_before_have_no_token(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", CHUNK, {0: noise(1)})
    report = shelf.backup(disk)
    assert shelf.point(report).record.detail == b""

    with store.writer(shelf.point(report).record.item, "images") as writer:
        assert writer.parent is not None
        assert parent_token(writer) is None


@given(st.integers(0, 2**32), st.integers(1, 40 * 64))
@settings(max_examples=300, deadline=None)
def test_ranges_become_whole_chunks(seed: int, pages: int) -> None:
    """Against a model with one letter for each page: what is listed as data is in the data, and zeros are zeros."""
    random_, size, chunk = random.Random(seed), pages * 100 + seed % 100, 6400

    class Listed:
        block_size = 100

        def __init__(self) -> None:
            self.size = size

        def token(self) -> None: ...

        def extents(self, since: str | None = None) -> Iterator[Extent]:
            at = 0
            while at < size:
                length = min(size - at, 100 * random_.choice((1, 3, 64, 70, 200)))
                if random_.random() < 0.6:
                    extent = Extent(at, length, zero=random_.random() < 0.5)
                    told.append(extent)
                    yield extent
                at += length

        def pread_into(self, buffer: memoryview, offset: int) -> int:
            raise AssertionError

        def close(self) -> None: ...

    told: list[Extent] = []
    listing = Listing(listed(Listed(), "since", size, chunk))
    found = [extent for end in range(64_000, size + 64_000, 64_000) for extent in listing.before(end)]

    end = 0
    state = bytearray(b"." * size)
    for extent in found:
        assert extent.offset >= end
        assert extent.offset % chunk == 0
        assert extent.end % chunk == 0 or extent.end == size
        end = extent.end
        state[extent.offset : extent.end] = (b"0" if extent.zero else b"x") * extent.length
    for extent in told:
        part = state[extent.offset : extent.end]
        assert b"." not in part
        assert extent.zero or b"0" not in part
    covered = bytearray(size)
    for extent in told:
        covered[extent.offset : extent.end] = b"\1" * extent.length
    for at in range(0, size, chunk):
        assert (b"." in state[at : at + chunk]) == (1 not in covered[at : at + chunk])
