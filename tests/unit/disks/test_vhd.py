# SPDX-License-Identifier: Apache-2.0
"""VHD as QEMU does not write it: differencing images, sector bitmaps, copies of the footer."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.disks import open_disk
from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing
from tests.unit.disks.foreign import MIB, noise, read_all, vhd

pytestmark = pytest.mark.vm

FULL = b"\xff" * 512
BASE = bytes(range(16))


def opened(env: Env, path: Path) -> bytes:
    with open_disk(env, path) as disk:
        return read_all(disk)


def test_the_bitmap_says_which_sectors_were_written(env: Env, tmp_path: Path) -> None:
    content = noise(2 * MIB)
    image = vhd(tmp_path / "disk.vhd", 5 * MIB, {1: (b"\x80\x01" + bytes(509) + b"\x03", content)})
    expected = bytearray(5 * MIB)
    for sector in (0, 15, 4094, 4095):
        at = sector * 512
        expected[2 * MIB + at : 2 * MIB + at + 512] = content[at : at + 512]

    assert opened(env, image) == expected


@pytest.mark.parametrize("block", [512 << 10, 2 * MIB, 4 * MIB])
def test_a_differencing_disk(env: Env, tmp_path: Path, block: int) -> None:
    base = noise(7 * MIB)
    own = noise(block, 1)
    pieces = {n: (b"\xff" * (block // 4096), base[n * block : (n + 1) * block]) for n in range(-(-7 * MIB // block))}
    vhd(tmp_path / "Größe.vhd", 7 * MIB, pieces, block=block, id=BASE)
    some = b"\x0f" + bytes(block // 4096 - 1)
    child = vhd(tmp_path / "child.vhd", 7 * MIB, {1: (some, own)}, block=block, parent=("Größe.vhd", BASE))
    expected = bytearray(base)
    expected[block + 4 * 512 : block + 8 * 512] = own[4 * 512 : 8 * 512]

    assert opened(env, child) == expected


def test_the_locator_names_the_parent_too(env: Env, tmp_path: Path) -> None:
    vhd(tmp_path / "base.vhd", 2 * MIB, {0: (FULL, noise(2 * MIB))}, id=BASE)
    child = vhd(tmp_path / "child.vhd", 2 * MIB, {}, parent=("gone.vhd", BASE), locator=".\\over\\base.vhd")
    assert opened(env, child) == noise(2 * MIB)
    (tmp_path / "base.vhd").unlink()
    with pytest.raises(SourceMissing, match=r"its parent is missing, base\.vhd or gone\.vhd"):
        open_disk(env, child)
    vhd(tmp_path / "gone.vhd", 2 * MIB, {}, id=bytes(16))
    with pytest.raises(SourceFailed, match=r"gone\.vhd is not the parent of .*child\.vhd"):
        open_disk(env, child)


def test_the_copy_of_the_footer_counts_where_the_other_one_is_damaged(env: Env, tmp_path: Path) -> None:
    image = vhd(tmp_path / "disk.vhd", 2 * MIB, {0: (FULL, noise(2 * MIB))})
    data = bytearray(image.read_bytes())
    data[-400] ^= 1
    image.write_bytes(data)
    assert opened(env, image) == noise(2 * MIB)
    data[100] ^= 1
    image.write_bytes(data)
    with pytest.raises(SourceFailed, match=r"disk\.vhd: its footer is damaged"):
        open_disk(env, image)


@pytest.mark.parametrize(("at", "reason"), [(600, "its header is damaged"), (2049, "2 blocks|is at|two blocks|places")])
def test_damage(env: Env, tmp_path: Path, at: int, reason: str) -> None:
    image = vhd(tmp_path / "disk.vhd", 4 * MIB, {0: (FULL, noise(2 * MIB))})
    data = bytearray(image.read_bytes())
    data[at] ^= 0x40
    image.write_bytes(data)
    with pytest.raises(SourceFailed, match=reason):
        open_disk(env, image)


def test_a_block_in_two_places(env: Env, tmp_path: Path) -> None:
    image = vhd(tmp_path / "disk.vhd", 4 * MIB, {0: (FULL, noise(2 * MIB)), 1: (FULL, noise(2 * MIB))})
    data = bytearray(image.read_bytes())
    data[2052:2056] = data[2048:2052]
    image.write_bytes(data)
    with pytest.raises(SourceFailed, match="to two blocks"):
        open_disk(env, image)
