# SPDX-License-Identifier: Apache-2.0
"""Files past the page cache: bulk data goes between the disk and aligned buffers without a copy (O_DIRECT).

Invariants
* Every range can be read and written; what direct I/O cannot do (odd offsets and lengths) goes through the page cache.
* Where the file system has no direct I/O (EINVAL on open or on a transfer) everything silently goes through the page
  cache, and its pages are dropped again (POSIX_FADV_DONTNEED), so that a backup does not push out the machine's own.
* A page of the file is never written both ways at once by callers that write disjoint ranges: direct writes are whole
  pages. After `fsync` all readers see all writes.

All methods raise `OSError`; the caller knows what its file means.
"""

from __future__ import annotations

import contextlib
import errno
import os
from types import TracebackType

from keepstone.env import FileSystem
from keepstone.errors import UsageError
from keepstone.objects.buffers import PAGE, BufferPool, is_aligned, round_up
from keepstone.objects.port import Buffer
from keepstone.objects.syscalls import punch_hole

__all__ = ["ROOM", "WINDOW", "DirectFile", "DirectWriter"]

WINDOW = 4 << 20
"""Bytes of one write of a `DirectWriter`."""
ROOM = 5 << 20
"""The most that `DirectWriter.room` gives at once."""

_SMALL = 64 << 10  # below this a direct write waits longer for the disk than the copy costs
_BOUNCE = 1 << 20


