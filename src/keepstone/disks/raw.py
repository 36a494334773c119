# SPDX-License-Identifier: Apache-2.0
"""Raw images and block devices of this machine.

Invariants
* What a source calls zero, the file system called a hole while the file had its full size.
* A sink touches nothing that it was not allowed to overwrite, and `abort` removes only what it created.
* A block device is taken for this sink alone: one that is mounted or otherwise in use is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from keepstone.disks.port import Extent
from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing, TargetExists, UsageError
from keepstone.files import sync_folder
from keepstone.objects import PAGE, Buffer, DirectFile, aligned, failure, round_up

__all__ = ["RawSink", "RawSource"]

_CANNOT_PUNCH = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}
_ZEROS = 1 << 20


class RawSource:
    """A `BlockSource` over a regular file or a block device; holes of a sparse file are zero extents.

    `SourceMissing` where there is none, `UsageError` where it is something else.
    """

    block_size = PAGE

    def __init__(self, env: Env, path: Path) -> None:
        self.path = path
        with self._failures():
            kind = env.fs.stat(path).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
                raise UsageError(f"{path} is neither an image nor a block device; back it up as a folder or file")
            self._file = DirectFile(env.fs, os.fspath(path))
            self.size = self._file.size()

    def __enter__(self) -> RawSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def token(self) -> str | None:
        """None: a raw disk does not track its changes."""
        return None

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """The whole disk, whatever `since` says. Data comes in whole pages, so that it can be read directly."""
        end = 0
        while end < self.size:
            with self._failures():
                start, stop = self._data(end)
            start = start // PAGE * PAGE if start < self.size else self.size
            if start > end:
                yield Extent(end, start - end, zero=True)
            end = min(self.size, round_up(stop))
            if end > start:
                yield Extent(start, end - start, zero=False)

    def _data(self, at: int) -> tuple[int, int]:
        """The first range at or behind `at` that is not a hole."""
        try:
            start = self._file.seek(at, os.SEEK_DATA)
            return start, self._file.seek(start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end, or an end that came nearer
                if self._file.size() < self.size:
                    raise self._shrank() from error
                return self.size, self.size
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):  # holes are not known here
                return at, self.size
            raise

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        wanted = min(len(buffer), self.size - offset)
        if offset < 0 or wanted <= 0:
            if 0 <= offset <= self.size:
                return 0
            raise UsageError(f"{self.path} has no byte {offset}; it is {self.size} bytes long")
        with self._failures():
            count = self._file.pread_into(offset, buffer[: round_up(wanted)])  # whole pages also at the end
        if count < wanted:
            raise self._shrank()
        return wanted

    def _shrank(self) -> SourceFailed:
        return SourceFailed(
            f"{self.path} became shorter than {self.size} bytes while it was read; stop what writes to it, or back up "
            "a snapshot of it"
        )

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failure(error, str(self.path), missing=SourceMissing, other=SourceFailed) from error


class RawSink:
    """A `BlockSink` of `size` bytes: a new sparse file, or with `overwrite` what is there already, in place.

    `TargetExists` where it would overwrite without being told to, `UsageError` where a block device is too small,
    `AccessDenied` where one is in use.
    """

    def __init__(self, env: Env, path: Path, size: int, *, overwrite: bool = False) -> None:
        if size < 0:
            raise UsageError(f"{path} cannot become {size} bytes long")
        self.path = path
        self.size = size
        self._fs = env.fs
        self._open = True
        with self._failures():
            self._file, self._fresh = self._opened(overwrite)
        try:
            with self._failures():
                self._prepare()
        except BaseException:
            self.abort()
            raise

    def _opened(self, overwrite: bool) -> tuple[DirectFile, bool]:
        path = os.fspath(self.path)
        try:
            return DirectFile(self._fs, path, os.O_RDWR | os.O_CREAT | os.O_EXCL), True
        except FileExistsError:
            if not overwrite:
                raise
        kind = self._fs.stat(path).st_mode
        if stat.S_ISBLK(kind):
            return DirectFile(self._fs, path, os.O_RDWR | os.O_EXCL), False
        if stat.S_ISREG(kind):
            return DirectFile(self._fs, path, os.O_RDWR), False
        raise UsageError(f"{path} is neither a file nor a block device; choose another target")

    def _prepare(self) -> None:
        if stat.S_ISREG(self._fs.stat(self.path).st_mode):
            self._file.truncate(self.size)
        elif self._file.size() < self.size:
            raise UsageError(
                f"{self.path} has {self._file.size()} bytes, {self.size} are needed; choose a larger device"
            )

    def __enter__(self) -> RawSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.abort()

    def write(self, offset: int, data: Buffer) -> None:
        self._check(offset, memoryview(data).nbytes)
        with self._failures():
            self._file.pwrite(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        if self._fresh or not length:
            return
        with self._failures():
            try:
                self._file.punch(offset, length)
            except OSError as error:
                if error.errno not in _CANNOT_PUNCH:
                    raise
                self._write_zeros(offset, length)

    def _write_zeros(self, offset: int, length: int) -> None:
        zeros = aligned(min(length, _ZEROS))
        head = min(length, -offset % PAGE)
        self._file.pwrite(offset, zeros[:head])
        for at in range(offset + head, offset + length, _ZEROS):
            self._file.pwrite(at, zeros[: offset + length - at])

    def finish(self) -> None:
        self._check(0, 0)
        try:
            with self._failures():
                self._file.fsync()
                if self._fresh:
                    sync_folder(self._fs, self.path.absolute().parent)
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._file.close()

    def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        self._file.close()
        if self._fresh:
            with contextlib.suppress(OSError):
                self._fs.unlink(self.path)

    def _check(self, offset: int, length: int) -> None:
        if not self._open:
            raise UsageError(f"the restore to {self.path} is over; begin another one")
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UsageError(f"bytes {offset} to {offset + length} are not in {self.path} ({self.size} bytes)")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failure(error, str(self.path), exists=TargetExists) from error
