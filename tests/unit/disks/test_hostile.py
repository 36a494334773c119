# SPDX-License-Identifier: Apache-2.0
"""Images that were made to do harm, and mutants of good ones: what they get is an error of the tree, soon.

`KEEPSTONE_MUTANTS=100000` tries so many of each kind; a failure names the seed that makes its mutant again.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from keepstone.disks import open_disk
from keepstone.disks import vhd as vhd_parser
from keepstone.disks import vhdx as vhdx_parser
from keepstone.disks import vmdk as vmdk_parser
from keepstone.disks.crc32c import crc32c
from keepstone.disks.image import Image
from keepstone.disks.layout import DATA, DEFLATED, Layout, check, check_apart
from keepstone.disks.mapped import MappedSource
from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing, Unsupported
from keepstone.objects import DirectFile, aligned
from tests.unit.disks.foreign import KIB, MIB, Memory, Vhdx, noise, vhd

pytestmark = pytest.mark.vm

MUTANTS = int(os.environ.get("KEEPSTONE_MUTANTS", "150"))
SECTOR = 512
GRAIN = 64 * KIB


def vmdk(
    capacity: int, grains: dict[int, bytes], *, stream: bool = False, size: int | None = None, text: str | None = None
) -> bytes:
    """A sparse VMDK image of so many sectors: markers and a footer where it is a `stream`. `size` is what its text has
    for it."""
    flags = 1 | (3 << 16 if stream else 0)
    tables = -(-capacity // (512 * GRAIN // SECTOR))
    described = f'RW {capacity if size is None else size} SPARSE "self.vmdk"\n'
    text = text or f"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n{described}"
    start = 21 + -(-4 * tables // SECTOR) + 4 * tables
    body, places = b"", {}
    for number, content in grains.items():
        places[number] = start + len(body) // SECTOR
        packed = zlib.compress(content)
        piece = struct.pack("<QI", number * GRAIN // SECTOR, len(packed)) + packed if stream else content
        body += piece.ljust(-(-len(piece) // SECTOR) * SECTOR, b"\0")
    directory = 21
    first = directory + -(-4 * tables // SECTOR)
    head = struct.pack(
        "<4sIIQQQQIQQQ?4sH", b"KDMV", 3 if stream else 1, flags, capacity, GRAIN // SECTOR, 1, 20, 512, 0,
        directory, start, False, b"\n \r\n", int(stream),
    )  # fmt: skip
    middle = b"".join(struct.pack("<I", first + 4 * number) for number in range(tables))
    middle = middle.ljust((first - directory) * SECTOR, b"\0")
    table = b"".join(struct.pack("<I", places.get(number, 0)) for number in range(512 * tables))
    return head.ljust(SECTOR, b"\0") + text.encode().ljust(20 * SECTOR, b"\0") + middle + table + body


# Mutants


def mended_vhdx(data: bytearray) -> None:
    """Make the checksums of headers, region tables and the log right again, where they can be."""
    places = [(64 * KIB, 4096), (128 * KIB, 4096), (192 * KIB, 64 * KIB), (256 * KIB, 64 * KIB), (MIB, 8192)]
    for at, length in places:
        piece = bytes(data[at : at + length])
        if len(piece) == length:
            struct.pack_into("<I", data, at + 4, crc32c(piece[:4] + bytes(4) + piece[8:]))


def mended_vhd(data: bytearray) -> None:
    for at, length, field in ((0, 512, 64), (512, 1024, 36), (len(data) - 512, 512, 64)):
        if at >= 0 and at + length <= len(data):
            data[at + field : at + field + 4] = bytes(4)
            struct.pack_into(">I", data, at + field, ~sum(data[at : at + length]) & 0xFFFFFFFF)


def untouched(data: bytearray) -> None:
    """There is no checksum."""


Kind = tuple[Callable[[Path], bytes], Callable[[Image], object], list[tuple[int, int]], Callable[[bytearray], None]]
HALF = b"\xf0" * 256 + bytes(256)
VHDX_TABLES = [
    (64 * KIB, 80), (128 * KIB, 80), (192 * KIB, 80), (MIB, 200), (MIB + 4096, 80), (2 * MIB, 240),
    (2 * MIB + 64 * KIB, 500), (3 * MIB, 64), (3 * MIB + 8 * 4096, 8),
]  # fmt: skip
KINDS: dict[str, Kind] = {
    "vhdx": (
        lambda path: Vhdx(6 * MIB, {0: (6, noise(MIB)), 4: (6, b"x")}).write(path).read_bytes(),
        vhdx_parser.parse, VHDX_TABLES, mended_vhdx,
    ),
    "vhdx with a log": (
        lambda path: Vhdx(6 * MIB, {0: (6, noise(MIB)), 4: (6, b"x")}, logged=1, zeroed=True).write(path).read_bytes(),
        vhdx_parser.parse, VHDX_TABLES, mended_vhdx,
    ),
    "vhdx with a parent": (
        lambda path: Vhdx(
            6 * MIB, {0: (6, noise(MIB)), 1: (7, b"x"), 3: (2, b"")}, bitmap=noise(2000),
            parent=("p.vhdx", Vhdx(0, {}).id),
        ).write(path).read_bytes(),
        vhdx_parser.parse, VHDX_TABLES, mended_vhdx,
    ),
    "vhd": (
        lambda path: vhd(path, 5 * MIB, {0: (HALF, noise(2 * MIB)), 2: (b"\xff" * 512, b"y")}).read_bytes(),
        vhd_parser.parse, [(0, 100), (512, 100), (2048, 32), (2560, 512)], mended_vhd,
    ),
    "vhd with a parent": (
        lambda path: vhd(path, 5 * MIB, {1: (HALF, b"z")}, parent=("p", bytes(16)), locator="..\\p.vhd").read_bytes(),
        vhd_parser.parse, [(0, 100), (512, 800), (1536, 64), (2048, 32), (2560, 512)], mended_vhd,
    ),
    "vmdk": (
        lambda path: vmdk(10240, {0: noise(GRAIN), 7: noise(GRAIN, 1)}),
        partial(vmdk_parser.parse, child=False), [(0, 80), (21 * SECTOR, 64), (22 * SECTOR, 600)], untouched,
    ),
    "vmdk, stream": (
        lambda path: vmdk(10240, {0: noise(GRAIN), 7: bytes(GRAIN)}, stream=True),
        partial(vmdk_parser.parse, child=True), [(0, 80), (21 * SECTOR, 64), (22 * SECTOR, 600), (26 * SECTOR, 99)],
        untouched,
    ),
    "vmdk, its text": (
        lambda path: vmdk(10240, {0: noise(GRAIN)}), vmdk_parser.describe, [(0, 80), (SECTOR, 150)], untouched,
    ),
}  # fmt: skip
TELLING = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]


def mutant(good: bytes, tables: list[tuple[int, int]], mend: Callable[[bytearray], None], seed: int) -> bytes:
    """One of the many wrong images that are nearly right."""
    chance = random.Random(seed)
    data = bytearray(good)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at, length = chance.choice(tables)
        at += chance.randrange(length)
        match chance.randrange(4):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:
                width = chance.choice([2, 4, 8])
                value = chance.choice(TELLING) % (1 << 8 * width)
                at -= at % width
                data[at : at + width] = value.to_bytes(width, chance.choice(["little", "big"]))
            case _:
                other, reach = chance.choice(tables)
                count = chance.choice([4, 8, 16, 32])
                other += chance.randrange(reach)
                data[at : at + count] = data[other : other + count]
    del data[len(good) :]
    if chance.random() < 0.9:
        mend(data)
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_do_no_harm(tmp_path: Path, kind: str) -> None:
    make, parse, tables, mend = KINDS[kind]
    good = make(tmp_path / "good")
    assert parse(Memory(good))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    alive = 0
    for seed in range(MUTANTS // 3 if "vhdx" in kind else MUTANTS):  # whose checksums take their time
        data = mutant(good, tables, mend, seed)
        began = time.process_time()
        try:
            found = parse(Memory(data))
            if isinstance(found, Layout):
                check_apart(check(found, [len(data)]))
                alive += 1
                _read(tmp_path / "mutant", data, found, seed)
        except (SourceFailed, Unsupported):
            pass
        except BaseException as error:
            error.add_note(f"seed {seed} of {kind}")
            raise
        assert time.process_time() - began < 5, f"seed {seed} of {kind} takes too long"
    assert alive or "text" in kind
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 700 * KIB, "more memory than the tables need"


def _read(path: Path, data: bytes, layout: Layout, seed: int) -> None:
    """What can be read of a layout that was found good is read, or is an error; nothing else."""
    path.write_bytes(data)
    parent = MappedSource(
        check(vhd_parser.parse(Memory(vhd(path.with_suffix(".p"), MIB, {}).read_bytes())), [1 << 40]), [], None
    )
    source = MappedSource(layout, [(str(path), DirectFile(Env().fs, str(path)))], parent)
    chance = random.Random(seed)
    try:
        buffer = aligned(100_000)
        for _ in range(5):
            source.pread_into(buffer, chance.randrange(layout.size + 1))
        if len(layout.starts) < 1000:
            assert sum(extent.length for extent in source.extents()) == layout.size
    finally:
        source.close()


# By hand


def opens(path: Path, reason: str, kind: type[Exception] = SourceFailed) -> None:
    began = time.monotonic()
    with pytest.raises(kind, match=reason):
        open_disk(Env(), path)
    assert time.monotonic() - began < 60


def test_a_block_outside_of_the_file(tmp_path: Path) -> None:
    image = Vhdx(6 * MIB, {0: (6, noise(MIB))}).write(tmp_path / "disk.vhdx")
    data = bytearray(image.read_bytes())
    struct.pack_into("<Q", data, 3 * MIB, 5 << 20 | 6)
    image.write_bytes(data)
    opens(image, r"disk\.vhdx: its table places a block at 5242880, and the file has 5242880 bytes")
    struct.pack_into("<Q", data, 3 * MIB, (1 << 64) - (1 << 20) | 6)
    image.write_bytes(data)
    opens(image, "its table places a block at -1048576")


def test_a_disk_of_far_too_many_bytes(tmp_path: Path) -> None:
    opens(Vhdx(1 << 63, {}).write(tmp_path / "disk.vhdx"), "it says that its disk has 9223372036854775808 bytes")
    data = bytearray(vhd(tmp_path / "disk.vhd", MIB, {}).read_bytes())
    data[48:56] = data[len(data) - 464 : len(data) - 456] = (1 << 63).to_bytes(8, "big")
    mended_vhd(data)
    (tmp_path / "disk.vhd").write_bytes(data)
    opens(tmp_path / "disk.vhd", "it says that its disk has 9223372036854775808 bytes")
    (tmp_path / "disk.vmdk").write_bytes(vmdk(10240, {}).replace(struct.pack("<Q", 10240), struct.pack("<Q", 1 << 62)))
    opens(tmp_path / "disk.vmdk", "a disk has at most")
    (tmp_path / "disk.vmdk").write_bytes(vmdk(10240, {}).replace(struct.pack("<Q", 10240), struct.pack("<Q", 1 << 37)))
    opens(tmp_path / "disk.vmdk", "it has 2097152 grain tables")
    (tmp_path / "text.vmdk").write_text('# Disk DescriptorFile\nCID=1\nRW 9223372036854775807 FLAT "a" 0\n')
    opens(tmp_path / "text.vmdk", "longer than a disk can be")


def test_blocks_that_share_bytes(tmp_path: Path) -> None:
    image = Vhdx(6 * MIB, {0: (6, noise(MIB)), 1: (6, noise(MIB))}).write(tmp_path / "disk.vhdx")
    data = bytearray(image.read_bytes())
    data[3 * MIB : 3 * MIB + 8] = data[3 * MIB + 8 : 3 * MIB + 16]
    image.write_bytes(data)
    opens(image, "its table gives the bytes at 5242880 to two blocks")


def test_pieces_that_share_bytes(tmp_path: Path) -> None:
    image = tmp_path / "disk.vmdk"
    (tmp_path / "flat").write_bytes(bytes(MIB))
    image.write_text('# Disk DescriptorFile\nCID=1\nRW 9 FLAT "flat" 0\nRW 9 FLAT "flat" 8\n')
    opens(image, r"disk\.vmdk: its description gives the same part of flat to two places")


def test_a_description_of_a_million_lines(tmp_path: Path) -> None:
    image = tmp_path / "disk.vmdk"
    head = "# Disk DescriptorFile\nCID=1\n"
    image.write_text(head + 'RW 1 FLAT "a" 0\n' * 60_000)
    opens(image, "in more than 256 files", Unsupported)
    image.write_text(head + "RW 1 ZERO\n" * 1_000_000)
    opens(image, "does not begin as a VMDK image does")
    image.write_text(head + "a=b\n" * 250_000)
    opens(image, "names no id or no data")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../etc/passwd", "..", ".", "a/", "..\\", "C:\\x\\..", "a\\b/", "x" * 300]
)
def test_paths_that_lead_away(tmp_path: Path, name: str) -> None:
    image = tmp_path / "disk.vmdk"
    image.write_text(f'# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 4 FLAT "{name}" 0\n')
    with pytest.raises(
        (SourceMissing, SourceFailed), match=r"a part of it is missing, passwd|what a part of it is called"
    ):
        open_disk(Env(), image)
    (tmp_path / "part").symlink_to("/etc/passwd")
    image.write_text('# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 4 FLAT "part" 0\n')
    opens(image, r"part is a part of it, and is no regular file")


def test_what_the_caller_forbids_is_not_opened(tmp_path: Path) -> None:
    class Forbidden(Exception):
        pass

    def allowed(path: Path) -> None:
        raise Forbidden(path.name)

    (tmp_path / "secret").write_bytes(noise(2048))
    image = tmp_path / "disk.vmdk"
    image.write_text('# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 4 FLAT "secret" 0\n')
    with pytest.raises(Forbidden, match="secret"):
        open_disk(Env(), image, allowed=allowed)


def test_a_bomb_unpacks_no_more_than_a_grain(tmp_path: Path) -> None:
    image = tmp_path / "disk.vmdk"
    image.write_bytes(vmdk(256, {0: noise(GRAIN), 1: bytes(50 * MIB)}, stream=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_disk(Env(), image) as disk:
        buffer = aligned(2 * GRAIN)
        assert disk.pread_into(buffer, 0) == 2 * GRAIN
        assert bytes(buffer) == noise(GRAIN) + bytes(GRAIN)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20 * KIB


@pytest.mark.parametrize("wrong", [b"\xff" * 20, zlib.compress(b"short")])
def test_a_grain_that_cannot_be_unpacked(tmp_path: Path, wrong: bytes) -> None:
    image = tmp_path / "disk.vmdk"
    data = bytearray(vmdk(256, {0: noise(GRAIN)}, stream=True))
    at = data.index(zlib.compress(noise(GRAIN))[:20])
    data[at : at + len(wrong)] = wrong
    image.write_bytes(data)
    with (
        open_disk(Env(), image) as disk,
        pytest.raises(SourceFailed, match=r"disk\.vmdk has a grain at \d+ that cannot be"),
    ):
        disk.pread_into(aligned(GRAIN), 0)


def test_grains_in_circles(tmp_path: Path) -> None:
    data = bytearray(vmdk(1 << 20, {0: noise(GRAIN)}))
    table = data.index(struct.pack("<I", 22))
    for number in range(16):  # every directory entry is the first table
        struct.pack_into("<I", data, table + 4 * number, 22)
    (tmp_path / "disk.vmdk").write_bytes(data)
    opens(tmp_path / "disk.vmdk", "to two blocks")


def test_a_table_as_large_as_its_file_says(tmp_path: Path) -> None:
    """All of it zeros, in a file that is a hole: 64 TiB in blocks of 1 MiB, and no time or memory for it."""
    image = Vhdx(64 << 40, {}).write(tmp_path / "disk.vhdx")
    with image.open("r+b") as file:
        regions = bytearray(image.read_bytes()[192 * KIB : 256 * KIB])
        struct.pack_into("<I", regions, 16 + 24, 1 << 30)
        struct.pack_into("<I", regions, 4, 0)
        struct.pack_into("<I", regions, 4, crc32c(bytes(regions)))
        file.seek(192 * KIB)
        file.write(regions)
        file.truncate(2 << 30)
    began = time.monotonic()
    with open_disk(Env(), image) as disk:
        assert disk.size == 64 << 40
        assert [extent.zero for extent in disk.extents()] == [True]
    assert time.monotonic() - began < 60


def test_more_pieces_than_memory_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepstone.disks.layout.MOST_RUNS", 100)
    bitmap = b"\xaa" * 512
    with pytest.raises(SourceFailed, match="in more than 100 pieces"):
        vhd_parser.parse(Memory(vhd(tmp_path / "disk.vhd", 2 * MIB, {0: (bitmap, noise(2 * MIB))}).read_bytes()))


def test_kinds_that_the_vmdk_writer_here_makes_are_right(tmp_path: Path) -> None:
    for stream in (False, True):
        layout = vmdk_parser.parse(Memory(vmdk(10240, {3: noise(GRAIN)}, stream=stream)), child=False)
        assert (DEFLATED if stream else DATA) in layout.kinds
