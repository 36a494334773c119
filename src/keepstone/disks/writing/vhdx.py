# SPDX-License-Identifier: Apache-2.0
"""VHDX, dynamic. Source: [MS-VHDX] v20240423. Little-endian.

0      file type identifier, two headers, two region tables (section 2.2)
1 MiB  the log, empty: nothing was ever changed in place
2 MiB  metadata (section 2.6)
3 MiB  the block allocation table (section 2.5), then the blocks
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

from keepstone.disks.crc32c import crc32c
from keepstone.disks.writing.cells import Cells
from keepstone.disks.writing.file import Piece
from keepstone.disks.writing.sink import whole
from keepstone.env import Env

__all__ = ["LIMIT", "Vhdx"]

LIMIT = 64 << 40
"""The longest disk there is: section 2.6.2.2."""

_KIB, _MIB = 1 << 10, 1 << 20
_SECTOR = 512
_BLOCKS = 1 << 20  # the table is kept below this while blocks can grow
_LOG, _METADATA, _BAT = _MIB, 2 * _MIB, 3 * _MIB
_BAT_REGION = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08").bytes_le
_METADATA_REGION = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
_FILE_PARAMETERS = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
_DISK_SIZE = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
_DISK_ID = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746").bytes_le
_LOGICAL_SECTOR = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F").bytes_le
_PHYSICAL_SECTOR = UUID("CDA348C7-445D-4471-9CC9-E9885251C556").bytes_le
_OF_DISK, _REQUIRED = 2, 4  # section 2.6.1.2
# Section 2.5.1.1. A block that is "not present" may read as anything: only "zero" is zeros.
_ZERO, _PRESENT = 2, 6


def _checked(block: bytes) -> bytes:
    """With its CRC-32C behind the signature, where it has four zeros."""
    return block[:4] + struct.pack("<I", crc32c(block)) + block[8:]


class Vhdx:
    """Blocks of 2 MiB, up to 32 MiB in longer disks."""

    page = 4096

    def __init__(self, env: Env, size: int) -> None:
        self.size = whole(size, _SECTOR)
        self.cell = 2 * _MIB
        while self.cell < 32 * _MIB and self.size > self.cell * _BLOCKS:
            self.cell *= 2
        self._count = -(-self.size // self.cell)
        # Section 2.5: behind each so many payload entries stands one for a bitmap of sectors, which only differencing
        # disks have.
        self._ratio = (_SECTOR << 23) // self.cell
        entries = self._count + max(0, self._count - 1) // self._ratio
        self._table = max(1, -(-8 * entries // _MIB)) * _MIB
        self._entries = entries
        self._ids = [UUID(bytes=env.random(16), version=4).bytes_le for _ in range(3)]

    def place(self, number: int) -> int:
        return _BAT + self._table + number * self.cell

    def length(self, cells: Cells) -> int:
        return self.place(cells.stored)

    def body(self, cells: Cells) -> Iterator[Piece]:
        regions = self._regions()
        yield from ((offset, regions) for offset in (192 * _KIB, 256 * _KIB))
        yield from ((_METADATA + offset, data) for offset, data in self._metadata())
        yield _BAT, self._blocks(cells)

    def _regions(self) -> bytes:
        """Section 2.2.3."""
        table = struct.pack("<4sIII", b"regi", 0, 2, 0)
        table += struct.pack("<16sQII", _BAT_REGION, _BAT, self._table, 1)
        table += struct.pack("<16sQII", _METADATA_REGION, _METADATA, _MIB, 1)
        return _checked(table.ljust(64 * _KIB, b"\0"))

    def _metadata(self) -> Iterator[Piece]:
        """The table (section 2.6.1), and 64 KiB into the region the items."""
        items = [
            (_FILE_PARAMETERS, struct.pack("<II", self.cell, 0), _REQUIRED),
            (_DISK_SIZE, struct.pack("<Q", self.size), _OF_DISK | _REQUIRED),
            (_DISK_ID, self._ids[2], _OF_DISK | _REQUIRED),
            (_LOGICAL_SECTOR, struct.pack("<I", _SECTOR), _OF_DISK | _REQUIRED),
            (_PHYSICAL_SECTOR, struct.pack("<I", 4096), _OF_DISK | _REQUIRED),
        ]
        table, values = struct.pack("<8sHH20x", b"metadata", 0, len(items)), b""
        for item, value, flags in items:
            table += struct.pack("<16sIIII", item, 64 * _KIB + len(values), len(value), flags, 0)
            values += value
        yield 0, table
        yield 64 * _KIB, values

    def _blocks(self, cells: Cells) -> bytes:
        table = bytearray(struct.pack("<Q", _ZERO) * self._entries)
        for at in range(self._ratio, self._entries, self._ratio + 1):
            struct.pack_into("<Q", table, 8 * at, 0)
        for index, numbers in cells.pages():
            for block, number in enumerate(numbers, index * self.page):
                if number is not None:  # the place in MiB stands from bit 20 on, so it is the place in bytes
                    struct.pack_into("<Q", table, 8 * (block + block // self._ratio), self.place(number) | _PRESENT)
        return bytes(table)

    def head(self, cells: Cells) -> Iterator[Piece]:
        """Sections 2.2.1 and 2.2.2. The header of the higher number is the current one."""
        for number, offset in enumerate((64 * _KIB, 128 * _KIB), 1):
            header = struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, number, *self._ids[:2], bytes(16), 0, 1, _MIB, _LOG)
            yield offset, _checked(header.ljust(4 * _KIB, b"\0"))
        yield 0, b"vhdxfile" + "Keepstone".encode("utf-16-le").ljust(512, b"\0")
