# SPDX-License-Identifier: Apache-2.0
"""Writing contents without leaving them in the page cache.

A restore is larger than what its machine reads next, so its pages only push out others'; and where a host lends memory
to a virtual machine page by page, each new page of the cache costs more than the copy into it. Uncached buffered writes
(RWF_DONTCACHE, pwritev2(2), Linux 6.14) begin to write their pages back at once and drop them when that is done.

Invariants
* What is written is the same, whichever way it goes. Where the kernel or the file system does not know such writes
  (EOPNOTSUPP, ENOSYS) all goes through the page cache as ever.
* Only whole pages go uncached, and each once, so that a dropped page is never read back to be completed: a page that
  two chunks share, or that is not full, is written through the cache, but for the last one of a file.
"""

from __future__ import annotations

import errno

from keepstone.env import FileSystem
from keepstone.objects.buffers import PAGE

__all__ = ["UncachedWriter"]

_DONTCACHE = 0x80  # include/uapi/linux/fs.h; `os` does not name it
_LARGE = 64 << 10
"""From so many bytes on: below, to begin writing back costs more than a page of the cache that is at hand."""
_UNKNOWN = (errno.EOPNOTSUPP, errno.ENOSYS)


class UncachedWriter:
    """Writes into files of one file system, from several threads. `OSError`."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._known = True

    def write(self, fd: int, data: memoryview, offset: int, size: int) -> None:
        """Write all of `data` at `offset` of a file that has, or will have, `size` bytes."""
        if len(data) >= _LARGE and self._known:
            end = offset + len(data)
            first = -offset % PAGE
            last = len(data) if end == size else len(data) - end % PAGE
            if last - first >= _LARGE:
                self._cached(fd, data[:first], offset)
                self._uncached(fd, data[first:last], offset + first)
                self._cached(fd, data[last:], offset + last)
                return
        self._cached(fd, data, offset)

    def _uncached(self, fd: int, data: memoryview, offset: int) -> None:
        while len(data):
            try:
                count = self._fs.pwritev(fd, [data], offset, _DONTCACHE)
            except (OSError, NotImplementedError) as error:  # the latter: a C library without pwritev2
                if isinstance(error, OSError) and error.errno not in _UNKNOWN:
                    raise
                self._known = False
                self._cached(fd, data, offset)
                return
            data = data[count:]
            offset += count

    def _cached(self, fd: int, data: memoryview, offset: int) -> None:
        done = self._fs.pwrite(fd, data, offset) if data else 0
        while done < len(data):
            done += self._fs.pwrite(fd, data[done:], offset + done)
