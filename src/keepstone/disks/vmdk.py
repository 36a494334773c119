# SPDX-License-Identifier: Apache-2.0
"""VMDK images. Names of parts are those of VMware's "Virtual Disk Format 5.0" (2011).

A disk is described by a text, in a file of its own or in its only data file, and lies in extents: files of grains
(sparse, maybe compressed), files as they are (flat), or nothing (zero).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import msgspec
import numpy as np

from keepstone.disks.image import Image
from keepstone.disks.layout import DATA, DEFLATED, LARGEST, PARENT, ZERO, Layout, Link, Runs
from keepstone.errors import SourceFailed, Unsupported

__all__ = ["DESCRIPTOR", "MAGIC", "MOST_EXTENTS", "Description", "Piece", "describe", "parse"]

MAGIC = b"KDMV"
DESCRIPTOR = b"# Disk DescriptorFile"
MOST_EXTENTS = 256
"""Data files of one disk; each is held open while it is read."""

_SECTOR = 512
_MOST_DESCRIPTOR = 1 << 20
_MOST_TABLES = 1 << 20  # 32 TiB in grains of 64 KiB
_AT_END = (1 << 64) - 1
_HEADER = struct.Struct("<4sIIQQQQIQQQ?4sH")  # Hosted Sparse Extent Header
_ZEROED, _COMPRESSED, _MARKED = 1 << 2, 1 << 16, 1 << 17
_TYPES = {"SPARSE": "sparse", "FLAT": "flat", "VMFS": "flat", "ZERO": "zero"}
_EXTENT = re.compile(r'(RW|RDONLY|NOACCESS)\s+(\d{1,19})\s+([A-Z]+)(?:\s+"([^"]+)"(?:\s+(\d{1,19}))?)?\s*')
_ENTRY = re.compile(r'([A-Za-z][\w.]*)\s*=\s*"?([^"]*)"?\s*')


class Piece(msgspec.Struct, frozen=True):
    """One extent: `size` bytes of the disk; `kind`: sparse, flat or zero; `name` of its file, empty: the file of the
    description itself; `offset` in a flat file."""

    size: int
    kind: str
    name: str
    offset: int


class Description(msgspec.Struct, frozen=True):
    """A disk as its descriptor has it. `id`: what a child names it by; `parent`: its name and id, where it has one."""

    id: str
    pieces: tuple[Piece, ...]
    parent: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    entries: int
    directory: int
    compression: int


def describe(image: Image) -> Description:
    """What the file says of the disk. `SourceFailed` where it is damaged, `Unsupported` where nobody here knows it."""
    if image.read(0, 4, "the file type") != MAGIC:
        if image.size > _MOST_DESCRIPTOR or image.read(0, len(DESCRIPTOR), "the file type") != DESCRIPTOR:
            raise SourceFailed("it does not begin as a VMDK image does; say which format it has")
        return _description(image.read(0, image.size, "the description"))
    header = _header(image)
    if not header.descriptor:
        raise Unsupported("it is one data file of a disk; take the small .vmdk file that describes the disk")
    if header.descriptor_size > _MOST_DESCRIPTOR // _SECTOR:
        raise SourceFailed(f"its description has {header.descriptor_size} sectors; it is damaged")
    data = image.read(header.descriptor * _SECTOR, header.descriptor_size * _SECTOR, "the description")
    found = _description(data)
    if len(found.pieces) != 1 or found.pieces[0].kind != "sparse":
        raise SourceFailed("it describes other files than itself; it is damaged")
    # Whatever its name was when the text was written; and what its own header says is what its tables fit to.
    return msgspec.structs.replace(found, pieces=(Piece(header.capacity * _SECTOR, "sparse", "", 0),))


def _description(data: bytes) -> Description:
    entries: dict[str, str] = {}
    pieces: list[Piece] = []
    for line in data.split(b"\0")[0].decode("utf-8", "replace").splitlines():
        line = line.strip()
        if extent := _EXTENT.fullmatch(line):
            if len(pieces) == MOST_EXTENTS:
                raise Unsupported(f"its disk is in more than {MOST_EXTENTS} files; join them with `qemu-img convert`")
            pieces.append(_piece(*extent.groups()))
        elif entry := _ENTRY.fullmatch(line):
            entries.setdefault(entry[1].lower(), entry[2][:1024])
    if "cid" not in entries or not pieces:
        raise SourceFailed("its description names no id or no data; it is damaged")
    if b"keysafe" in data.lower():
        raise Unsupported("it is encrypted; have VMware decrypt it first")
    if sum(piece.size for piece in pieces) > LARGEST:
        raise SourceFailed(f"its extents are longer than a disk can be, {LARGEST} bytes; it is damaged")
    parent = entries.get("parentcid", "ffffffff").lower()
    linked = None if parent == "ffffffff" else (entries.get("parentfilenamehint", ""), parent)
    return Description(entries["cid"].lower(), tuple(pieces), linked)


def _piece(access: str, sectors: str, kind: str, name: str | None, offset: str | None) -> Piece:
    if kind not in _TYPES:
        raise Unsupported(f"it has an extent of the type {kind}; convert it with `vmkfstools` or `qemu-img convert`")
    if access == "NOACCESS" or (kind == "ZERO") != (name is None):
        raise SourceFailed(f"it has an extent that cannot be read ({access} {kind}); it is damaged")
    return Piece(int(sectors) * _SECTOR, _TYPES[kind], name or "", int(offset or 0) * _SECTOR)


def parse(image: Image, *, child: bool) -> Layout:
    """The layout of a sparse extent. `child`: what it leaves out is the parent's, not zeros."""
    header = _header(image)
    if header.directory == _AT_END:  # of a stream: the header that counts is behind the data
        header = _header(image, image.size - 2 * _SECTOR)
    grain, size = header.grain * _SECTOR, header.capacity * _SECTOR
    if not 4096 <= grain <= 1 << 20 or grain & grain - 1 or header.entries != 512:
        raise SourceFailed(f"it has grains of {grain} bytes, {header.entries} in a table; it is damaged")
    runs = Runs(size)
    absent = PARENT if child else ZERO
    kind = DATA
    if header.flags & _COMPRESSED:
        if header.compression != 1 or not header.flags & _MARKED:
            raise Unsupported("it is compressed in a way that nobody here knows; convert it with `qemu-img convert`")
        kind = DEFLATED
    span = grain * header.entries
    count = -(-size // span)
    if count > _MOST_TABLES:
        raise SourceFailed(f"it has {count} grain tables; it is damaged, or made for a disk of another kind")
    for first in range(0, count, 1024):
        part = min(1024, count - first)
        directory = np.frombuffer(image.read(header.directory * _SECTOR + 4 * first, 4 * part, "the directory"), "<u4")
        for place in directory.tolist():
            if not place:
                runs.run(absent, span)
                continue
            data = image.read(place * _SECTOR, 4 * header.entries, "a grain table")
            table = np.frombuffer(data, "<u4").astype(np.int64)
            kinds = np.where(table == 0, absent, kind).astype(np.uint8)
            if header.flags & _ZEROED:
                kinds[table == 1] = ZERO
            runs.blocks(kinds, table * _SECTOR, grain)
    link = Link((), ()) if child else None
    return runs.layout(unit=grain if kind == DEFLATED else 0, parent=link)


def _header(image: Image, at: int = 0) -> _Header:
    magic, version, flags, capacity, grain, place, size, entries, _, directory, _, _, ends, compression = (
        _HEADER.unpack(image.read(at, _HEADER.size, "the header"))
    )
    if magic != MAGIC or (flags & 1 and ends != b"\n \r\n"):
        raise SourceFailed("its header is damaged, perhaps by a transfer as text")
    if version not in (1, 2, 3):
        raise Unsupported(f"it is a VMDK image of version {version}; 1 to 3 are known")
    if capacity > LARGEST // _SECTOR:
        raise SourceFailed(f"it says that its disk has {capacity} sectors; a disk has at most {LARGEST} bytes")
    return _Header(version, flags, capacity, grain, place, size, entries, directory, compression)
