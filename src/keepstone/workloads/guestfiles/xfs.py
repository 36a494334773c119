# SPDX-License-Identifier: Apache-2.0
"""XFS, as libfsxfs reads it."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from typing import Any

import pyfsxfs

from keepstone.workloads.guestfiles.blocks import Readable
from keepstone.workloads.guestfiles.packing import reads
from keepstone.workloads.guestfiles.wire import PIECE, Item, moment

__all__ = ["XFS"]

_HOLE = 1  # LIBFSXFS_EXTENT_FLAG_IS_SPARSE
_OPEN = 16
_EXTENTS = 4096  # of a sparse file, that are told


class _File:
    """What the library takes for a file."""

    def __init__(self, volume: Readable) -> None:
        self._volume = volume
        self._at = 0

    def read(self, size: int | None = None) -> bytes:
        left = self._volume.size - self._at
        data = self._volume.read(self._at, left if size is None else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> None:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._volume.size}[whence]

    def tell(self) -> int:
        return self._at

    get_offset = tell

    def get_size(self) -> int:
        return self._volume.size


class XFS:
    """See `FileSystem`."""

    kind = "xfs"

    def __init__(self, volume: Readable) -> None:
        self._file = _File(volume)
        self._volume = pyfsxfs.volume()
        self._volume.open_file_object(self._file)
        self._open: OrderedDict[int, tuple[Any, list[tuple[int, int]] | None]] = OrderedDict()
        self.label: str = self._volume.label or ""

    def items(self, inode: int) -> list[Item]:
        """See `FileSystem`."""
        volume = self._volume
        folder = volume.get_file_entry_by_inode(inode) if inode else volume.get_root_directory()
        return [self._item(folder.get_sub_file_entry(at)) for at in range(folder.number_of_sub_file_entries)]

    @staticmethod
    def _item(file: Any) -> Item:
        mode = int(file.file_mode)
        link = stat.S_ISLNK(mode)
        item = Item(
            os.fsencode(file.name),
            mode,
            file.owner_identifier,
            file.group_identifier,
            file.size if stat.S_ISREG(mode) or link else 0,
            moment(file.get_modification_time_as_integer()),
            moment(file.get_inode_change_time_as_integer()),
            file.inode_number,
            links=file.number_of_links,
            target=os.fsencode(file.symbolic_link_target or "") if link else b"",
            rdev=os.makedev(*(file.device_number or (0, 0))) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        )
        if stat.S_ISREG(mode) and item.size >= PIECE:
            item.extents = _extents(file)
        return item

    def read(self, inode: int, stream: int, packed: bool, offset: int, length: int) -> bytes:
        """See `FileSystem`."""
        if inode not in self._open:
            file = self._volume.get_file_entry_by_inode(inode)
            self._open[inode] = file, _extents(file) if packed else None
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        file, extents = self._open[inode]
        self._open.move_to_end(inode)

        def plain(at: int, count: int) -> bytes:
            data: bytes = file.read_buffer_at_offset(count, at)
            return data

        return reads(plain, extents if packed else None, offset, length)


def _extents(file: Any) -> list[tuple[int, int]] | None:
    """The data of a file with holes; None where it has none, or too many to tell."""
    extents, begin, holes, size = list[tuple[int, int]](), 0, False, int(file.size)
    for at in range(file.number_of_extents):
        _, length, flags = file.get_extent(at)
        stop = min(begin + length, size)
        if flags & _HOLE:
            holes = True
        elif stop > begin:
            if len(extents) >= _EXTENTS:
                return None
            extents.append((begin, stop - begin))
        begin = stop
    return extents if holes or begin < size else None
