# SPDX-License-Identifier: Apache-2.0
"""Directories of a source, reached by descriptors only.

A directory is opened by its name in an open one, never through a symbolic link, so that nobody can lead a backup astray
by moving things about; and a tree may be deeper than a path can say. Only a bounded number is open at once: one that is
not in use may be closed and is opened again when it is needed, from the nearest one that is open, and must be the same
then (device and inode).

Invariants
* A pinned directory stays open. One that nobody holds or pins is closed.
* Workers pin and unpin; everything else is done by one thread.
"""

from __future__ import annotations

import errno
import threading

from keepstone.env import FileSystem
from keepstone.workloads.directories.scan import OPENED

__all__ = ["Folder", "Folders"]


class Folder:
    """A directory. `fd`: valid while it is pinned. `name`: in the one `above`; of the root, its path.

    Without a descriptor it is one that somebody holds, and that is opened when it is pinned.
    """

    __slots__ = ("above", "device", "fd", "holders", "inode", "name", "pins")

    def __init__(self, above: Folder | None, name: bytes, device: int, inode: int, fd: int = -1) -> None:
        self.above = above
        self.name = name
        self.device = device
        self.inode = inode
        self.fd = fd
        self.holders = 1
        self.pins = 0 if fd < 0 else 1

    def path(self, name: bytes = b"") -> bytes:
        """Where this directory, or the entry with this name in it, was found; for people."""
        parts = [name] if name else []
        folder: Folder | None = self
        while folder is not None:
            parts.append(folder.name)
            folder = folder.above
        root = parts.pop()
        return b"/".join([root.rstrip(b"/"), *reversed(parts)]) if parts else root


class Folders:
    """The open directories beneath `root`, at most about `limit`. Raises `OSError`; ESTALE where a directory is not the
    one it was.
    """

    def __init__(self, fs: FileSystem, root: Folder, limit: int) -> None:
        self._fs = fs
        self._limit = limit
        self._lock = threading.Lock()
        self._root = root
        self._open: dict[Folder, None] = {root: None}  # the one that was opened first stands first

    def enter(self, above: Folder, name: bytes, device: int, inode: int) -> Folder:
        """Open a directory; the caller holds and pins it."""
        with self._lock:
            if above.fd < 0:
                self._reopen(above)
            folder = Folder(above, name, device, inode, self._fs.open(name, OPENED, dir_fd=above.fd))
            self._register(folder)
            return folder

    def pin(self, folder: Folder) -> int:
        """Its descriptor, which stays valid until `unpin`."""
        with self._lock:
            if folder.fd < 0:
                self._reopen(folder)
            folder.pins += 1
            return folder.fd

    def unpin(self, folder: Folder) -> None:
        """The opposite of `pin`."""
        with self._lock:
            folder.pins -= 1
            if not folder.pins and not folder.holders:
                self._close(folder)

    def hold(self, folder: Folder) -> None:
        """One more will need it."""
        with self._lock:
            folder.holders += 1

    def leave(self, folder: Folder) -> None:
        """`unpin` and `release`."""
        with self._lock:
            folder.pins -= 1
            folder.holders -= 1
            if not folder.pins and not folder.holders:
                self._close(folder)

    def release(self, folder: Folder) -> None:
        """The opposite of `hold`."""
        with self._lock:
            folder.holders -= 1
            if not folder.pins and not folder.holders:
                self._close(folder)

    def close(self) -> None:
        """Close everything. Nobody may use a descriptor any more."""
        for folder in list(self._open):
            self._close(folder)

    def _register(self, folder: Folder) -> None:
        self._open[folder] = None
        if len(self._open) > self._limit:
            for other in self._open:
                if not other.pins and other is not folder:
                    self._close(other)
                    break

    def _close(self, folder: Folder) -> None:
        if folder.fd >= 0:
            del self._open[folder]
            self._fs.close(folder.fd)
            folder.fd = -1

    def _reopen(self, folder: Folder) -> None:
        """Open it again, and on the way what others hold; the root is always open."""
        way = []
        at: Folder | None = folder
        while at is not None and at.fd < 0:
            way.append(at)
            at = at.above
        assert at is not None
        fd, passing = at.fd, -1
        try:
            for at in reversed(way):
                fd = self._fs.open(at.name, OPENED, dir_fd=fd)
                if passing >= 0:
                    self._fs.close(passing)
                passing = fd
                status = self._fs.fstat(fd)
                if (status.st_dev, status.st_ino) != (at.device, at.inode):
                    raise OSError(errno.ESTALE, "it was replaced by another directory")
                if at.holders or at is folder:
                    at.fd, passing = fd, -1
                    self._register(at)
        finally:
            if passing >= 0:
                self._fs.close(passing)
