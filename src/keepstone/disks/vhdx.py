# SPDX-License-Identifier: Apache-2.0
"""VHDX images: fixed, dynamic and differencing. Numbers of sections are those of [MS-VHDX] 8.0 (2021).

Invariants
* What has a checksum is used only where it is right: headers, region tables, log entries.
* A log that was not written back is replayed in memory; the file is never changed.
* Where the format lets a block have any content (not present, undefined, unmapped), it is zeros here, as for Hyper-V.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from keepstone.disks.crc32c import crc32c
from keepstone.disks.image import Image, text
from keepstone.disks.layout import DATA, PARENT, ZERO, Layout, Link, Runs
from keepstone.disks.vhdx_log import replayed
from keepstone.errors import SourceFailed, Unsupported

__all__ = ["SIGNATURE", "parse"]

SIGNATURE = b"vhdxfile"  # 2.2.1

_KIB, _MIB = 1 << 10, 1 << 20
_HEADERS = (64 * _KIB, 128 * _KIB)  # 2.2.2
_REGIONS = (192 * _KIB, 256 * _KIB)  # 2.2.3
_ENTRIES = 2047  # 2.2.3.1 and 2.6.1.1
_BATCH = 1 << 18  # entries of the block allocation table, in memory at once


def _guid(written: str) -> bytes:
    return uuid.UUID(written).bytes_le


_BAT = _guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
_METADATA = _guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
_PARAMETERS = _guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
_SIZE = _guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
_SECTOR = _guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
_LOCATOR = _guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
_UNUSED = {_guid("BECA12AB-B2E6-4523-93EF-C309E000C746"), _guid("CDA348C7-445D-4471-9CC9-E9885251C556")}
_LOCATOR_TYPE = _guid("B04AEFB7-D19E-4A81-B789-25B8E9445913")

_FULL, _PARTIAL = 6, 7  # 2.5.1.1
_WRONG = 255
_DYNAMIC = np.array([ZERO, ZERO, ZERO, ZERO, _WRONG, _WRONG, DATA, _WRONG], np.uint8)
_DIFFERENCING = np.array([PARENT, ZERO, ZERO, ZERO, _WRONG, _WRONG, DATA, DATA], np.uint8)
_HAS_PARENT = 2  # 2.6.2.1


def parse(image: Image) -> Layout:
    """The layout of this file. `SourceFailed` where it is damaged, `Unsupported` where nobody here knows its parts."""
    if image.read(0, 8, "the file type") != SIGNATURE:
        raise SourceFailed("it does not begin as a VHDX image does; say which format it has")
    header = _header(image)
    whole = replayed(image, header.log_guid, header.log_offset, header.log_length)
    regions = _regions(whole)
    disk = _metadata(whole, *regions[_METADATA])
    runs = Runs(disk.size)
    for kinds, places, unit in _blocks(whole, image.size, disk, *regions[_BAT]):
        runs.blocks(kinds, places, unit)
    layout = runs.layout(id=str(uuid.UUID(bytes_le=header.data_guid)), parent=disk.parent)
    stored = layout.kinds == DATA
    if whole.changed(layout.places[stored], (layout.ends() - layout.starts)[stored]):
        raise SourceFailed("its log changes content of the disk, which no log may; it is damaged")
    return layout


@dataclass(frozen=True, slots=True)
class _Header:
    sequence: int
    data_guid: bytes
    log_guid: bytes
    log_offset: int
    log_length: int


def _header(image: Image) -> _Header:
    """The current header (2.2.2): the valid one of the two, or the newer one."""
    found = []
    for offset in _HEADERS:
        data = image.read(offset, 4 * _KIB, "a header")
        checksum, sequence, _, data_guid, log_guid, log_version, version, length, at = struct.unpack_from(
            "<IQ16s16s16sHHIQ", data, 4
        )
        if data[:4] != b"head" or checksum != crc32c(data[:4] + bytes(4) + data[8:]):
            continue
        if version != 1 or (log_version and any(log_guid)):
            raise Unsupported(f"it is VHDX of version {version}, its log of {log_version}; 1 and 0 are known")
        found.append(_Header(sequence, data_guid, log_guid, at, length))
    if not found:
        raise SourceFailed("neither of its two headers is whole; it is damaged")
    return max(found, key=lambda header: header.sequence)


def _regions(image: Image) -> dict[bytes, tuple[int, int]]:
    """(offset, length) of the regions (2.2.3), from the first of the two tables that is whole."""
    for offset in _REGIONS:
        table = image.read(offset, 64 * _KIB, "a region table")
        checksum, count = struct.unpack_from("<II", table, 4)
        if table[:4] != b"regi" or checksum != crc32c(table[:4] + bytes(4) + table[8:]) or count > _ENTRIES:
            continue
        found: dict[bytes, tuple[int, int]] = {}
        for at in range(16, 16 + 32 * count, 32):
            guid, place, length, required = struct.unpack_from("<16sQII", table, at)
            if guid in (_BAT, _METADATA):
                if guid in found or place % _MIB or length % _MIB or place < _MIB:
                    raise SourceFailed("its region table is damaged")
                found[guid] = place, length
            elif required & 1:
                raise Unsupported(f"it needs a region that nobody here knows: {uuid.UUID(bytes_le=guid)}")
        if len(found) != 2:
            raise SourceFailed("its region table names no block allocation table, or no metadata; it is damaged")
        return found
    raise SourceFailed("neither of its two region tables is whole; it is damaged")


@dataclass(frozen=True, slots=True)
class _Disk:
    """What the metadata (2.6) says. `ratio`: payload blocks of one chunk (2.4)."""

    size: int
    block: int
    sector: int
    parent: Link | None

    @property
    def ratio(self) -> int:
        return (1 << 23) * self.sector // self.block

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block)


def _metadata(image: Image, place: int, length: int) -> _Disk:
    items = dict(_items(image, place, length))
    if missing := {_PARAMETERS, _SIZE, _SECTOR} - items.keys():
        raise SourceFailed(f"its metadata lacks {uuid.UUID(bytes_le=missing.pop())}; it is damaged")
    block, flags = struct.unpack("<II", _sized(items[_PARAMETERS], 8))
    (size,) = struct.unpack("<Q", _sized(items[_SIZE], 8))
    (sector,) = struct.unpack("<I", _sized(items[_SECTOR], 4))
    if sector not in (512, 4096) or not _MIB <= block <= 256 * _MIB or block & block - 1 or size % sector:
        raise SourceFailed(
            f"its metadata makes no sense: {size} bytes in blocks of {block} and sectors of {sector}; it is damaged"
        )
    parent = None
    if flags & _HAS_PARENT:
        if _LOCATOR not in items:
            raise SourceFailed("it is a differencing image and does not say of which one; it is damaged")
        parent = _link(items[_LOCATOR])
    return _Disk(size, block, sector, parent)


def _items(image: Image, place: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """Id and content of each system item (2.6.1)."""
    table = image.read(place, 64 * _KIB, "the metadata")
    (count,) = struct.unpack_from("<H", table, 10)
    if table[:8] != b"metadata" or count > _ENTRIES:
        raise SourceFailed("its metadata is damaged")
    for at in range(32, 32 + 32 * count, 32):
        guid, offset, size, flags = struct.unpack_from("<16sIII", table, at)
        if flags & 1:  # of a user
            continue
        if guid not in (_PARAMETERS, _SIZE, _SECTOR, _LOCATOR):
            if flags & 4 and guid not in _UNUSED:
                raise Unsupported(f"it needs a part that nobody here knows: {uuid.UUID(bytes_le=guid)}")
            continue
        if size > _MIB or offset < 64 * _KIB or offset + size > length:
            raise SourceFailed("an item of its metadata is not in its region; it is damaged")
        yield guid, image.read(place + offset, size, "an item of the metadata")


def _sized(item: bytes, size: int) -> bytes:
    if len(item) < size:
        raise SourceFailed("an item of its metadata is too short; it is damaged")
    return item[:size]


def _link(locator: bytes) -> Link:
    """Who the parent is (2.6.2.6). Of a path only its last part counts."""
    if len(locator) < 20 or locator[:16] != _LOCATOR_TYPE:
        raise Unsupported("its parent is something else than a VHDX image")
    (count,) = struct.unpack_from("<H", locator, 18)
    pairs: dict[str, str] = {}
    for at in range(20, 20 + 12 * min(count, 64), 12):
        if at + 12 > len(locator):
            raise SourceFailed("what it says of its parent is cut short; it is damaged")
        key, value, key_length, value_length = struct.unpack_from("<IIHH", locator, at)
        name = text(locator[key : key + key_length], "utf-16-le")
        pairs[name] = text(locator[value : value + value_length], "utf-16-le")
    names = [pairs[key] for key in ("relative_path", "volume_path", "absolute_win32_path") if key in pairs]
    ids = []
    for key in ("parent_linkage", "parent_linkage2"):
        try:
            ids.append(str(uuid.UUID(pairs[key])))
        except (KeyError, ValueError):
            continue
    return Link(tuple(dict.fromkeys(names)), tuple(ids))


_Blocks = Iterator[tuple[NDArray[np.uint8], NDArray[np.int64], int]]


def _blocks(image: Image, end: int, disk: _Disk, place: int, length: int) -> _Blocks:
    """Kinds, places and unit of the blocks of the disk, in order, from the block allocation table (2.5).

    `end`: bytes of the file, which is longer once its log is replayed; there are zeros then.
    """
    row = disk.ratio + 1  # the payload blocks of a chunk, then its sector bitmap
    chunks = -(-disk.blocks // disk.ratio)
    entries = chunks * row if disk.parent else disk.blocks + max(0, disk.blocks - 1) // disk.ratio
    if 8 * entries > length:
        raise SourceFailed("its block allocation table is too short for its disk; it is damaged")
    batch = max(1, _BATCH // row)
    for first in range(0, chunks, batch):
        count = min(entries - first * row, batch * row)
        data = image.read(place + 8 * first * row, 8 * count, "the block allocation table")
        table = np.zeros(-(-count // row) * row, np.uint64)
        table[:count] = np.frombuffer(data, "<u8")
        rows = table.reshape(-1, row)
        payload = rows[:, :-1].ravel()[: disk.blocks - first * disk.ratio]
        yield from _of_chunks(image, end, disk, payload, rows[:, -1])


def _of_chunks(
    image: Image, end: int, disk: _Disk, payload: NDArray[np.uint64], bitmaps: NDArray[np.uint64]
) -> _Blocks:
    """The same of these entries, which begin with a chunk."""
    states = (payload & np.uint64(7)).astype(np.uint8)
    places = (payload >> np.uint64(20) << np.uint64(20)).view(np.int64)
    kinds = (_DIFFERENCING if disk.parent else _DYNAMIC)[states]
    if _WRONG in kinds:
        raise SourceFailed("its block allocation table has a block in a state that there is not; it is damaged")
    beyond = (kinds == DATA) & (places > end - disk.block) & (places <= image.size - disk.block)
    special = np.flatnonzero((states == _PARTIAL) | beyond).tolist()
    for last, at in pairwise([-1, *special, len(kinds)]):
        yield kinds[last + 1 : at], places[last + 1 : at], disk.block
        if at < len(kinds):
            offsets = int(places[at]) + np.arange(disk.block // disk.sector, dtype=np.int64) * disk.sector
            inner = np.full(len(offsets), DATA, np.uint8)
            if states[at] == _PARTIAL:
                inner[_bitmap(image, disk, int(bitmaps[at // disk.ratio]), at % disk.ratio) == 0] = PARENT
            if beyond[at]:
                inner[(inner == DATA) & (offsets > end - disk.sector)] = ZERO
            yield inner, offsets, disk.sector


def _bitmap(image: Image, disk: _Disk, entry: int, block: int) -> NDArray[np.uint8]:
    """One for each sector of a block that is here, and not in the parent (2.4): the lowest bit is the first sector."""
    if entry & 7 != _FULL:
        raise SourceFailed("a block is here in part, and its sector bitmap is not; it is damaged")
    length = disk.block // disk.sector // 8
    data = image.read((entry >> 20 << 20) + block * length, length, "a sector bitmap")
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
