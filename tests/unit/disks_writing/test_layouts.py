# SPDX-License-Identifier: Apache-2.0
"""The tables of each layout, whatever cells of whatever disk are stored: places are apart, and nothing overlaps."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.disks.crc32c import crc32c
from keepstone.disks.writing import Layout
from keepstone.disks.writing.cells import Cells
from keepstone.disks.writing.qcow2 import Qcow2
from keepstone.disks.writing.vhd import DynamicVhd, FixedVhd
from keepstone.disks.writing.vhdx import Vhdx
from keepstone.disks.writing.vmdk import SparseVmdk
from keepstone.env import Env

pytestmark = pytest.mark.vm

ENV = Env()
LAYOUTS = (DynamicVhd, FixedVhd, Qcow2, SparseVmdk, Vhdx)
SIZES = st.one_of(st.integers(0, 1 << 28), st.integers(1 << 30, 1 << 36))


def stored(layout: Layout, chosen: list[float]) -> tuple[Cells, list[int]]:
    """Cells that are stored, and which: fractions of the disk, in this order."""
    cells = Cells(layout.page)
    count = -(-layout.size // layout.cell)
    wanted = list(dict.fromkeys(min(count - 1, int(one * count)) for one in chosen))
    assert [cells.take(cell) for cell in wanted] == list(range(len(wanted)))
    assert [cells.take(cell) for cell in wanted] == list(range(len(wanted)))
    return cells, wanted


@pytest.mark.parametrize("kind", LAYOUTS)
@settings(deadline=None)
@given(size=SIZES, chosen=st.lists(st.floats(0, 1), max_size=12))
def test_nothing_overlaps(kind: type[DynamicVhd], size: int, chosen: list[float]) -> None:
    layout = kind(ENV, size)
    cells, wanted = stored(layout, chosen)
    pieces = [(offset, len(memoryview(data).cast("B"))) for offset, data in (*layout.body(cells), *layout.head(cells))]
    pieces += [(layout.place(number), layout.cell) for number in range(len(wanted))]
    end = 0
    for offset, length in sorted(pieces):
        assert offset >= end
        end = offset + length
    assert end <= layout.length(cells)
    assert layout.size >= max(size, 512)
    for number in range(len(wanted)):
        assert layout.place(number) % 4096 == 0  # else nothing goes past the page cache


@settings(deadline=None)
@given(size=SIZES, chosen=st.lists(st.floats(0, 1), max_size=12))
def test_the_table_of_a_vhdx_finds_the_blocks(size: int, chosen: list[float]) -> None:
    layout = Vhdx(ENV, size)
    cells, wanted = stored(layout, chosen)
    table = bytes(dict(layout.body(cells))[3 << 20])
    ratio = (512 << 23) // layout.cell
    for block in range(-(-layout.size // layout.cell)):
        (entry,) = struct.unpack_from("<Q", table, 8 * (block + block // ratio))
        if block in wanted:
            assert entry == layout.place(wanted.index(block)) | 6
        else:
            assert entry == 2
    for at in range(8 * ratio, len(table), 8 * (ratio + 1)):  # of sectors, which only differencing disks have
        assert not any(table[at : at + 8])


@settings(deadline=None)
@given(size=SIZES, chosen=st.lists(st.floats(0, 1), max_size=12))
def test_refcounts_of_a_qcow2_count_every_cluster_once(size: int, chosen: list[float]) -> None:
    layout = Qcow2(ENV, size)
    cells, _ = stored(layout, chosen)
    body = {offset: bytes(data) for offset, data in layout.body(cells)}
    ((_, header),) = layout.head(cells)
    directory, directories = struct.unpack_from(">QI", header, 48)
    assert directories == 1
    counted = 0
    for (place,) in struct.iter_unpack(">Q", body[directory]):
        assert place % 65536 == 0
        assert set(struct.iter_unpack(">H", body[place])) == {(1,)}
        counted += len(body[place]) // 2
    assert counted * 65536 == layout.length(cells)


@settings(deadline=None)
@given(size=SIZES, chosen=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_both_directories_of_a_vmdk_find_every_grain(size: int, chosen: list[float]) -> None:
    layout = SparseVmdk(ENV, size)
    cells, wanted = stored(layout, chosen)
    body = {offset: bytes(data) for offset, data in layout.body(cells)}
    ((_, header),) = layout.head(cells)
    count = -(-layout.size // (512 * layout.cell))
    for directory in struct.unpack_from("<QQ", header, 48):
        tables = struct.unpack_from(f"<{count}I", body[directory * 512])
        for number, grain in enumerate(wanted):
            (place,) = struct.unpack_from("<I", body[tables[grain // 512] * 512], 4 * (grain % 512))
            assert place * 512 == layout.place(number)


@pytest.mark.parametrize(("tib", "mib"), [(1, 2), (2, 2), (3, 4), (16, 16), (64, 32)])
def test_blocks_of_a_vhdx_grow_with_the_disk(tib: int, mib: int) -> None:
    assert Vhdx(ENV, tib << 40).cell == mib << 20


def test_crc32c_of_what_the_standard_gives() -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
