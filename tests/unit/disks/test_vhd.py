# SPDX-License-Identifier: Apache-2.0
"""VHD as QEMU does not write it: differencing images, sector bitmaps, copies of the footer."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from keepstone.disks import open_disk
from keepstone.disks import vhd as parser
from keepstone.disks.layout import DATA, check, check_apart
from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing
from keepstone.objects import is_zero
from tests.unit.disks.foreign import KIB, MIB, Memory, noise, read_all, vhd

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


def mixed(seed: int, blocks: int, block: int) -> tuple[dict[int, tuple[bytes, bytes]], list[bytes]]:
    """Blocks in an order by chance, some full, some of which a part was written, in few pieces or in many; and what the
    bitmap of each leaves in."""
    chance = random.Random(seed)
    sectors = block // 512
    found: dict[int, tuple[bytes, bytes]] = {}
    expected = [bytes(block)] * blocks
    for number in chance.sample(range(blocks), blocks * 3 // 4):
        bits = [1] * sectors
        for _ in range(chance.choice([0, 0, 1, 3, sectors])):
            begin = chance.randrange(sectors)
            end = min(sectors, begin + chance.choice([1, 2, 7, sectors]))
            bits[begin:end] = [chance.randrange(2)] * (end - begin)
        content = chance.randbytes(block)
        kept = b"".join(content[at * 512 : at * 512 + 512] if bit else bytes(512) for at, bit in enumerate(bits))
        packed = int("".join(map(str, bits)).ljust(max(8, sectors), "0"), 2).to_bytes(max(1, sectors // 8), "big")
        found[number] = packed, content
        expected[number] = kept
    return found, expected


@pytest.mark.parametrize("block", [512, 4 * KIB, 32 * KIB, 2 * MIB])
@pytest.mark.parametrize("at_once", [1 << 20, 192])
def test_full_and_other_blocks_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, at_once: int
) -> None:
    """Whatever the bitmap leaves out is zeros, though other bytes lie there; the last block is cut off by the end."""
    monkeypatch.setattr(parser, "_AT_ONCE", at_once)
    count = 12 if block == 2 * MIB else 300
    size = count * block - (512 if block > 512 else 0)
    blocks, expected = mixed(block, count, block)
    image = vhd(tmp_path / "disk.vhd", size, blocks, block=block).read_bytes()
    layout = check_apart(check(parser.parse(Memory(image)), [len(image)]))
    content = b"".join(
        image[place : place + stop - start] if kind == DATA else bytes(stop - start)
        for start, stop, kind, place in zip(
            layout.starts.tolist(), layout.ends().tolist(), layout.kinds.tolist(), layout.places.tolist(), strict=True
        )
    )

    assert content == b"".join(expected)[:size]


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img (apt install qemu-utils)")
@pytest.mark.parametrize("length", [MIB, 999_936, 2 * MIB + 512])
def test_qemu_finds_the_same_in_full_and_other_blocks(env: Env, tmp_path: Path, length: int) -> None:
    """QEMU does not look at bitmaps, so what they leave out is zeros in this file, as it is in those of others."""
    blocks, expected = mixed(7, 12, 2 * MIB)
    zeroed = {number: (bitmap, expected[number]) for number, (bitmap, _) in blocks.items()}
    image = vhd(tmp_path / "disk.vhd", 23 * MIB, zeroed)
    options = f"driver=vpc,force_size_calc=current_size,file.filename={image}"
    command = ["qemu-img", "convert", "--image-opts", options, "-O", "raw", str(tmp_path / "found.raw")]
    subprocess.run(command, check=True)
    found = (tmp_path / "found.raw").read_bytes()

    with open_disk(env, image) as disk:
        assert read_all(disk, length) == found
        end = stored = 0
        for one in disk.extents():
            assert one.offset == end
            assert not one.zero or is_zero(memoryview(found)[one.offset : one.end])
            stored += 0 if one.zero else one.length
            end = one.end
        assert end == disk.size == 23 * MIB
    assert 0 < stored <= len(blocks) * 2 * MIB


def test_a_differencing_disk_of_pieces_and_full_blocks(env: Env, tmp_path: Path) -> None:
    base, _ = mixed(1, 20, 64 * KIB)
    own, _ = mixed(2, 20, 64 * KIB)
    expected = b"".join(mixed(1, 20, 64 * KIB)[1])
    vhd(tmp_path / "base.vhd", 20 * 64 * KIB, base, block=64 * KIB, id=BASE)
    child = vhd(tmp_path / "child.vhd", 20 * 64 * KIB, own, block=64 * KIB, parent=("base.vhd", BASE))
    truth = bytearray(expected)
    for number, (bitmap, content) in own.items():
        for sector in range(128):
            if bitmap[sector // 8] >> 7 - sector % 8 & 1:
                at = number * 64 * KIB + sector * 512
                truth[at : at + 512] = content[sector * 512 : sector * 512 + 512]

    assert opened(env, child) == truth


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
