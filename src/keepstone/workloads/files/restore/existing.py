# SPDX-License-Identifier: Apache-2.0
"""Whether what a target holds already is what the point has.

Nothing is opened that could answer: the entry is looked at through an O_PATH descriptor, and only a regular file is
read.
"""

from __future__ import annotations

import errno
import os
import stat

from keepstone.env import Env
from keepstone.store import Reader
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.restore.apply import Finisher
from keepstone.workloads.files.restore.beneath import Directory
from keepstone.workloads.files.restore.layout import Layout
from keepstone.workloads.salvage import DAMAGE

__all__ = ["Existing"]

_PIECE = 1 << 20


class Existing:
    """Compares entries of a target with those of a point. `content`: read regular files as well."""

    def __init__(self, env: Env, reader: Reader, finisher: Finisher, *, content: bool) -> None:
        self._fs = env.fs
        self._reader = reader
        self._finisher = finisher
        self._content = content

    def same(self, directory: Directory, name: bytes, entry: Entry, refs: list[int]) -> bool:
        """Whether it is as a restore would make it; a directory never is."""
        fd = self._fs.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
        try:
            found = self._fs.fstat(fd)
            place = f"/proc/self/fd/{fd}"
            same = self._alike(found, entry) and not self._finisher.xattrs_differ(place, entry)
            if same and stat.S_ISLNK(entry.mode):
                same = self._fs.readlink(b"", dir_fd=fd) == entry.extra.target
            if same and stat.S_ISREG(entry.mode) and self._content:
                same = self._same_content(place, entry, refs)
            return same
        finally:
            self._fs.close(fd)

    def _alike(self, found: os.stat_result, entry: Entry) -> bool:
        kind = stat.S_IFMT(entry.mode)
        if stat.S_IFMT(found.st_mode) != kind or kind == stat.S_IFDIR or found.st_mtime_ns != entry.mtime:
            return False
        if kind == stat.S_IFREG and found.st_size != entry.size:
            return False
        if kind in (stat.S_IFBLK, stat.S_IFCHR) and found.st_rdev != entry.extra.rdev:
            return False
        if kind != stat.S_IFLNK and stat.S_IMODE(found.st_mode) != self._finisher.mode(entry):
            return False
        if self._finisher.owns and (found.st_uid, found.st_gid) != self._finisher.owner(entry):
            return False
        # One of several names stays only where all of them are likely to be there.
        return entry.extra.link is None or found.st_nlink == entry.extra.link[1]

    def _same_content(self, place: str, entry: Entry, refs: list[int]) -> bool:
        """Compare chunk by chunk by ids, and holes with zeros."""
        try:
            layout = Layout(entry)
            fd = self._fs.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, *DAMAGE):
            return False
        try:
            return self._same_data(fd, layout, refs) and all(
                self._zero(fd, offset, length) for offset, length in layout.holes()
            )
        except (OSError, *DAMAGE):
            return False  # it will be restored, which tells what is wrong
        finally:
            self._fs.close(fd)

    def _same_data(self, fd: int, layout: Layout, refs: list[int]) -> bool:
        position = 0
        for ref in refs:
            length = self._reader.chunk_length(ref)
            if position + length > layout.length:
                return False
            data = b"".join(
                self._fs.pread(fd, end - begin, offset) for begin, end, offset in layout.pieces(position, length)
            )
            if len(data) != length or self._reader.identify(data) != self._reader.chunk_id(ref):
                return False
            position += length
        return position == layout.length

    def _zero(self, fd: int, offset: int, length: int) -> bool:
        end = offset + length
        try:
            offset = self._fs.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
        while offset < end:
            data = self._fs.pread(fd, min(_PIECE, end - offset), offset)
            if not data or data.strip(b"\0"):
                return False
            offset += len(data)
        return True
