# SPDX-License-Identifier: Apache-2.0
"""The disks of a point, served to QEMU, and the overlays that take what its guest writes.

Invariants
* Nothing is written to the point: QEMU reads it over NBD, and writes into a qcow2 image of its own.
* An overlay is there whole or not at all. One that is there already is looked at before QEMU opens it: it leads to no
  other file. It needs the point until it has no backing file any more, see `needs_point`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from keepstone.disks import BlockSource, Extent
from keepstone.disks.nbd import Address, NbdServer
from keepstone.disks.qcow2 import backing_of
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceFailed, StorageError, Unsupported
from keepstone.objects import failure
from keepstone.workloads.images import PointDisk
from keepstone.workloads.machines import Disk, PointOfMachine, Role

__all__ = ["Drive", "Served", "needs_point", "nvram", "overlay"]

_SECTOR = 512
_NVRAM = 64 << 20  # bytes
_TOGETHER = 1 << 20


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk as QEMU opens it. `image`: qcow2, of NVRAM raw. `base`: where the rest of it is served, if it is."""

    disk: Disk
    image: Path
    base: Address | None = None


class Counted:
    """A `BlockSource` that counts what is read of it, and remembers why something could not be."""

    def __init__(self, source: PointDisk) -> None:
        self._source = source
        self.size = source.size
        self.block_size = source.block_size
        self.token = source.token
        self.close = source.close
        self.read = 0
        self.failure: KeepstoneError | None = None
        self._lock = threading.Lock()

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        return self._source.extents(since)

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        try:
            count = self._source.pread_into(buffer, offset)
        except KeepstoneError as error:
            self.failure = error
            raise
        with self._lock:
            self.read += count
        return count


class Served:
    """Serves the disks of a machine at a socket in `folder`, until `close`; what firmware keeps is no disk here.

    What `PointDisk` and `NbdServer` raise.
    """

    def __init__(self, env: Env, machine: PointOfMachine, folder: Path) -> None:
        self.socket = folder / "nbd"
        self._env = env
        self._sources: dict[str, Counted] = {}
        with contextlib.ExitStack() as stack:
            for disk, reader in machine.disks:
                if disk.role is Role.DISK:
                    self._sources[disk.name] = Counted(stack.enter_context(PointDisk(env, reader)))
            exports: dict[str, BlockSource] = dict(self._sources)
            connections = max(32, 2 * len(exports))
            self._server = stack.enter_context(NbdServer(env, exports, self.socket, connections=connections))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Hang up. Harmless when repeated."""
        self._stack.close()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def read(self) -> int:
        """Bytes that were read of the point."""
        return sum(source.read for source in self._sources.values())

    @property
    def failure(self) -> KeepstoneError | None:
        """Why something of the point could not be read, if that was so."""
        return next((source.failure for source in self._sources.values() if source.failure is not None), None)

    def address(self, name: str) -> Address:
        """Where the disk of this name is."""
        return replace(self._server.address, export=name)


def overlay(env: Env, image: Path, size: int, base: Address) -> None:
    """Make a qcow2 image over what is, or will be, served at `base`. `SourceFailed`, and what `failure` makes of an
    `OSError`."""
    new = image.with_name(image.name + ".new")
    sectors = -(-size // _SECTOR) * _SECTOR
    words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", base.uri, str(new), str(sectors)]
    with _failures(image):
        with contextlib.suppress(FileNotFoundError):
            env.fs.unlink(new)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            with contextlib.suppress(OSError):
                env.fs.unlink(new)
            raise SourceFailed(f"{image}: qemu-img cannot make it: {done.stderr.strip()[:500]}")
        env.fs.rename(new, image)


def needs_point(env: Env, image: Path) -> bool:
    """Whether this overlay does not have all of its disk itself. `StorageError` where it is no overlay of ours, such as
    one that has its data in another file: QEMU would hand that to the guest, whatever file it is."""
    with _failures(image):
        fd = env.fs.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return backing_of(env, image, fd) is not None
        except (SourceFailed, Unsupported) as error:
            raise StorageError(
                f"{image} is no qcow2 image that was made here ({error}); take it away, then what its machine wrote "
                "is lost"
            ) from error
        finally:
            env.fs.close(fd)


def nvram(env: Env, source: BlockSource, image: Path) -> None:
    """Copy what firmware keeps into a new file of our own. `Unsupported` where that is too much."""
    if source.size > _NVRAM:
        raise Unsupported(f"an NVRAM of {source.size:,} bytes is none of a machine that can be started here")
    new = image.with_name(image.name + ".new")
    buffer = memoryview(bytearray(_TOGETHER))
    with _failures(image):
        fd = env.fs.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for offset in range(0, source.size, _TOGETHER):
                count = source.pread_into(buffer, offset)
                env.fs.pwrite(fd, buffer[:count], offset)
        finally:
            env.fs.close(fd)
        env.fs.rename(new, image)


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(error, str(path)) from error
