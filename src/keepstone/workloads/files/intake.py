# SPDX-License-Identifier: Apache-2.0
"""Reading files of a source: what one descriptor gives, and batches of files that fit into one piece of work.

A file is opened relative to its directory, never through a link, without waiting for anything (a fifo may have taken its name) and
without touching its access time where that is allowed. Its status after reading is compared with the one from the directory's
scan: equal means that what was read is what the entry says. Otherwise it is read once more with the status that it has now; what is still
changing then is kept and marked.

Files of a batch are read back to back into the worker's buffer. All files of a window are opened and announced before the first one is
read, so that the disk has them in hand.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keepstone.env import FileSystem
from keepstone.store import SEGMENT, SMALL_FILE, Chunks, Scratch, cut_file
from keepstone.workloads.files.folders import Folder, Folders
from keepstone.workloads.files.metadata import Attributes

if TYPE_CHECKING:
    from keepstone.workloads.files.draft import Draft

__all__ = ["CHANGED", "UNREADABLE", "Batch", "Intake", "Item", "Taken", "data_extents", "is_unchanged"]

CHANGED, UNREADABLE = 1, 2
"""`Extra.flags`."""

FRAME = 2 << 20
_FILES = 1000
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_HOLES = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}
_FATAL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_MOST_EXTENTS = 1 << 16

Extents = list[tuple[int, int]]


class Item:
    """A regular file to be read: entry `index` of a page. `hint`: where its only chunk may be, or -1.

    `others`: entries that are other names of the same file. `tries`: how often it was put back.
    """

    __slots__ = ("draft", "folder", "hint", "index", "name", "others", "status", "tries")

    def __init__(self, draft: Draft, index: int, folder: Folder, name: bytes, status: os.stat_result, hint: int) -> None:
        self.draft = draft
        self.index = index
        self.folder = folder
        self.name = name
        self.status = status
        self.hint = hint
        self.others: list[tuple[Draft, int]] | None = None
        self.tries = 0


@dataclass(slots=True)
class Taken:
    """What became of a file, where there is more to say than its number of chunks.

    `status`: the one that belongs to the content, None for the scan's. `size`: of the content where that is not the status's, else -1.
    `again`: it does not fit any more and was not read. `error`: why it was not read; `note`: what else went wrong.
    """

    count: int = 0
    status: os.stat_result | None = None
    size: int = -1
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    extents: Extents | None = None
    flags: int = 0
    again: bool = False
    error: OSError | None = None
    note: str = ""


class Intake:
    """Opens files. Safe for several threads. `ahead`: how many files one batch may have open."""

    def __init__(self, fs: FileSystem, folders: Folders, attributes: Attributes, ahead: int) -> None:
        self.fs = fs
        self.folders = folders
        self.ahead = ahead
        self._attributes = attributes

    def open(self, folder: int, name: bytes) -> int:
        """A descriptor of this entry, whatever kind of thing it is now. `OSError`."""
        try:
            return self.fs.open(name, _FLAGS | os.O_NOATIME, dir_fd=folder)
        except PermissionError as error:
            if error.errno != errno.EPERM:  # which says that only its owner may leave the access time alone
                raise
            return self.fs.open(name, _FLAGS, dir_fd=folder)
        except BlockingIOError:
            return self._open_leased(folder, name)

    def _open_leased(self, folder: int, name: bytes) -> int:
        """Open a file on which somebody holds a lease (F_SETLEASE), and wait until it is given back; the kernel sees to that."""
        path = self.fs.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if not stat.S_ISREG(self.fs.fstat(path).st_mode):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return self.fs.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            self.fs.close(path)

    def attributes(self, fd: int, device: int, taken: Taken) -> None:
        """Put the extended attributes of an open file into `taken`, or a note."""
        try:
            taken.xattrs = self._attributes.read(fd, device)
        except OSError as error:
            taken.note = f"its extended attributes cannot be read ({error.strerror})"

    def take(self, fd: int, status: os.stat_result, view: memoryview) -> tuple[int, Taken]:
        """Read a file into `view`: how many bytes, and the rest. `OSError`."""
        taken = Taken()
        extents = data_extents(self.fs, fd, status) if is_sparse(status) else None
        for attempt in range(2):
            size = status.st_size
            if size > len(view):
                taken.again, taken.status = True, status
                return 0, taken
            got = self._fill(fd, view, extents if extents is not None else [(0, size)])
            whole = got == (size if extents is None else sum(length for _, length in extents))
            self.attributes(fd, status.st_dev, taken)
            now = self.fs.fstat(fd)
            if whole and is_unchanged(now, status):
                break
            if not stat.S_ISREG(now.st_mode):
                raise OSError(errno.ENXIO, "it is no regular file any more")
            if attempt:
                taken.flags, taken.size = CHANGED, got
            taken.status = status = now
            extents = None
        taken.extents = extents
        return got, taken

    def _fill(self, fd: int, view: memoryview, ranges: Extents) -> int:
        at = 0
        for offset, length in ranges:
            end = at + length
            while at < end:
                count = self.fs.preadv(fd, [view[at:end]], offset + length - (end - at))
                if not count:
                    return at
                at += count
        return at


class Batch:
    """Files that are read by one piece of work. Its folders are held until `release`."""

    def __init__(self, intake: Intake, folders: int) -> None:
        self.items: list[Item] = []
        self.size = 0
        self._intake = intake
        self._folders: set[Folder] = set()
        self._most_folders = folders

    def fits(self, item: Item) -> bool:
        """Whether there is room for this file."""
        return not self.items or (
            self.size < FRAME
            and self.size + item.status.st_size <= SEGMENT
            and len(self.items) < _FILES
            and (item.folder in self._folders or len(self._folders) < self._most_folders)
        )

    def add(self, item: Item) -> None:
        """Append a file."""
        self.items.append(item)
        self.size += item.status.st_size
        if item.folder not in self._folders:
            self._folders.add(item.folder)
            self._intake.folders.hold(item.folder)

    def release(self) -> None:
        """Let go of the folders; on the thread of the traversal."""
        for folder in self._folders:
            self._intake.folders.release(folder)
        self._folders.clear()

    def read(self, scratch: Scratch) -> Chunks:
        """The chunks of all files; `info` has for every item its number of chunks, or `Taken`. Called by a worker."""
        pinned: dict[Folder, int | OSError] = {}
        opened: list[int] = []
        results: list[int | Taken] = []
        lengths: list[int] = []
        hints: list[int] = []
        at = 0
        ahead = self._intake.ahead
        fs = self._intake.fs
        try:
            for begin in range(0, len(self.items), ahead):
                window = self.items[begin : begin + ahead]
                errors = {}
                for item in reversed(window):
                    found = self._open(item, pinned)
                    if isinstance(found, OSError):
                        errors[item] = found
                    else:
                        opened.append(found)
                for item in window:
                    if item in errors:
                        results.append(Taken(error=errors[item]))
                        continue
                    fd = opened.pop()
                    try:
                        got, taken = self._intake.take(fd, item.status, scratch.view[at:])
                    except OSError as error:
                        results.append(Taken(error=_unless_fatal(error)))
                        continue
                    finally:
                        fs.close(fd)
                    ...
        finally:
            ...
        return Chunks(scratch.view[:at], lengths, hints, results, FRAME)
