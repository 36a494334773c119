# SPDX-License-Identifier: Apache-2.0
"""VHDX as QEMU does not write it: differencing images, sector bitmaps, logs that were not written back, damage."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from keepstone.disks import open_disk
from keepstone.disks.crc32c import crc32c
from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing, Unsupported
from keepstone.objects import is_zero
from tests.unit.disks.foreign import KIB, MIB, Vhdx, noise, qemu_bytes, read_all

pytestmark = pytest.mark.vm

BASE = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


def opened(env: Env, path: Path) -> bytes:
    with open_disk(env, path) as disk:
        content = read_all(disk)
        for extent in disk.extents():
            assert not extent.zero or is_zero(memoryview(content)[extent.offset : extent.end])
        return content


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img (apt install qemu-utils)")
@pytest.mark.parametrize(("logged", "turn", "zeroed"), [(0, 0, False), (1, 0, False), (3, 254, True)])
def test_the_images_made_by_hand_are_read_by_qemu(tmp_path: Path, logged: int, turn: int, zeroed: bool) -> None:
    blocks = {0: (6, noise(MIB)), 3: (2, b""), 5: (6, noise(1000, 1))}
    image = Vhdx(9 * MIB, blocks, logged=logged, turn=turn, zeroed=zeroed).write(tmp_path / "disk.vhdx")
    content = opened(Env(), image)

    assert content == noise(MIB) + bytes(4 * MIB) + noise(1000, 1).ljust(4 * MIB, b"\0")
    subprocess.run(
        ["qemu-img", "check", "-q", "-r", "all", "-f", "vhdx", image], check=False
    )  # has the log written back
    assert qemu_bytes(image, "vhdx", tmp_path / "raw") == content


@pytest.mark.parametrize("state", range(8))
def test_each_state_of_a_block(env: Env, tmp_path: Path, state: int) -> None:
    content = noise(MIB)
    image = Vhdx(2 * MIB, {1: (state, content)}).write(tmp_path / "disk.vhdx")
    if state in (4, 5, 7):
        with pytest.raises(SourceFailed, match="in a state that there is not"):
            open_disk(env, image)
    else:
        assert opened(env, image) == bytes(MIB) + (content if state == 6 else bytes(MIB))


def family(folder: Path, *, sector: int = 512, size: int = 6 * MIB) -> tuple[Path, bytes]:
    """A parent and its child, which has another size; what the child's disk is."""
    base = noise(5 * MIB, 9)
    Vhdx(5 * MIB, {n: (6, base[n * MIB : (n + 1) * MIB]) for n in range(5)}, id=BASE, sector=sector).write(
        folder / "base.vhdx"
    )
    own = noise(4 * MIB)
    kept = bytearray(MIB)  # sectors of block 2 that are here: the first three, and the last one
    sectors = MIB // sector
    for number in (0, 1, 2, sectors - 1):
        at = 2 * sectors + number
        kept[at // 8] |= 1 << at % 8
    blocks = {0: (6, own[:MIB]), 1: (3, b""), 2: (7, own[MIB : 2 * MIB]), 4: (0, b"")}
    child = Vhdx(size, blocks, bitmap=bytes(kept), parent=("..\\far\\base.vhdx", BASE), sector=sector)
    child.write(folder / "child.vhdx")
    mixed = bytearray(base[2 * MIB : 3 * MIB])
    mixed[: 3 * sector] = own[MIB : MIB + 3 * sector]
    mixed[-sector:] = own[2 * MIB - sector : 2 * MIB]
    disk = own[:MIB] + bytes(MIB) + mixed + base[3 * MIB :] + bytes(MIB)
    return folder / "child.vhdx", disk[:size]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_differencing_disk(env: Env, tmp_path: Path, sector: int) -> None:
    child, expected = family(tmp_path, sector=sector)

    assert opened(env, child) == expected


def test_a_parent_in_a_folder_that_the_caller_gives(env: Env, tmp_path: Path) -> None:
    child, expected = family(tmp_path)
    (tmp_path / "parents").mkdir()
    (tmp_path / "base.vhdx").rename(tmp_path / "parents/base.vhdx")
    with pytest.raises(SourceMissing, match=r"child\.vhdx: its parent is missing, base\.vhdx; put it beside the image"):
        open_disk(env, child)
    asked: list[Path] = []

    with open_disk(env, child, folders=[tmp_path / "parents"], allowed=asked.append) as disk:
        assert read_all(disk) == expected
    assert asked == [tmp_path / "parents/base.vhdx"]


def test_parents_that_are_refused(env: Env, tmp_path: Path) -> None:
    child, _ = family(tmp_path)
    base = tmp_path / "base.vhdx"
    base.rename(tmp_path / "real.vhdx")
    base.symlink_to("real.vhdx")
    with pytest.raises(SourceFailed, match=r"base\.vhdx is its parent, and is no regular file"):
        open_disk(env, child)
    base.unlink()
    Vhdx(5 * MIB, {}, id="00000000-bbbb-cccc-dddd-eeeeeeeeeeee").write(base)
    with pytest.raises(SourceFailed, match=r"base\.vhdx is not the parent of .*child\.vhdx.*aaaaaaaa-bbbb.* is needed"):
        open_disk(env, child)
    base.write_bytes(bytes(MIB))
    with pytest.raises(SourceFailed, match=r"base\.vhdx is no VHDX image, but .*child\.vhdx has it for a parent"):
        open_disk(env, child)


def test_a_circle_of_parents(env: Env, tmp_path: Path) -> None:
    ids = ["00000000-0000-0000-0000-00000000000" + digit for digit in "123"]
    for number in range(3):
        other = (number + 1) % 3
        Vhdx(MIB, {}, id=ids[number], parent=(f"{other}.vhdx", ids[other])).write(tmp_path / f"{number}.vhdx")
    with pytest.raises(SourceFailed, match=r"0\.vhdx is its own parent, by way of .*2\.vhdx"):
        open_disk(env, tmp_path / "0.vhdx")


def test_a_chain_that_never_ends(env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepstone.disks.foreign._LONGEST_CHAIN", 3)
    for number in range(5):
        Vhdx(MIB, {}, parent=(f"{number + 1}.vhdx", Vhdx(0, {}).id)).write(tmp_path / f"{number}.vhdx")
    with pytest.raises(SourceFailed, match="more than 3 parents"):
        open_disk(env, tmp_path / "0.vhdx")


# The log


@pytest.mark.parametrize("turn", [0, 1, 100, 252, 253, 255])
def test_a_log_goes_around_its_end(env: Env, tmp_path: Path, turn: int) -> None:
    disk = Vhdx(3 * MIB, {1: (6, noise(MIB))}, logged=4, turn=turn, zeroed=True)
    image = disk.write(tmp_path / "disk.vhdx")
    before = image.read_bytes()

    assert opened(env, image) == bytes(MIB) + noise(MIB) + bytes(MIB)
    assert image.read_bytes() == before


def patched(image: Path, at: int, data: bytes) -> Path:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(data)
    return image


def test_a_log_whose_newest_entry_is_torn_counts_without_it(env: Env, tmp_path: Path) -> None:
    image = Vhdx(3 * MIB, {1: (6, noise(MIB))}, logged=1).write(tmp_path / "disk.vhdx")
    whole = image.read_bytes()[MIB : MIB + 8192]
    torn = whole[:16] + struct.pack("<Q", 8) + whole[24:8000] + bytes(192)
    patched(image, MIB + 8192, torn)

    assert opened(env, image) == bytes(MIB) + noise(MIB) + bytes(MIB)


def test_what_was_written_back_already_is_not_replayed(env: Env, tmp_path: Path) -> None:
    disk = Vhdx(3 * MIB, {1: (6, noise(MIB))}, logged=1, turn=2)
    image = disk.write(tmp_path / "disk.vhdx")
    done = bytearray(image.read_bytes()[MIB + 8192 : MIB + 16384])  # the one before: it would make the metadata a table
    struct.pack_into("<I", done, 12, 0)
    struct.pack_into("<Q", done, 16, 6)
    struct.pack_into("<QQ", done, 64 + 16, 2 * MIB, 6)
    struct.pack_into("<I", done, 8192 - 4, 6)
    struct.pack_into("<I", done, 4, 0)
    struct.pack_into("<I", done, 4, crc32c(bytes(done)))
    patched(image, MIB, bytes(done))

    assert opened(env, image) == bytes(MIB) + noise(MIB) + bytes(MIB)
    patched(image, MIB + 8192, bytes(8192))  # alone it is the newest, and counts
    with pytest.raises(SourceFailed, match="its metadata is damaged"):
        open_disk(env, image)


def test_a_sequence_of_another_time_does_not_count(env: Env, tmp_path: Path) -> None:
    image = Vhdx(3 * MIB, {1: (6, noise(MIB))}, logged=1).write(tmp_path / "disk.vhdx")
    entry = bytearray(image.read_bytes()[MIB : MIB + 8192])
    struct.pack_into("<Q", entry, 16, 99)  # later, and its tail is not among what follows
    struct.pack_into("<Q", entry, 64 + 24, 99)
    struct.pack_into("<I", entry, 8192 - 4, 99)
    struct.pack_into("<I", entry, 12, 64 * KIB)
    entry[4096 + 100] ^= 1
    struct.pack_into("<I", entry, 4, 0)
    struct.pack_into("<I", entry, 4, crc32c(bytes(entry)))
    patched(image, MIB + 500 * KIB // 4096 * 4096, bytes(entry))

    assert opened(env, image) == bytes(MIB) + noise(MIB) + bytes(MIB)


@pytest.mark.parametrize(
    ("at", "data", "reason"),
    [
        (MIB + 4100, b"wrong", "no whole sequence"),
        (MIB + 4, b"\0\0\0\0", "no whole sequence"),
        (192 * KIB, b"x", ""),
        (64 * KIB, b"x", ""),
    ],
)
def test_damage_that_a_checksum_shows(env: Env, tmp_path: Path, at: int, data: bytes, reason: str) -> None:
    image = patched(Vhdx(3 * MIB, {1: (6, noise(MIB))}, logged=1).write(tmp_path / "disk.vhdx"), at, data)
    if reason:
        with pytest.raises(SourceFailed, match=rf"disk\.vhdx: .*{reason}.*; take another copy of it"):
            open_disk(env, image)
    else:  # the other copy is whole
        assert opened(env, image) == bytes(MIB) + noise(MIB) + bytes(MIB)


def test_both_copies_damaged(env: Env, tmp_path: Path) -> None:
    image = Vhdx(3 * MIB, {}).write(tmp_path / "disk.vhdx")
    patched(patched(image, 192 * KIB + 20, b"x"), 256 * KIB + 20, b"x")
    with pytest.raises(SourceFailed, match="neither of its two region tables is whole"):
        open_disk(env, image)
    patched(patched(image, 64 * KIB + 20, b"x"), 128 * KIB + 20, b"x")
    with pytest.raises(SourceFailed, match="neither of its two headers is whole"):
        open_disk(env, image)


def test_a_file_that_its_log_says_was_longer(env: Env, tmp_path: Path) -> None:
    image = Vhdx(3 * MIB, {1: (6, noise(MIB))}, logged=1).write(tmp_path / "disk.vhdx")
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size - MIB)
    with pytest.raises(SourceFailed, match="it was cut short"):
        open_disk(env, image)


def test_an_item_of_its_metadata_that_is_too_short(env: Env, tmp_path: Path) -> None:
    image = Vhdx(3 * MIB, {}).write(tmp_path / "disk.vhdx")
    patched(image, 2 * MIB + 32 + 20, b"\4\0\0\0")  # the length of the first one
    with pytest.raises(SourceFailed, match="an item of its metadata is too short"):
        open_disk(env, image)


def test_what_nobody_here_knows(env: Env, tmp_path: Path) -> None:
    image = Vhdx(3 * MIB, {}, parent=("x.vhdx", BASE)).write(tmp_path / "disk.vhdx")
    data = bytearray(image.read_bytes())
    at = data.index(b"\xb7\xef\x4a\xb0")  # the type of the locator
    data[at] ^= 1
    image.write_bytes(data)
    with pytest.raises(Unsupported, match="its parent is something else than a VHDX image"):
        open_disk(env, image)
