# SPDX-License-Identifier: Apache-2.0
"""The log of a VHDX image ([MS-VHDX] 2.3): changes of its tables that a power failure kept from their places.

They are laid over the file in memory. The log never has content of the disk (2.3), only tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepstone.disks.crc32c import crc32c
from keepstone.disks.image import MOST_BYTES, Image
from keepstone.errors import SourceFailed

__all__ = ["MOST_LOG", "Overlaid", "replayed"]

MOST_LOG = 64 << 20
"""Bytes of the largest log that is replayed; Hyper-V makes them 1 MiB."""

_SECTOR = 4096
_HEADER = struct.Struct("<4sIIIQII16sQQ")  # 2.3.1.1


@dataclass(frozen=True, slots=True)
class _Entry:
    """`at`: offset in the log; `tail`: that of the first entry which was not written back yet."""

    at: int
    length: int
    tail: int
    sequence: int
    flushed: int
    last: int
    changes: tuple[tuple[int, int, bytes], ...]
    """(offset, length, content) in the file; no content: zeros."""


class Overlaid:
    """An image with changes over it that are not in its file."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._pages: dict[int, bytes] = {}
        self.size = image.size

    def write(self, offset: int, length: int, content: bytes) -> None:
        """One change; `SourceFailed` where it is too much for memory."""
        if content:
            self._pages[offset // _SECTOR] = content
        elif length > MOST_LOG:
            raise SourceFailed(f"its log wants {length} bytes to be zeros; that is no table, it is damaged")
        else:
            for page in range(offset // _SECTOR, (offset + length) // _SECTOR):
                self._pages[page] = _ZEROS
        if len(self._pages) * _SECTOR > 2 * MOST_LOG:
            raise SourceFailed("its log changes more than tables; it is damaged")

    def extend(self, size: int) -> None:
        """The file as large as this at least."""
        self.size = max(self.size, size)

    def changed(self, places: NDArray[np.int64], lengths: NDArray[np.int64]) -> bool:
        """Whether a change is in one of these ranges of the file."""
        pages = np.array(sorted(self._pages), np.int64) * _SECTOR
        return bool(np.any(np.searchsorted(pages, places + lengths) > np.searchsorted(pages, places - (_SECTOR - 1))))

    def read(self, offset: int, length: int, what: str) -> bytes:
        if not 0 <= length <= MOST_BYTES or not 0 <= offset <= self.size - length:
            raise SourceFailed(
                f"{what} is at {offset}, and the file has {self.size} bytes; it was cut short or damaged"
            )
        there = min(length, max(0, self._image.size - offset))
        data = bytearray(self._image.read(offset, there, what) if there else b"") + bytes(length - there)
        for page in range(offset // _SECTOR, -(-(offset + length) // _SECTOR)):
            content = self._pages.get(page)
            if content is not None:
                start, end = max(offset, page * _SECTOR), min(offset + length, (page + 1) * _SECTOR)
                data[start - offset : end - offset] = content[start - page * _SECTOR : end - page * _SECTOR]
        return bytes(data)


_ZEROS = bytes(_SECTOR)


def replayed(image: Image, guid: bytes, offset: int, length: int) -> Overlaid:
    """The image as it is once its log is replayed (2.3.3). `SourceFailed` where the log is damaged or the file cut."""
    changed = Overlaid(image)
    if not any(guid):
        return changed
    if not length or length % _SECTOR or length > MOST_LOG:
        raise SourceFailed(f"it has a log of {length} bytes to be replayed; it is damaged")
    log = b"".join(
        image.read(offset + at, min(MOST_BYTES, length - at), "the log") for at in range(0, length, MOST_BYTES)
    )
    active = _active(log, guid)
    if not active:
        raise SourceFailed("it was not closed, and its log has no whole sequence of entries; it is damaged")
    head = active[-1]
    if image.size < head.flushed:
        raise SourceFailed(
            f"its log is of a file of {head.flushed} bytes, and there are {image.size}; it was cut short"
        )
    for entry in active[[entry.at for entry in active].index(head.tail) :]:
        for at, size, content in entry.changes:
            changed.write(at, size, content)
            changed.extend(at + size)
    changed.extend(head.last)
    return changed


def _active(log: bytes, guid: bytes) -> list[_Entry]:
    """The newest sequence of entries that is complete; nothing where there is none."""
    newest: list[_Entry] = []
    at = 0
    while at < len(log):
        found = list(_sequence(log, guid, at))
        whole = any(entry.at == found[-1].tail for entry in found)
        if whole and (not newest or found[-1].sequence > newest[-1].sequence):
            newest = found
        # What begins within this sequence has the same head, and less before it.
        at += sum(entry.length for entry in found) or _SECTOR
    return newest


def _sequence(log: bytes, guid: bytes, at: int) -> Iterator[_Entry]:
    """The entries from here on, each one later than the one before; at most once around the log."""
    gone, sequence = 0, 0
    while gone < len(log):
        entry = _entry(log, guid, (at + gone) % len(log))
        if entry is None or (sequence and entry.sequence != sequence + 1) or gone + entry.length > len(log):
            return
        yield entry
        gone, sequence = gone + entry.length, entry.sequence


def _entry(log: bytes, guid: bytes, at: int) -> _Entry | None:
    """The entry at this place, if a whole one is there."""
    header = log[at : at + _HEADER.size]
    sign, checksum, length, tail, sequence, count, _, owner, flushed, last = _HEADER.unpack(header)
    if sign != b"loge" or owner != guid or not sequence or length % _SECTOR or not 0 < length <= len(log):
        return None
    data = (log + log)[at : at + length] if at + length > len(log) else log[at : at + length]
    if checksum != crc32c(data[:4] + bytes(4) + data[8:]):
        return None
    changes = _changes(data, count, sequence)
    return None if changes is None else _Entry(at, length, tail, sequence, flushed, last, changes)


def _changes(data: bytes, count: int, sequence: int) -> tuple[tuple[int, int, bytes], ...] | None:
    """What an entry changes: descriptors (2.3.1.2, 2.3.1.3), and behind them their sectors (2.3.1.4)."""
    first = -(-(_HEADER.size + 32 * count) // _SECTOR) * _SECTOR
    if first > len(data):
        return None
    changes = []
    sector = first
    for at in range(_HEADER.size, _HEADER.size + 32 * count, 32):
        sign, trailing, leading, offset, number = struct.unpack_from("<4s4s8sQQ", data, at)
        if number != sequence or offset % _SECTOR or offset >= 1 << 62:
            return None
        if sign == b"zero":
            (length,) = struct.unpack("<Q", leading)
            if length % _SECTOR or length >= 1 << 62:
                return None
            changes.append((offset, length, b""))
        elif sign == b"desc" and sector + _SECTOR <= len(data):
            body = data[sector : sector + _SECTOR]
            high, low = struct.unpack_from("<I", body, 4)[0], struct.unpack_from("<I", body, _SECTOR - 4)[0]
            if body[:4] != b"data" or (high << 32 | low) != sequence:
                return None
            changes.append((offset, _SECTOR, leading + body[8 : _SECTOR - 4] + trailing))
            sector += _SECTOR
        else:
            return None
    return tuple(changes)
