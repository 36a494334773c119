# SPDX-License-Identifier: Apache-2.0
"""VMDK sparse extents. Source: VMware, Virtual Disk Format 5.0 (technical note, 2011). Little-endian, in sectors.

The capacity is whole grains (section "Hosted Sparse Extent Header"): a disk is padded with zeros to 64 KiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from keepstone.disks.writing.cells import Cells
from keepstone.disks.writing.file import Piece
from keepstone.disks.writing.sink import whole
from keepstone.env import Env

__all__ = ["GRAIN", "LIMIT", "SECTOR", "TABLE", "SparseVmdk", "descriptor", "header", "table"]

LIMIT = 2000 << 30
"""Keeps the numbers of sectors below 2³², with the tables, and also where no grain can be compressed."""
SECTOR = 512
GRAIN = 64 << 10
TABLE = 512
"""Entries of a grain table: sectors of the file where grains begin, 0 for a grain of zeros."""

_DESCRIPTOR, _DESCRIPTOR_SECTORS = 1, 20


def header(flags: int, version: int, size: int, directories: tuple[int, int], overhead: int, method: int) -> bytes:
    """Section "Hosted Sparse Extent Header". `directories`: the redundant one, the other. `method`: of compression."""
    return struct.pack(
        "<4sIIQQQQIQQQB4sH433x",
        b"KDMV",
        version,
        flags,
        size // SECTOR,
        GRAIN // SECTOR,
        _DESCRIPTOR,
        _DESCRIPTOR_SECTORS,
        TABLE,
        *directories,
        overhead,
        0,  # was shut down in order
        b"\n \r\n",
        method,
    )


def descriptor(env: Env, kind: str, size: int) -> bytes:
    """Section "The Descriptor File". The name of the extent is a placeholder: it is in this very file."""
    sectors = size // SECTOR
    text = f"""\
# Disk DescriptorFile
version=1
CID={max(1, int.from_bytes(env.random(4), "big") & 0xFFFFFFFD):08x}
parentCID=ffffffff
createType="{kind}"

# Extent description
RW {sectors} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{min(65535, max(1, sectors // (255 * 63)))}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "4"
"""
    return text.encode().ljust(_DESCRIPTOR_SECTORS * SECTOR, b"\0")


def table(entries: Sequence[int]) -> bytes:
    """A grain table or directory: whole sectors."""
    packed = struct.pack(f"<{len(entries)}I", *entries)
    return packed.ljust(-(-len(packed) // SECTOR) * SECTOR, b"\0")


class SparseVmdk:
    """monolithicSparse: header, descriptor, directory and tables twice, grains in the order in which they came."""

    cell = GRAIN
    page = TABLE

    def __init__(self, env: Env, size: int) -> None:
        self.size = whole(size, GRAIN)
        self._tables = -(-self.size // (GRAIN * TABLE))
        directory = -(-4 * self._tables // SECTOR)
        self._redundant = _DESCRIPTOR + _DESCRIPTOR_SECTORS
        self._main = self._redundant + directory + 4 * self._tables
        self._overhead = -(-(self._main + directory + 4 * self._tables) * SECTOR // GRAIN) * GRAIN
        self._directory = directory
        self._descriptor = descriptor(env, "monolithicSparse", self.size)

    def place(self, number: int) -> int:
        return self._overhead + number * GRAIN

    def length(self, cells: Cells) -> int:
        return self.place(cells.stored)

    def body(self, cells: Cells) -> Iterator[Piece]:
        yield _DESCRIPTOR * SECTOR, self._descriptor
        for at in (self._redundant, self._main):
            tables = at + self._directory
            yield at * SECTOR, table([tables + 4 * index for index in range(self._tables)])
            for index, numbers in cells.pages():
                places = [0 if number is None else self.place(number) // SECTOR for number in numbers]
                yield (tables + 4 * index) * SECTOR, table(places)

    def head(self, cells: Cells) -> Iterator[Piece]:
        # Flags: the characters of line ends can be checked; there is a redundant directory.
        yield 0, header(3, 1, self.size, (self._redundant, self._main), self._overhead // SECTOR, 0)
