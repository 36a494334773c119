# SPDX-License-Identifier: Apache-2.0
"""What an entry has beyond its columns: extended attributes, other names, a link's target, a device's number.

POSIX ACLs and capabilities of files are extended attributes of the kernel's (`system.posix_acl_*`,
`security.capability`) and kept as they are.
"""

from __future__ import annotations

import errno
import os

from keepstone.env import FileSystem
from keepstone.workloads.files.page import SYMLINK, Extra

__all__ = ["Attributes", "link_of", "special"]

_NONE = {errno.ENOTSUP, errno.ENOSYS}
_GONE = {errno.ENODATA, errno.ENOTSUP}


class Attributes:
    """Reads extended attributes; a file system that has none is asked once. Safe for several threads."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._without: set[int] = set()

    def read(self, where: int | str, device: int) -> dict[bytes, bytes]:
        """The attributes of an open file, or of what lies at a path, on the file system with this device. `OSError`."""
        if device in self._without:
            return {}
        follow = isinstance(where, int)
        try:
            names = self._fs.listxattr(where, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NONE:
                raise
            self._without.add(device)
            return {}
        found = {}
        for name in sorted(names):
            try:
                found[os.fsencode(name)] = self._fs.getxattr(where, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in _GONE:  # between the two calls
                    raise
        return found

    def beside(self, folder: int, name: bytes, device: int) -> dict[bytes, bytes]:
        """The attributes of the entry with this name in an open directory; the entry itself is not opened."""
        return self.read(f"/proc/self/fd/{folder}/{os.fsdecode(name)}", device)


def link_of(status: os.stat_result) -> tuple[int, int] | None:
    """`Extra.link` of anything but a directory."""
    return (status.st_dev, status.st_nlink) if status.st_nlink > 1 else None


def special(fs: FileSystem, folder: int, name: bytes, status: os.stat_result, xattrs: dict[bytes, bytes]) -> Extra:
    """The extra of a symbolic link, device node, fifo or socket in an open directory. `OSError`."""
    target = b""
    if status.st_mode >> 12 == SYMLINK:
        target = os.fsencode(fs.readlink(name, dir_fd=folder))
    return Extra(target=target, xattrs=xattrs, rdev=status.st_rdev, link=link_of(status))
