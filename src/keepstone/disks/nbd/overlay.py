# SPDX-License-Identifier: Apache-2.0
"""A disk that can be written, over one that cannot: changes go into a sparse file without a name, gone with its end."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from keepstone.disks.nbd.allocation import Allocation
from keepstone.disks.port import BlockSource
from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.objects import PAGE, Buffer, failure
from keepstone.objects.syscalls import punch_hole

__all__ = ["Overlay"]

_REGION = 1 << 30  # bytes of the disk whose blocks are noted together
_BLOCKS = _REGION // PAGE
_ALL = bytes(b"\1" * _BLOCKS)
_ZEROS = bytes(1 << 20)
_CANNOT_PUNCH = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Overlay:
    """What is there of `base`, but for what was written. Safe for several threads; what they write at the same place at
    the same time may end up mixed. Nothing outlives it, so there is nothing to make durable.

    `StorageFull` where the folder has no room for a change, and what else `failure` makes of an `OSError`.
    """

    def __init__(self, env: Env, base: BlockSource, folder: Path) -> None:
        self.size = base.size
        self._base = base
        self._fs = env.fs
        self._folder = folder
        self._allocation = Allocation(base)
        self._changed: dict[int, bytearray | bytes] = {}  # for each region a byte for each block: whether it is here
        self._lock = threading.Lock()
        path = folder / f".keepstone-overlay-{env.random(8).hex()}"
        with self._failures():
            self._file: int | None = self._fs.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._fs.unlink(path)
                self._fs.ftruncate(self._file, -(-self.size // PAGE) * PAGE)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Drop the changes; harmless when repeated. The base stays its owner's."""
        file, self._file = self._file, None
        if file is not None:
            self._fs.close(file)

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """As `Allocation.runs`; what was written is data."""
        for count, here in self._parts(offset, length):
            if here:
                yield count, False
            else:
                yield from self._allocation.runs(offset, count)
            offset += count

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        """As `BlockSource.pread_into`."""
        wanted = min(len(buffer), self.size - offset)
        at = 0
        for count, here in self._parts(offset, wanted):
            view = buffer[at : at + count]
            if here:
                self._read(view, offset + at)
            else:
                self._base.pread_into(view, offset + at)
            at += count
        return wanted

    def write(self, offset: int, data: Buffer) -> None:
        """Put `data`, which lies within the size, at `offset`."""
        view = memoryview(data).cast("B")
        with self._lock, self._failures():
            self._prepare(offset, len(view))
            self._write(view, offset)
            self._mark(offset, len(view))

    def zero(self, offset: int, length: int) -> None:
        """Make this range, which lies within the size, read as zeros, without storing them where that is possible."""
        if not length:
            return
        with self._lock, self._failures():
            self._prepare(offset, length)
            self._punch(offset, length)  # also what was never written: a write that failed may have left something
            self._mark(offset, length)

    def _punch(self, offset: int, length: int) -> None:
        try:
            punch_hole(self._opened, offset, length)
        except OSError as error:
            if error.errno not in _CANNOT_PUNCH:
                raise
            for at in range(0, length, len(_ZEROS)):
                self._write(memoryview(_ZEROS)[: length - at], offset + at)

    def _prepare(self, offset: int, length: int) -> None:
        """Have the blocks here that a change of this range touches in part only."""
        for edge in (offset, offset + length):
            block = edge // PAGE * PAGE
            if edge % PAGE and edge < self.size and not self._here(block):
                view = memoryview(bytearray(min(PAGE, self.size - block)))
                self._base.pread_into(view, block)
                self._write(view, block)
                self._mark(block, len(view))

    def _here(self, offset: int) -> bool:
        region = self._changed.get(offset // _REGION)
        return region is not None and bool(region[offset % _REGION // PAGE])

    def _mark(self, offset: int, length: int) -> None:
        """These bytes are here; whole blocks, but for the last one of the disk."""
        end = offset + length
        while offset < end:
            number, begin = offset // _REGION, offset % _REGION // PAGE
            stop = min(end, (number + 1) * _REGION)
            blocks = -(-(stop - number * _REGION) // PAGE) - begin
            region = self._changed.get(number, b"")
            if blocks == _BLOCKS:
                self._changed[number] = _ALL
            elif region is not _ALL:
                if not isinstance(region, bytearray):
                    region = self._changed[number] = bytearray(_BLOCKS)
                region[begin : begin + blocks] = _ALL[:blocks]
            offset = stop

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """(length, whether it is here) of what this range consists of."""
        end = offset + length
        while offset < end:
            number, place = offset // _REGION, offset % _REGION // PAGE
            stop = min(end, (number + 1) * _REGION)
            region = self._changed.get(number)
            here = region is not None and bool(region[place])
            if region is not None:
                last = region.find(b"\0" if here else b"\1", place)
                if last >= 0:
                    stop = min(stop, number * _REGION + last * PAGE)
            yield stop - offset, here
            offset = stop

    @property
    def _opened(self) -> int:
        if self._file is None:
            raise SourceFailed("the changes of this disk were dropped; serve it again")
        return self._file

    def _read(self, view: memoryview, offset: int) -> None:
        with self._failures():
            while view:
                count = self._fs.preadv(self._opened, [view], offset)
                if not count:
                    raise SourceFailed(f"the changes in {self._folder} became shorter; check the disk below it")
                view, offset = view[count:], offset + count

    def _write(self, view: memoryview, offset: int) -> None:
        while view:
            count = self._fs.pwrite(self._opened, view, offset)
            view, offset = view[count:], offset + count

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failure(error, f"changes in {self._folder}") from error
