# SPDX-License-Identifier: Apache-2.0
"""VHD, fixed and dynamic. Big-endian. Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0 (2006).

A fixed one is the disk and a footer. Azure takes only these, and wants the disk to be whole MiB (Microsoft Learn,
"Prepare a Windows VHD or VHDX to upload to Azure"): it is padded with zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

from keepstone.disks.writing.cells import Cells
from keepstone.disks.writing.file import Piece
from keepstone.disks.writing.sink import whole
from keepstone.env import Env

__all__ = ["LIMIT", "DynamicVhd", "FixedVhd", "geometry"]

LIMIT = 2040 << 30
"""The longest disk that Windows and Azure open; it also keeps the sector numbers of a dynamic one below 2³²."""

_SECTOR, _MIB = 512, 1 << 20
_NOWHERE = 0xFFFFFFFFFFFFFFFF
_FIXED, _DYNAMIC = 2, 3
_EPOCH = 946_684_800  # 2000-01-01 UTC, in seconds since 1970
# Virtual PC, and readers after it, take a disk to be as long as its CHS geometry says, which is less than it is, unless
# the creator is known to go by the size. Hyper-V is: "win ", as of Windows 10.0, on "Wi2k" (see block/vpc.c of QEMU).
_CREATOR, _CREATOR_VERSION, _HOST = b"win ", 0x000A0000, b"Wi2k"


def geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors of a track of a disk of `size` bytes. Source: the specification, appendix "CHS
    Calculation"."""
    total = min(size // _SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        return total // sectors // heads, heads, sectors
    sectors = 17
    heads = max(4, (total // sectors + 1023) // 1024)
    if total // sectors >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
    if total // sectors >= heads * 1024:
        sectors, heads = 63, 16
    return total // sectors // heads, heads, sectors


def _checked(block: bytes, at: int) -> bytes:
    """With the one's complement of the sum of its bytes at `at`, where it has four zeros."""
    return block[:at] + struct.pack(">I", ~sum(block) & 0xFFFFFFFF) + block[at + 4 :]


def _footer(env: Env, size: int, kind: int) -> bytes:
    """Section "Hard Disk Footer Format"."""
    footer = struct.pack(
        ">8sIIQI4sI4sQQHBBII16sB427x",
        b"conectix",
        2,  # features: this bit is always set
        0x00010000,
        _NOWHERE if kind == _FIXED else _SECTOR,
        max(0, env.wall_time() // 10**9 - _EPOCH),
        _CREATOR,
        _CREATOR_VERSION,
        _HOST,
        size,
        size,
        *geometry(size),
        kind,
        0,
        UUID(bytes=env.random(16), version=4).bytes,
        0,  # no saved state
    )
    return _checked(footer, 64)


class FixedVhd:
    """The disk as it is, then the footer."""

    page = 1

    def __init__(self, env: Env, size: int) -> None:
        self.size = whole(size, _MIB)
        self.cell = self.size
        self._footer = _footer(env, self.size, _FIXED)

    def place(self, number: int) -> int:
        return 0

    def length(self, cells: Cells) -> int:
        return self.size + _SECTOR

    def body(self, cells: Cells) -> Iterator[Piece]:
        yield from ()

    def head(self, cells: Cells) -> Iterator[Piece]:
        yield self.size, self._footer


class DynamicVhd:
    """A copy of the footer, the header, the table of blocks, the blocks, the footer. Each block begins with a bitmap of
    its sectors; what is before it makes its data begin on a page."""

    cell = 2 << 20
    page = 4096
    _STRIDE = (2 << 20) + 4096
    _TABLE = 3 * _SECTOR

    def __init__(self, env: Env, size: int) -> None:
        self.size = whole(size, _SECTOR)
        self._entries = -(-self.size // self.cell)
        self._first = -(-(self._TABLE + 4 * self._entries) // 4096) * 4096
        self._footer = _footer(env, self.size, _DYNAMIC)

    def place(self, number: int) -> int:
        return self._first + number * self._STRIDE + 4096

    def length(self, cells: Cells) -> int:
        return self._first + cells.stored * self._STRIDE + _SECTOR

    def body(self, cells: Cells) -> Iterator[Piece]:
        """Sections "Dynamic Disk Header Format", "Block Allocation Table"; and all bits of the bitmaps: a sector that
        nobody wrote is zeros in the file."""
        yield (
            _SECTOR,
            _checked(
                struct.pack(">8sQQIII", b"cxsparse", _NOWHERE, self._TABLE, 0x00010000, self._entries, self.cell)
                + bytes(1024 - 36),
                36,
            ),
        )
        table = bytearray(b"\xff" * (-(-4 * self._entries // _SECTOR) * _SECTOR))
        for index, numbers in cells.pages():
            for at, number in enumerate(numbers, index * self.page):
                if number is not None:
                    struct.pack_into(">I", table, 4 * at, self.place(number) // _SECTOR - 1)
        yield self._TABLE, table
        for number in range(cells.stored):
            yield self.place(number) - _SECTOR, b"\xff" * _SECTOR
        yield self.length(cells) - _SECTOR, self._footer

    def head(self, cells: Cells) -> Iterator[Piece]:
        yield 0, self._footer
