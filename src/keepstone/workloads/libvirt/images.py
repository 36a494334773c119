# SPDX-License-Identifier: Apache-2.0
"""The disks of a domain that is off: its images, read as they lie there.

Invariant: they do not change while they are read. Each is locked as QEMU locks images (QEMU, block/file-posix.c,
`raw_check_perm`): not begun where somebody writes to it, and no QEMU gets to write to it until it is closed. So the
domain cannot be started meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from keepstone.disks import open_disk
from keepstone.env import Env
from keepstone.errors import Conflict, SourceFailed, SourceMissing, Unsupported
from keepstone.objects import failure
from keepstone.workloads.libvirt.domains import DomainDisk

__all__ = ["Image"]

_HAS, _DENIES = 100, 200  # a lock on such a byte: the holder does it; he lets nobody do it
_READ, _WRITE, _RESIZE = 0, 1, 3
_LOCK = struct.Struct("hhqqi4x")  # struct flock64


class Image:
    """A `BlockSource`. `token`: what the point before called its state, where its record of changes is still there:
    that goes on, and tells the next backup of the running domain what changed since this one too.

    `Conflict` where somebody writes to it, and what `open_disk` raises.
    """

    def __init__(self, env: Env, disk: DomainDisk, token: str | None) -> None:
        if disk.kind not in ("file", "block") or not disk.source:
            raise Unsupported(
                f"{disk.target} is on {disk.kind} storage, which is read by its machine only; start the machine, or "
                "leave the disk out by --exclude-disk"
            )
        self._token = token
        with contextlib.ExitStack() as stack:
            path = Path(disk.source)
            stack.enter_context(_locked(env, path))
            source = open_disk(env, path, disk.format)
            stack.callback(source.close)
            self._open = stack.pop_all()
        self.size = source.size
        self.block_size = source.block_size
        self.pread_into = source.pread_into
        self.extents = source.extents
        self.close = self._open.close

    def token(self) -> str | None:
        return self._token


@contextlib.contextmanager
def _locked(env: Env, path: Path) -> Iterator[None]:
    try:
        fd = env.fs.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise failure(error, str(path), missing=SourceMissing, other=SourceFailed) from error
    try:
        for byte in (_HAS + _READ, _DENIES + _WRITE, _DENIES + _RESIZE):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        for byte in (_HAS + _WRITE, _HAS + _RESIZE, _DENIES + _READ):
            asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            if _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK:
                raise Conflict(
                    f"{path} is in use by somebody who writes to it, though its machine is off; end that first"
                )
        yield
    finally:
        env.fs.close(fd)
