# SPDX-License-Identifier: Apache-2.0
"""VHD images: fixed, dynamic and differencing. Names of parts are those of Microsoft's "Virtual Hard Disk Image Format
Specification" 1.0 (2006).

Invariants
* Footer and header count only where their checksums are right.
* A sector that the bitmap of its block leaves out is the parent's, or zeros where there is none, whatever lies there.
* The disk has the footer's "current size", as for Hyper-V and Azure, whatever its geometry says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepstone.disks.image import Image, text
from keepstone.disks.layout import DATA, PARENT, ZERO, Layout, Link, Runs
from keepstone.errors import SourceFailed, Unsupported

__all__ = ["COOKIE", "parse"]

COOKIE = b"conectix"  # Hard Disk Footer Format

_SECTOR = 512
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_UNUSED = 0xFFFFFFFF  # Block Allocation Table
_BATCH = 1 << 16
_AT_ONCE = 1 << 20  # sectors whose bitmaps are in memory at once, or those of one block
_MOST_NAME = 4096


@dataclass(frozen=True, slots=True)
class _Footer:
    header: int
    size: int
    kind: int
    id: str


def parse(image: Image) -> Layout:
    """The layout of this file. `SourceFailed` where it is damaged, `Unsupported` where nobody here knows its parts."""
    footer = _footer(image)
    runs = Runs(footer.size)
    if footer.kind == _FIXED:
        runs.run(DATA, footer.size)
        return runs.layout(id=footer.id)
    header = image.read(footer.header, 1024, "the header")
    table, version, entries, block, checksum = struct.unpack_from(">QIIII", header, 16)
    if header[:8] != b"cxsparse" or checksum != _sum(header, 36):
        raise SourceFailed("its header is damaged")
    if version != 0x00010000:
        raise Unsupported(f"its header has the version {version:#x}, 0x10000 is known")
    if block < _SECTOR or block & block - 1 or block > 1 << 30:
        raise SourceFailed(f"it has blocks of {block} bytes; it is damaged")
    if entries * block < footer.size:
        raise SourceFailed("its block allocation table is too short for its disk; it is damaged")
    parent = _link(image, header) if footer.kind == _DIFFERENCING else None
    needed = -(-footer.size // block)
    for first in range(0, needed, _BATCH):
        data = image.read(table + 4 * first, 4 * min(_BATCH, needed - first), "the block allocation table")
        _blocks(image, np.frombuffer(data, ">u4").astype(np.int64), block, parent, runs)
    return runs.layout(id=footer.id, parent=parent)


def _footer(image: Image) -> _Footer:
    """The footer at the end, or its copy at the start, which all but fixed disks have."""
    problem = SourceFailed("it does not end as a VHD image does; say which format it has")
    for at in (image.size - _SECTOR, 0):
        data = image.read(at, _SECTOR, "the footer")
        if data[:8] != COOKIE:
            continue
        version, header = struct.unpack_from(">IQ", data, 12)
        (size,) = struct.unpack_from(">Q", data, 48)
        kind, checksum = struct.unpack_from(">II", data, 60)
        if checksum != _sum(data, 64):
            problem = SourceFailed("its footer is damaged")
            continue
        if version >> 16 != 1 or kind not in (_FIXED, _DYNAMIC, _DIFFERENCING):
            raise Unsupported(f"it is a VHD image of version {version:#x} and type {kind}; types 2, 3 and 4 are known")
        if kind == _FIXED and at == 0 and image.size > _SECTOR:
            continue  # the guest of a fixed disk wrote this
        return _Footer(header, size, kind, data[68:84].hex())
    raise problem


def _sum(data: bytes, field: int) -> int:
    """The checksum of a structure: the complement of the sum of its bytes, without the field that has it."""
    return ~(sum(data) - sum(data[field : field + 4])) & 0xFFFFFFFF


def _blocks(image: Image, table: NDArray[np.int64], block: int, parent: Link | None, runs: Runs) -> None:
    """Add the blocks of this part of the table."""
    absent = ZERO if parent is None else PARENT
    sectors = block // _SECTOR
    room = -(-sectors // 8 // _SECTOR) * _SECTOR if sectors >= 8 else _SECTOR  # of the bitmap, in whole sectors
    full = b"\xff" * max(1, sectors // 8)
    kinds = np.where(table == _UNUSED, absent, DATA).astype(np.uint8)
    step = max(1, _AT_ONCE // sectors)
    for first in range(0, len(table), step):
        part = table[first : first + step]
        mixed, bitmaps = list[int](), list[bytes]()
        for at in np.flatnonzero(part != _UNUSED).tolist():
            bitmap = image.read(int(part[at]) * _SECTOR, len(full), "a sector bitmap")
            if bitmap != full:
                mixed.append(at)
                bitmaps.append(bitmap)
        places = part * _SECTOR + room
        if not mixed:
            runs.blocks(kinds[first : first + step], places, block)
            continue
        bits = np.unpackbits(np.frombuffer(b"".join(bitmaps), np.uint8).reshape(len(mixed), -1), axis=1, count=sectors)
        _mixed(runs, kinds[first : first + step], places, block, np.array(mixed), bits, absent)


def _mixed(
    runs: Runs,
    kinds: NDArray[np.uint8],
    places: NDArray[np.int64],
    block: int,
    mixed: NDArray[np.int64],
    bits: NDArray[np.uint8],
    absent: int,
) -> None:
    """Add these blocks, of which those at `mixed` have some sectors only. `bits`: a row for each of them, the first
    sector first."""
    other = np.ones(bits.shape, np.bool_)  # than the sector before
    other[:, 1:] = bits[:, 1:] != bits[:, :-1]
    row, sector = np.nonzero(other)
    whole = np.delete(np.arange(len(kinds)), mixed)
    number = np.concatenate([whole, mixed[row]])
    within = np.concatenate([np.zeros(len(whole), np.int64), sector * _SECTOR])
    kind = np.concatenate([kinds[whole], np.where(bits[row, sector], DATA, absent).astype(np.uint8)])
    order = np.argsort(number * block + within)
    starts = (number * block + within)[order]
    lengths = np.diff(starts, append=len(kinds) * block)
    runs.pieces(kind[order], (places[number] + within)[order], lengths)


def _link(image: Image, header: bytes) -> Link:
    """Who the parent is: its name, and those of the locators. Of a path only its last part counts."""
    names = []
    for at in range(576, 768, 24):
        code, _, length, _, place = struct.unpack_from(">4sIIIQ", header, at)
        if code in (b"W2ru", b"W2ku", b"MacX") and 0 < length <= _MOST_NAME:
            path = image.read(place, length, "the name of the parent")
            names.append(text(path, "utf-8" if code == b"MacX" else "utf-16-le"))
    names.append(text(header[64:576], "utf-16-be"))
    return Link(tuple(dict.fromkeys(name for name in names if name)), (header[40:56].hex(),))
