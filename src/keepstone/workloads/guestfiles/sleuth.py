# SPDX-License-Identifier: Apache-2.0
"""File systems that The Sleuth Kit reads: NTFS, FAT, exFAT, ext2 to ext4, HFS+, ISO 9660.

What is deleted is not shown, nor what a file system keeps for itself. A stream of an NTFS file beside its content is an
entry of its own, `file:stream`. What the library would read wrongly is not read: content that NTFS has elsewhere
(compact, deduplicated or in a cloud) or encrypted.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from typing import Any

import pytsk3

from keepstone.workloads.guestfiles.blocks import Readable
from keepstone.workloads.guestfiles.packing import reads
from keepstone.workloads.guestfiles.reparse import TargetOf
from keepstone.workloads.guestfiles.wire import PIECE, Item, moment

__all__ = ["Image", "Sleuth"]

_TYPES = {
    "ntfs": pytsk3.TSK_FS_TYPE_NTFS,
    "exfat": pytsk3.TSK_FS_TYPE_EXFAT,
    "fat": pytsk3.TSK_FS_TYPE_FAT_DETECT,
    "ext": pytsk3.TSK_FS_TYPE_EXT_DETECT,
    "hfs+": pytsk3.TSK_FS_TYPE_HFS,
    "iso9660": pytsk3.TSK_FS_TYPE_ISO9660,
}
_NAMES = {
    int(pytsk3.TSK_FS_TYPE_FAT12): "fat12",
    int(pytsk3.TSK_FS_TYPE_FAT16): "fat16",
    int(pytsk3.TSK_FS_TYPE_FAT32): "fat32",
    int(pytsk3.TSK_FS_TYPE_EXT2): "ext2",
    int(pytsk3.TSK_FS_TYPE_EXT3): "ext3",
    int(pytsk3.TSK_FS_TYPE_EXT4): "ext4",
}
_MODES = {
    int(pytsk3.TSK_FS_META_TYPE_REG): stat.S_IFREG,
    int(pytsk3.TSK_FS_META_TYPE_DIR): stat.S_IFDIR,
    int(pytsk3.TSK_FS_META_TYPE_LNK): stat.S_IFLNK,
    int(pytsk3.TSK_FS_META_TYPE_FIFO): stat.S_IFIFO,
    int(pytsk3.TSK_FS_META_TYPE_SOCK): stat.S_IFSOCK,
    int(pytsk3.TSK_FS_META_TYPE_CHR): stat.S_IFCHR,
    int(pytsk3.TSK_FS_META_TYPE_BLK): stat.S_IFBLK,
}
_VIRTUAL = {int(pytsk3.TSK_FS_META_TYPE_VIRT), int(pytsk3.TSK_FS_META_TYPE_VIRT_DIR)}
_GONE = int(pytsk3.TSK_FS_NAME_FLAG_UNALLOC)
_META_GONE = int(pytsk3.TSK_FS_META_FLAG_UNALLOC)
_SPARSE, _HOLE, _FILLER = (
    int(pytsk3.TSK_FS_ATTR_SPARSE),
    int(pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE),
    int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER),
)
_COMPRESSED, _ENCRYPTED = int(pytsk3.TSK_FS_ATTR_COMP), int(pytsk3.TSK_FS_ATTR_ENC)
_OUTSIDE = int(pytsk3.TSK_FS_ATTR_NONRES)
_DATA, _REPARSE, _VOLUME_NAME = (
    int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA),
    int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_REPARSE),
    int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_VNAME),
)
_RESERVED = 24  # the first inode of NTFS that is not the file system's own, but for its root
_ROOT = 5
_PERMITTED = {"ntfs", "exfat", "fat12", "fat16", "fat32"}  # have no permissions of the kind that is asked for here
_LABEL = b" (Volume Label Entry)"  # as the library calls the label of FAT, which is an entry of the root there
_OWN = {b"$ALLOC_BITMAP", b"$UPCASE_TABLE"}  # as the library calls what exFAT keeps in its root without a name
_OPEN = 16
_REPARSED = 64 << 10  # bytes of a reparse point, which has 16 KiB at most
_LINK = 4096  # bytes of the target of a link
_EXTENTS = 4096  # of a sparse file, that are told


class Image(pytsk3.Img_Info):
    """A range of bytes as the library takes it."""

    def __init__(self, volume: Readable) -> None:
        self._volume = volume
        super().__init__(url="")

    def read(self, offset: int, length: int) -> bytes:
        return self._volume.read(offset, length)

    def get_size(self) -> int:
        return self._volume.size

    def close(self) -> None:
        """There is nothing to close."""


class Sleuth:
    """See `FileSystem`; `kind`: of `_TYPES`."""

    def __init__(self, volume: Readable, kind: str) -> None:
        self._image = Image(volume)  # the library does not hold it
        self._fs = pytsk3.FS_Info(self._image, 0, _TYPES[kind])
        self.kind = _NAMES.get(int(self._fs.info.ftype), kind)
        self._ntfs = kind == "ntfs"
        self._block = int(self._fs.info.block_size)
        self._root = int(self._fs.info.root_inum)
        self._open: OrderedDict[tuple[int, int], tuple[Any, list[tuple[int, int]] | None]] = OrderedDict()
        self.label = self._labelled(volume)

    def _labelled(self, volume: Readable) -> str:
        if self._ntfs:
            for attribute in self._fs.open_meta(3):  # $Volume
                info = attribute.info
                if int(info.type) == _VOLUME_NAME and info.size:
                    name: bytes = self._fs.open_meta(3).read_random(0, info.size, info.type, info.id)
                    return name.decode("utf-16-le", "replace")
            return ""
        at, length = {"ext": (1144, 16), "fat32": (71, 11), "fat16": (43, 11), "fat12": (43, 11)}.get(
            "ext" if self.kind.startswith("ext") else self.kind, (0, 0)
        )
        label = volume.read(at, length).partition(b"\0")[0].decode("utf-8", "replace").rstrip()
        return "" if label == "NO NAME" else label

    # ------------------------------------------------------------------ directories

    def items(self, inode: int) -> list[Item]:
        """See `FileSystem`."""
        found: list[Item] = []
        ntfs, is_permitted = self._ntfs, self.kind in _PERMITTED
        for file in self._fs.open_dir(inode=inode or self._root):
            info = file.info
            name, meta = info.name, info.meta
            label: bytes = name.name
            if name.flags & _GONE or label in (b"", b".", b"..") or label.endswith(_LABEL):
                continue
            if meta is None or meta.flags & _META_GONE:
                found.append(Item(label, stat.S_IFREG, 0, 0, 0, 0, 0, int(name.meta_addr), unreadable=True))
                continue
            number, kind = meta.addr, meta.type
            if kind in _VIRTUAL or (ntfs and number < _RESERVED and number != _ROOT):
                continue
            if self.kind == "exfat" and label in _OWN and inode in (0, self._root):
                continue
            mode = _MODES.get(kind, stat.S_IFREG)
            is_directory, is_file = mode == stat.S_IFDIR, mode == stat.S_IFREG
            if is_permitted:
                mode, uid, gid = mode | (0o755 if is_directory else 0o644), 0, 0
            else:
                mode, uid, gid = mode | meta.mode & 0o7777, meta.uid, meta.gid
            item = Item(
                label,
                mode,
                uid,
                gid,
                0 if is_directory or (ntfs and is_file) else max(0, meta.size),
                moment(meta.mtime * 10**9 + meta.mtime_nano),
                moment(meta.ctime * 10**9 + meta.ctime_nano),
                number,
                0,
                max(0, meta.nlink),
                meta.link or b"",
                unreadable=kind not in _MODES,
            )
            found.append(item)
            if ntfs:
                self._complete(item, is_file, file, found)
            elif stat.S_ISLNK(mode) and len(item.target) != item.size:  # one that has a block of its own
                item.target = file.read_random(0, min(item.size, _LINK))
            elif is_file and item.size >= PIECE:
                for attribute in file:
                    item.extents = self._extents(attribute)
                    break
        return found

    def _complete(self, item: Item, is_file: bool, file: Any, found: list[Item]) -> None:
        """What is known of an entry of NTFS by its attributes; the streams beside its content are found with it."""
        for attribute in list(file):
            info = attribute.info
            kind = info.type
            if kind == _REPARSE:
                self._follow(item, file.read_random(0, min(info.size, _REPARSED), kind, info.id))
            elif kind == _DATA:
                name: bytes = info.name or b""
                if name:
                    mode = stat.S_IFREG | item.mode & 0o666
                    one = Item(item.name + b":" + name, mode, 0, 0, 0, item.mtime, item.ctime, item.inode)
                    found.append(one)
                elif is_file:
                    one = item
                else:
                    continue
                flags = info.flags
                one.size, one.stream = info.size, info.id
                if flags & _ENCRYPTED:
                    one.refused = True
                elif flags & _SPARSE and not flags & _COMPRESSED and one.size >= PIECE:
                    one.extents = self._extents(attribute)

    @staticmethod
    def _follow(item: Item, data: bytes) -> None:
        found = TargetOf(data)
        if found.target:
            item.mode = stat.S_IFLNK | 0o777
            item.target, item.size = found.target, len(found.target)
        elif stat.S_ISREG(item.mode) and found.elsewhere:
            item.refused = True

    def _extents(self, attribute: Any) -> list[tuple[int, int]] | None:
        """The data of a file with holes; None where it has none, or too many to tell."""
        info, extents, end, holes = attribute.info, list[tuple[int, int]](), 0, False
        if not int(info.flags) & _OUTSIDE or int(info.flags) & _COMPRESSED:
            return None
        size = int(info.size)
        for run in attribute:
            begin = int(run.offset) * self._block
            stop = min(begin + int(run.len) * self._block, size)
            if begin < end or begin >= size:
                continue
            if int(run.flags) & (_HOLE | _FILLER):
                holes = True
            elif extents and sum(extents[-1]) == begin:
                extents[-1] = (extents[-1][0], stop - extents[-1][0])
            elif len(extents) >= _EXTENTS:
                return None
            else:
                extents.append((begin, stop - begin))
            end = stop
        return extents if holes or end < size else None

    # ------------------------------------------------------------------ content

    def read(self, inode: int, stream: int, packed: bool, offset: int, length: int) -> bytes:
        """See `FileSystem`."""
        key = inode, stream
        if key not in self._open:
            self._open[key] = self._entered(inode, stream)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        file, extents = self._open[key]
        self._open.move_to_end(key)

        def plain(at: int, count: int) -> bytes:
            if self._ntfs:
                data: bytes = file.read_random(at, count, _DATA, stream)
            else:
                data = file.read_random(at, count)
            return data

        return reads(plain, extents if packed else None, offset, length)

    def _entered(self, inode: int, stream: int) -> tuple[Any, list[tuple[int, int]] | None]:
        file = self._fs.open_meta(inode)
        wanted, elsewhere = None, False
        for attribute in list(file):
            info = attribute.info
            if not self._ntfs:
                return file, self._extents(attribute)
            if int(info.type) == _REPARSE:
                found = TargetOf(file.read_random(0, min(int(info.size), _REPARSED), info.type, info.id))
                elsewhere = found.elsewhere
            if int(info.type) == _DATA and int(info.id) == stream:
                wanted = attribute
        if wanted is None:
            raise OSError("it has no such content")
        info = wanted.info
        if int(info.flags) & _ENCRYPTED or (elsewhere and not info.name):
            raise OSError("its content is not there")
        if int(info.flags) & _OUTSIDE and any(int(run.flags) & _FILLER for run in wanted):
            raise OSError("a part of it is missing in the file system")
        return file, self._extents(wanted)
