# SPDX-License-Identifier: Apache-2.0
"""Every byte that may not be zero is read once, in whole chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.disks import Extent
from keepstone.store import DISK_CHUNK, SEGMENT
from keepstone.workloads.images.segments import segments

pytestmark = pytest.mark.store


@given(st.lists(st.integers(1, 3 * SEGMENT), max_size=12), st.booleans())
def test_segments_cover_the_data_once(lengths: list[int], zero: bool) -> None:
    extents, at = [], 0
    for length in lengths:
        extents.append(Extent(at, length, zero))
        at, zero = at + length, not zero

    found = list(segments(extents, at))

    covered: set[int] = set()
    last = 0
    for ranges in found:
        assert len({offset // SEGMENT for offset, _ in ranges}) == 1
        for offset, length in ranges:
            assert offset >= last
            assert offset % DISK_CHUNK == 0
            assert length > 0
            assert offset // SEGMENT == (offset + length - 1) // SEGMENT
            last = offset + length
            assert last == at or last % DISK_CHUNK == 0
            covered.update(range(offset // DISK_CHUNK, -(-last // DISK_CHUNK)))
    data = {
        chunk
        for extent in extents
        if not extent.zero
        for chunk in range(extent.offset // DISK_CHUNK, -(-extent.end // DISK_CHUNK))
    }
    assert covered == data
    assert len(found) == len({chunk * DISK_CHUNK // SEGMENT for chunk in data})
