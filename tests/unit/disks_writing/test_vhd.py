# SPDX-License-Identifier: Apache-2.0
"""The footer of a VHD, and what Azure asks of a fixed one."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.disks.writing.vhd import LIMIT, geometry
from keepstone.env import Env
from tests.unit.disks_writing.images import MIB, needs_qemu, qemu, scattered, written_by

pytestmark = pytest.mark.vm


def checked(block: bytes, at: int) -> bool:
    """Whether the checksum at `at` is that of the other bytes."""
    (stated,) = struct.unpack_from(">I", block, at)
    return bool(stated == ~(sum(block) - sum(block[at : at + 4])) & 0xFFFFFFFF)


@pytest.mark.parametrize("size", [1, 4 * MIB, 9 * MIB + 12_345])
def test_a_fixed_one_is_as_azure_wants_it(tmp_path: Path, size: int) -> None:
    """Fixed, whole MiB and a footer. Source: Microsoft Learn, "Prepare a Windows VHD or VHDX to upload to Azure"."""
    path = tmp_path / "disk.vhd"
    env = Env()
    written_by(env, path, scattered(size, 1), "vhd")
    image = path.read_bytes()
    assert len(image) % MIB == 512
    footer = image[-512:]
    cookie, features, version, data, stamp = struct.unpack_from(">8sIIQI", footer)
    assert (cookie, features, version, data) == (b"conectix", 2, 0x00010000, (1 << 64) - 1)
    assert abs(stamp - (env.wall_time() // 10**9 - 946_684_800)) < 60
    original, current = struct.unpack_from(">QQ", footer, 40)
    assert original == current == len(image) - 512
    assert struct.unpack_from(">HBB", footer, 56) == geometry(current)
    assert struct.unpack_from(">I", footer, 60) == (2,)
    assert checked(footer, 64)
    assert uuid.UUID(bytes=footer[68:84]).version == 4
    assert not any(footer[84:])


@needs_qemu
def test_the_longest_ways_to_count_cylinders_do_not_shorten_it(tmp_path: Path) -> None:
    """Readers that trust the geometry of some creators make such a disk shorter."""
    path = tmp_path / "disk.vhd"
    written_by(Env(), path, bytes(41 * MIB), "vhd")
    cylinders, heads, sectors = geometry(41 * MIB)
    assert cylinders * heads * sectors * 512 < 41 * MIB
    assert f"({41 * MIB} bytes)" in qemu("info", "-f", "vpc", path)


def test_a_dynamic_one_ends_as_it_begins_and_its_header_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    written_by(Env(), path, scattered(9 * MIB + 12_345, 1), "vhd-dynamic")
    image = path.read_bytes()
    assert image[:512] == image[-512:]
    assert checked(image[:512], 64)
    header = image[512:1536]
    assert checked(header, 36)
    table, version, entries, block = struct.unpack_from(">QIII", header, 16)
    assert (header[:8], table, version, entries, block) == (b"cxsparse", 1536, 0x00010000, 5, 2 * MIB)
    places = struct.unpack_from(">5I", image, table)
    for place in places:
        if place != 0xFFFFFFFF:
            assert image[place * 512 :][:512] == b"\xff" * 512
            assert (place * 512 + 512) % 4096 == 0


@given(st.integers(0, LIMIT))
def test_geometry_is_in_its_fields_and_never_longer_than_the_disk(size: int) -> None:
    cylinders, heads, sectors = geometry(size)
    assert cylinders <= 65535
    assert heads in range(4, 17)
    assert sectors in (17, 31, 63, 255)
    assert cylinders * heads * sectors * 512 <= size
    if size < 65535 * 16 * 63 * 512:  # as many cylinders as can be had
        assert (cylinders + 1) * heads * sectors * 512 > size


def test_geometry_of_disks_that_are_known() -> None:
    """As Virtual PC and Hyper-V have them, and QEMU after them."""
    assert geometry(1 << 30) == (2080, 16, 63)
    assert geometry(127 << 30) == (65278, 16, 255)
    assert geometry(LIMIT) == (65535, 16, 255)
