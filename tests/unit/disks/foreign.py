# SPDX-License-Identifier: Apache-2.0
"""Images of other programs: by `qemu-img`, which is an independent writer and reader, and by hand what it cannot write:
differencing VHDX and VHD, and a VHDX whose log was not written back. Those by hand follow the specifications alone, and
share nothing with the parsers but the checksum."""

from __future__ import annotations

import random
import struct
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from keepstone.disks import BlockSource
from keepstone.disks.crc32c import crc32c
from keepstone.errors import SourceFailed
from keepstone.objects import aligned

__all__ = [
    "KIB",
    "MIB",
    "Memory",
    "Vhdx",
    "noise",
    "qemu_bytes",
    "qemu_image",
    "qemu_write",
    "read_all",
    "scattered",
    "vhd",
]

KIB, MIB = 1 << 10, 1 << 20


class Memory:
    """An image in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int, what: str) -> bytes:
        if not 0 <= offset <= self.size - length:
            raise SourceFailed(f"{what} is outside")
        return self.data[offset : offset + length]


def noise(size: int, seed: int = 0) -> bytes:
    """So many bytes that are found nowhere else."""
    return random.Random(seed).randbytes(size)


def scattered(path: Path, size: int, seed: int = 0, pieces: int = 20) -> bytes:
    """A sparse raw disk with pieces of all lengths at odd places; its content."""
    chance = random.Random(seed)
    content = bytearray(size)
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(pieces):
            at = chance.randrange(size)
            piece = chance.randbytes(chance.choice([1, 511, 4096, 70_001, 300_000]))[: size - at]
            file.seek(at)
            file.write(piece)
            content[at : at + len(piece)] = piece
    return bytes(content)


def qemu_image(source: Path, target: Path, format: str, options: str = "") -> Path:
    """A raw disk in another format."""
    given = ["-o", options] if options else []
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", format, *given, source, target], check=True)
    return target


def qemu_write(image: Path, format: str, pieces: dict[int, bytes], scratch: Path) -> None:
    """Write these pieces into an image."""
    for at, piece in pieces.items():
        scratch.write_bytes(piece)
        command = f"write -q -s {scratch} {at} {len(piece)}"
        subprocess.run(["qemu-io", "-f", format, "-c", command, image], check=True, stdout=subprocess.DEVNULL)


def qemu_bytes(image: Path, format: str, scratch: Path) -> bytes:
    """What QEMU finds on the disk."""
    subprocess.run(["qemu-img", "convert", "-f", format, "-O", "raw", image, scratch], check=True)
    return scratch.read_bytes()


def read_all(source: BlockSource, length: int = MIB) -> bytes:
    """The whole disk, in pieces of this length."""
    buffer = aligned(length)
    content = bytearray()
    while count := source.pread_into(buffer, len(content)):
        content += buffer[:count]
    return bytes(content)


def _guid(written: str) -> bytes:
    return uuid.UUID(written).bytes_le


def _checked(data: bytes) -> bytes:
    return data[:4] + struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]


@dataclass
class Vhdx:
    """A VHDX image as [MS-VHDX] has it. `blocks`: state and content of payload blocks by their number, placed in this
    order; `bitmap`: the sectors that are here, of the first chunk; `parent`: (name, id) of the parent.

    `logged`: the block allocation table is in the log only, with zeros at its place; this many entries, of which the
    first ones are older states of it.
    """

    size: int
    blocks: dict[int, tuple[int, bytes]]
    block: int = MIB
    sector: int = 512
    bitmap: bytes = b""
    parent: tuple[str, str] | None = None
    id: str = "11111111-2222-3333-4444-555555555555"
    logged: int = 0
    zeroed: bool = False
    turn: int = 0
    """Sector of the log at which its entries begin; they go around its end."""
    log_size: int = MIB
    places: dict[int, int] = field(default_factory=dict)
    """Where each block came to lie."""

    def write(self, path: Path) -> Path:
        """The file."""
        bat = bytearray(MIB)
        end = 4 * MIB
        ratio = (1 << 23) * self.sector // self.block
        tail: list[tuple[int, bytes]] = []
        for number, (state, content) in self.blocks.items():
            at = 8 * (number + number // ratio)
            if state in (6, 7):
                struct.pack_into("<Q", bat, at, end | state)
                self.places[number] = end
                tail.append((end, content.ljust(self.block, b"\0")))
                end += self.block
            else:
                struct.pack_into("<Q", bat, at, state)
        if self.bitmap:
            struct.pack_into("<Q", bat, 8 * ratio, end | 6)
            tail.append((end, self.bitmap.ljust(MIB, b"\0")))
            end += MIB
        log_guid = _guid("99999999-8888-7777-6666-555555555555") if self.logged else bytes(16)
        with path.open("wb") as file:
            file.truncate(end)
            file.write(b"vhdxfile" + "a test".encode("utf-16-le"))
            for number in (0, 1):
                file.seek((64 + 64 * number) * KIB)
                file.write(self._header(number + 1, log_guid if number else bytes(16)))
                file.seek((192 + 64 * number) * KIB)
                file.write(self._regions())
            file.seek(2 * MIB)
            file.write(self._metadata())
            file.seek(3 * MIB)
            file.write(bytes(MIB) if self.logged else bat)
            if self.logged:
                log = self._log(bytes(bat), log_guid, end)
                file.seek(MIB)
                file.write(log)
            for at, content in tail:
                file.seek(at)
                file.write(content)
        return path

    def _header(self, sequence: int, log_guid: bytes) -> bytes:
        data = struct.pack(
            "<4sIQ16s16s16sHHIQ", b"head", 0, sequence, bytes(range(16)), _guid(self.id), log_guid, 0, 1,
            self.log_size, MIB,
        )  # fmt: skip
        return _checked(data.ljust(4096, b"\0"))

    def _regions(self) -> bytes:
        bat = struct.pack("<16sQII", _guid("2DC27766-F623-4200-9D64-115E9BFD4A08"), 3 * MIB, MIB, 1)
        metadata = struct.pack("<16sQII", _guid("8B7CA206-4790-4B9A-B8FE-575F050F886E"), 2 * MIB, MIB, 1)
        return _checked((struct.pack("<4sIII", b"regi", 0, 2, 0) + bat + metadata).ljust(64 * KIB, b"\0"))

    def _metadata(self) -> bytes:
        items = [
            ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", struct.pack("<II", self.block, 2 if self.parent else 0), 4),
            ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", struct.pack("<Q", self.size), 6),
            ("BECA12AB-B2E6-4523-93EF-C309E000C746", bytes(range(16)), 6),
            ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", struct.pack("<I", self.sector), 6),
            ("CDA348C7-445D-4471-9CC9-E9885251C556", struct.pack("<I", 4096), 6),
        ]
        if self.parent:
            items.append(("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", self._locator(*self.parent), 4))
        table = struct.pack("<8sHH20s", b"metadata", 0, len(items), bytes(20))
        body = b""
        for guid, content, flags in items:
            table += struct.pack("<16sIIII", _guid(guid), 64 * KIB + len(body), len(content), flags, 0)
            body += content
        return table.ljust(64 * KIB, b"\0") + body

    def _locator(self, name: str, id: str) -> bytes:
        pairs = {
            "parent_linkage": "{" + id + "}",
            "relative_path": name,
            "absolute_win32_path": "\\\\?\\d:\\elsewhere\\" + name.rpartition("\\")[2],
        }
        head = _guid("B04AEFB7-D19E-4A81-B789-25B8E9445913") + struct.pack("<HH", 0, len(pairs))
        at = 20 + 12 * len(pairs)
        strings = b""
        for key, value in pairs.items():
            left, right = key.encode("utf-16-le"), value.encode("utf-16-le")
            start = at + len(strings)
            head += struct.pack("<IIHH", start, start + len(left), len(left), len(right))
            strings += left + right
        return head + strings

    def _log(self, bat: bytes, guid: bytes, end: int) -> bytes:
        """Entries of the first page of the table: of all but the last, older ones that are wrong."""
        log = bytearray(self.log_size)
        first = at = self.turn * 4096
        for number in range(self.logged):
            page = bat[:4096] if number == self.logged - 1 else noise(4096, number)
            entry = self._entry(page, 7 + number, first, guid, end)
            for offset in range(0, len(entry), 4096):
                log[at : at + 4096] = entry[offset : offset + 4096]
                at = (at + 4096) % self.log_size
        return bytes(log)

    def _entry(self, page: bytes, sequence: int, tail: int, guid: bytes, end: int) -> bytes:
        descriptor = struct.pack("<4s4s8sQQ", b"desc", page[-4:], page[:8], 3 * MIB, sequence)
        count = 1
        if self.zeroed:
            descriptor = struct.pack("<4sIQQQ", b"zero", 0, 8192, 3 * MIB, sequence) + descriptor
            count = 2
        header = struct.pack(
            "<4sIIIQII16sQQ", b"loge", 0, 8192, tail, sequence, count, 0, guid, end, end
        )  # fmt: skip
        sector = struct.pack("<4sI", b"data", sequence >> 32) + page[8:-4] + struct.pack("<I", sequence & 0xFFFFFFFF)
        return _checked((header + descriptor).ljust(4096, b"\0") + sector)


def vhd(
    path: Path,
    size: int,
    blocks: dict[int, tuple[bytes, bytes]],
    *,
    block: int = 2 * MIB,
    id: bytes = bytes(15) + b"\1",
    parent: tuple[str, bytes] | None = None,
    locator: str = "",
) -> Path:
    """A dynamic or differencing VHD image. `blocks`: bitmap and content by number; `parent`: (name, id); `locator`: its
    path, relative."""
    kind = 4 if parent else 3
    footer = struct.pack(
        ">8sIIQI4sI4sQQIII16s", b"conectix", 2, 0x00010000, 512, 0, b"test", 0, b"Wi2k", size, size, 0, kind, 0, id
    ).ljust(512, b"\0")
    footer = _summed(footer, 64)
    entries = -(-size // block)
    table_at, name_at = 2048, 1536
    name = locator.encode("utf-16-le")
    unicode_name, parent_id = (parent[0].encode("utf-16-be"), parent[1]) if parent else (b"", bytes(16))
    header = struct.pack(
        ">8sQQIIII16sII512s", b"cxsparse", (1 << 64) - 1, table_at, 0x00010000, entries, block, 0, parent_id, 0, 0,
        unicode_name,
    )  # fmt: skip
    if locator:
        header += struct.pack(">4sIIIQ", b"W2ru", 512, len(name), 0, name_at)
    header = _summed(header.ljust(1024, b"\0"), 36)
    table = bytearray(b"\xff" * (-(-4 * entries // 512) * 512))
    room = -(-max(1, block // 512 // 8) // 512) * 512
    at = table_at + len(table)
    with path.open("wb") as file:
        for number, (bitmap, content) in blocks.items():
            struct.pack_into(">I", table, 4 * number, at // 512)
            file.seek(at)
            file.write(bitmap.ljust(room, b"\0") + content.ljust(block, b"\0"))
            at += room + block
        file.seek(at)
        file.write(footer)
        file.seek(0)
        file.write(footer + header + name.ljust(512, b"\0") + bytes(table))
    return path


def _summed(data: bytes, field: int) -> bytes:
    return data[:field] + struct.pack(">I", ~sum(data) & 0xFFFFFFFF) + data[field + 4 :]
