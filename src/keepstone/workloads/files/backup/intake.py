# SPDX-License-Identifier: Apache-2.0
"""Reading a regular file of a source through one descriptor.

A file is opened relative to its directory, never through a link, without waiting for anything (a fifo may have taken
its name) and without touching its access time where that is allowed. Its status after reading is compared with the one
from the directory's scan: equal means that what was read is what the entry says. Otherwise it is read once more with
the status that it has now; what is still changing then is kept and marked.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keepstone.env import FileSystem
from keepstone.store import Cut
from keepstone.workloads.files.backup.folders import Folder, Folders
from keepstone.workloads.files.backup.metadata import Attributes
from keepstone.workloads.files.page import CHANGED

if TYPE_CHECKING:
    from keepstone.workloads.files.backup.draft import Draft
    from keepstone.workloads.files.backup.links import Link

__all__ = [
    "Extents",
    "Intake",
    "Item",
    "Taken",
    "check_kind",
    "is_unchanged",
    "shortened",
    "total",
    "whole",
]

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_HOLES = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}
_MOST_EXTENTS = 1 << 16

Extents = list[tuple[int, int]]


class Item:
    """A regular file to be read: entry `index` of a page. `hint`: where its only chunk may be, or -1.

    `link`: where other names of it wait. `tries`: how often it was put back.
    """

    __slots__ = ("draft", "folder", "hint", "index", "link", "name", "status", "tries")

    def __init__(
        self, draft: Draft, index: int, folder: Folder, name: bytes, status: os.stat_result, hint: int = -1
    ) -> None:
        self.draft = draft
        self.index = index
        self.folder = folder
        self.name = name
        self.status = status
        self.hint = hint
        self.link: Link | None = None
        self.tries = 0


@dataclass(slots=True)
class Taken:
    """What became of a file, where there is more to say than its number of chunks.

    `status`: the one that belongs to the content, None for the scan's. `size`: of the content where that is not the
    status's, else -1. `again`: it does not fit any more and was not read. `error`: why it was not read; `note`: what
    else went wrong.
    """

    count: int = 0
    status: os.stat_result | None = None
    size: int = -1
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    extents: Extents | None = None
    flags: int = 0
    again: bool = False
    error: OSError | None = None
    unattributed: OSError | None = None


class Intake:
    """Opens and reads files. Safe for several threads. `ahead`: how many files a worker may have open at once; `cut`:
    where long ones are cut."""

    def __init__(self, fs: FileSystem, folders: Folders, attributes: Attributes, ahead: int, cut: Cut) -> None:
        self.fs = fs
        self.folders = folders
        self.ahead = ahead
        self.cut = cut
        self._attributes = attributes

    def open(self, folder: int, name: bytes) -> int:
        """A descriptor of this entry of an open directory, whatever kind of thing it is now. `OSError`."""
        try:
            return self.fs.open(name, _FLAGS | os.O_NOATIME, dir_fd=folder)
        except PermissionError as error:
            if error.errno != errno.EPERM:  # EPERM: only its owner may leave the access time alone
                raise
            return self.fs.open(name, _FLAGS, dir_fd=folder)
        except BlockingIOError:
            return self._open_leased(folder, name)

    def _open_leased(self, folder: int, name: bytes) -> int:
        """Open a file on which somebody holds a lease (F_SETLEASE), which the kernel will have given back soon."""
        path = self.fs.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            check_kind(self.fs.fstat(path))
            return self.fs.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            self.fs.close(path)

    def take(self, fd: int, status: os.stat_result, view: memoryview) -> tuple[int, Taken | None]:
        """Read a file into `view`: how many bytes, and what else there is to say. `OSError`."""
        size = status.st_size
        if size <= len(view) and not _is_sparse(status):
            try:
                got = self.fs.preadv(fd, [view[:size]], 0) if size else 0
            except OSError:
                return self._take_with_care(fd, status, view)  # which knows what can be read at all
            xattrs, error = self.xattrs(fd, status.st_dev)
            if got == size and is_unchanged(self.fs.fstat(fd), status):
                return got, Taken(xattrs=xattrs, unattributed=error) if xattrs or error else None
        return self._take_with_care(fd, status, view)

    def _take_with_care(self, fd: int, expected: os.stat_result, view: memoryview) -> tuple[int, Taken]:
        taken = Taken()
        for _ in range(2):
            status = self.fs.fstat(fd)
            check_kind(status)
            if status.st_size > len(view):
                return 0, Taken(again=True, status=status)
            taken.extents = self.extents(fd, status)
            ranges = whole(status) if taken.extents is None else taken.extents
            got = self._fill(fd, view, ranges)
            taken.xattrs, taken.unattributed = self.xattrs(fd, status.st_dev)
            if got == total(ranges) and is_unchanged(self.fs.fstat(fd), status):
                break
        else:
            taken.flags = CHANGED
            taken.extents, taken.size = shortened(ranges, got, status.st_size)
        if not is_unchanged(status, expected):
            taken.status = status
        return got, taken

    def _fill(self, fd: int, view: memoryview, ranges: Extents) -> int:
        at = 0
        for offset, length in ranges:
            start, end = at, at + length
            while at < end:
                count = self.fs.preadv(fd, [view[at:end]], offset + at - start)
                if not count:
                    return at
                at += count
        return at

    def xattrs(self, fd: int, device: int) -> tuple[dict[bytes, bytes], OSError | None]:
        """The extended attributes of an open file, or why they cannot be read."""
        try:
            return self._attributes.read(fd, device), None
        except OSError as error:
            return {}, error

    def extents(self, fd: int, status: os.stat_result) -> Extents | None:
        """Where a file has data, None where there are no holes in it. `OSError`."""
        if not _is_sparse(status):
            return None
        found: Extents = []
        end, size = 0, status.st_size
        while end < size:
            try:
                start = self.fs.lseek(fd, end, os.SEEK_DATA)
                end = min(size, self.fs.lseek(fd, start, os.SEEK_HOLE))
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data from here on
                    break
                if error.errno in _NO_HOLES:
                    return None
                raise
            if start >= size:
                break
            found.append((start, end - start))
        return None if found == whole(status) else _few(found)


def whole(status: os.stat_result) -> Extents:
    """The extents of a file without holes."""
    return [(0, status.st_size)] if status.st_size else []


def total(ranges: Extents) -> int:
    """The bytes in these extents."""
    return sum(length for _, length in ranges)


def shortened(ranges: Extents, got: int, size: int) -> tuple[Extents | None, int]:
    """Extents and size of a file of which only the first `got` bytes of data were there."""
    if got < total(ranges):
        kept: Extents = []
        for offset, length in ranges:
            if got > 0:
                kept.append((offset, min(length, got)))
            got -= length
        ranges = kept
        size = sum(ranges[-1]) if ranges else 0
    return (None if ranges == ([(0, size)] if size else []) else ranges), size


def is_unchanged(status: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are of one file in one state."""
    return (
        status.st_ctime_ns == other.st_ctime_ns
        and status.st_mtime_ns == other.st_mtime_ns
        and status.st_size == other.st_size
        and status.st_ino == other.st_ino
    )


def check_kind(status: os.stat_result) -> None:
    """`OSError` (ENXIO) where this is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, "it is no regular file any more")


def _is_sparse(status: os.stat_result) -> bool:
    return status.st_blocks * 512 < status.st_size


def _few(extents: Extents) -> Extents:
    """At most `_MOST_EXTENTS`: the smallest holes are read like data, as far as it takes."""
    gap = 4096
    while len(extents) > _MOST_EXTENTS:
        gap *= 2
        joined = extents[:1]
        for offset, length in extents[1:]:
            before, size = joined[-1]
            if offset - before - size < gap:
                joined[-1] = (before, offset + length - before)
            else:
                joined.append((offset, length))
        extents = joined
    return extents