class DirectFile:
    """An open file; reads and writes at offsets from several threads.

    `flags` are those of `os.open`; O_CREAT and O_EXCL act once.
    """

    def __init__(self, fs: FileSystem, path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> None:
        self._fs = fs
        self._bounce = BufferPool(_BOUNCE)
        self._direct: int | None = None
        # The plain one creates: an O_DIRECT open that fails with EINVAL may have created the file all the same.
        self._plain = fs.open(path, flags, mode)
        self._descriptors = [self._plain]
        try:
            self._open_direct(path, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC) | os.O_DIRECT)
        except BaseException:
            self.close()
            raise

    def _open_direct(self, path: str, flags: int) -> None:
        try:
            direct = self._fs.open(path, flags)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return
        self._descriptors.append(direct)
        plain, other = self._fs.fstat(self._plain), self._fs.fstat(direct)
        if (plain.st_dev, plain.st_ino) == (other.st_dev, other.st_ino):  # else the path was given to another file
            self._direct = direct

    @property
    def direct(self) -> bool:
        """Whether direct I/O works here, as far as known."""
        return self._direct is not None

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back; harmless when repeated."""
        try:
            while self._descriptors:
                self._fs.close(self._descriptors.pop())
        finally:
            if self._descriptors:
                self.close()

    def seek(self, offset: int, whence: int) -> int:
        """`lseek`; nothing else here depends on the position."""
        return self._fs.lseek(self._plain, offset, whence)

    def size(self) -> int:
        """Bytes in the file or block device."""
        return self.seek(0, os.SEEK_END)

    def pread_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; the number of bytes that were there. Direct where both are aligned."""
        done = 0
        while done < len(buffer):
            count = self._pread(offset + done, buffer[done:])
            if not count:
                break
            done += count
        return done

    def _pread(self, offset: int, view: memoryview) -> int:
        pages = len(view) // PAGE * PAGE
        if self._direct is not None and pages and offset % PAGE == 0 and is_aligned(view):
            try:
                return self._fs.preadv(self._direct, [view[:pages]], offset)
            except OSError as error:
                self._without_direct(error)
        count = self._fs.preadv(self._plain, [view], offset)
        self._drop(offset, count)
        return count

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`. Direct where offset and length are aligned; odd memory is copied first."""
        view = memoryview(data).cast("B")
        if self._fits(offset, view) and not is_aligned(view):
            buffer = self._bounce.take()
            for at in range(0, len(view), _BOUNCE):
                piece = view[at : at + _BOUNCE]
                buffer[: len(piece)] = piece
                self._pwrite_all(offset + at, buffer[: len(piece)])
            self._bounce.give(buffer)
        else:
            self._pwrite_all(offset, view)

    def _fits(self, offset: int, view: memoryview) -> bool:
        return self._direct is not None and offset % PAGE == 0 and len(view) % PAGE == 0 and len(view) >= _SMALL

    def _pwrite_all(self, offset: int, view: memoryview) -> None:
        while len(view):
            count = self._pwrite(offset, view)
            if count <= 0:
                raise OSError(errno.EIO, "the disk took nothing of a write")
            offset += count
            view = view[count:]

    def _pwrite(self, offset: int, view: memoryview) -> int:
        if self._direct is not None and self._fits(offset, view) and is_aligned(view):
            try:
                return self._fs.pwrite(self._direct, view, offset)
            except OSError as error:
                self._without_direct(error)
        count = self._fs.pwrite(self._plain, view, offset)
        self._drop(offset, count)
        return count

    def punch(self, offset: int, length: int) -> None:
        """Make this range read as zeros without storing them. EOPNOTSUPP and the like where that is not possible."""
        punch_hole(self._plain, offset, length)

    def truncate(self, size: int) -> None:
        """Set the length of the file."""
        self._fs.ftruncate(self._plain, size)

    def fsync(self) -> None:
        """Content and length are durable on return. After an error the file is lost: never call it again."""
        self._fs.fsync(self._plain)
        with contextlib.suppress(OSError):
            self._fs.posix_fadvise(self._plain, 0, 0, os.POSIX_FADV_DONTNEED)

    def _without_direct(self, error: OSError) -> None:
        if error.errno != errno.EINVAL:
            raise error
        self._direct = None

    def _drop(self, offset: int, count: int) -> None:
        """Start writing these pages back and drop those that are clean; a hint, so its failure means nothing."""
        if self._direct is None and count > 0:
            with contextlib.suppress(OSError):
                self._fs.posix_fadvise(self._plain, offset, count, os.POSIX_FADV_DONTNEED)


class DirectWriter:
    """A new file, written from its start by one thread at a time through one buffer of `WINDOW + ROOM` bytes.

    `FileExistsError` where `path` exists. Between calls fewer than `WINDOW` bytes wait in the buffer.
    """

    def __init__(self, fs: FileSystem, path: str, buffers: BufferPool) -> None:
        if buffers.size < WINDOW + ROOM:
            raise UsageError(f"a DirectWriter needs buffers of {WINDOW + ROOM} bytes, not {buffers.size}")
        self._file = DirectFile(fs, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._buffers = buffers
        self._buffer = buffers.take()
        self._fill = 0
        self._room = 0
        self._written = 0
        self._open = True

    def write(self, data: Buffer) -> None:
        """Append `data`."""
        self._check_open()
        view = memoryview(data).cast("B")
        while len(view):
            count = min(len(view), WINDOW - self._fill)
            self._buffer[self._fill : self._fill + count] = view[:count]
            view = view[count:]
            self._advance(count)

    def room(self, count: int) -> memoryview:
        """`count` (at most `ROOM`) bytes to be filled in place; `advance` appends them. Valid until the next call."""
        self._check_open()
        if not 0 <= count <= ROOM:
            raise UsageError(f"room for {count} bytes cannot be had at once: ask for at most {ROOM}")
        self._room = count
        return self._buffer[self._fill : self._fill + count]

    def advance(self, count: int) -> None:
        """Append the first `count` bytes of the last `room`."""
        self._check_open()
        if not 0 <= count <= self._room:
            raise UsageError(f"{count} bytes were never written into the room; ask for room first")
        self._advance(count)

    def _advance(self, count: int) -> None:
        self._room = 0
        self._fill += count
        if self._fill >= WINDOW:
            self._file.pwrite(self._written, self._buffer[:WINDOW])
            self._written += WINDOW
            rest = self._fill - WINDOW
            self._buffer[:rest] = self._buffer[WINDOW : self._fill]
            self._fill = rest

    def finish(self, *, sync: bool = True) -> None:
        """Write what waits and close; content and length are durable on return, unless not asked for."""
        self._check_open()
        try:
            padded = round_up(self._fill)
            self._buffer[self._fill : padded] = bytes(padded - self._fill)
            self._file.pwrite(self._written, self._buffer[:padded])
            if padded != self._fill:
                self._file.truncate(self._written + self._fill)
            if sync:
                self._file.fsync()
        finally:
            self.close()

    def close(self) -> None:
        """Stop here; harmless when repeated."""
        if self._open:
            self._open = False
            self._buffers.give(self._buffer)
            self._file.close()

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError("this upload is over; begin another one")
