# SPDX-License-Identifier: Apache-2.0
"""The images that a disk of a domain is made of while it is off: its own, and what is beneath that, one backing file
under the other.

Invariants
* Each is of the format that somebody named: the description of the domain, or else the header of the image above. None
  is guessed: what a guest writes onto its raw disk never becomes the header of an image.
* QEMU opens the files that were looked at, by their descriptors, and nothing else, whatever their headers say by then.
* Backing files are open for reading only, and locked as QEMU locks images (QEMU, block/file-posix.c, `raw_check_perm`):
  nobody writes to them until the chain is closed. Others may read them, as the machines of other clones do.
* Headers come from whoever made the image. What they name is shown to the caller before it is opened, is a file or a
  block device of this host, and is not beneath itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepstone.disks.qcow2 import Backing as Named
from keepstone.disks.qcow2 import backing_of
from keepstone.env import Env
from keepstone.errors import Conflict, SourceFailed, SourceMissing, Unsupported, UsageError
from keepstone.objects import failure
from keepstone.workloads.libvirt.domains import DomainDisk

__all__ = ["Chain", "unread"]

_LONGEST = 64
_QCOW2 = "qcow2"
_FORMATS = ("raw", _QCOW2)
_ADDRESS = re.compile("[^/]*:")  # QEMU, block.c, `path_has_protocol`
_HAS, _DENIES = 100, 200  # a lock on such a byte: the holder does it; he lets nobody do it
_READ, _WRITE, _RESIZE = 0, 1, 3
_LOCK = struct.Struct("hhqqi4x")  # struct flock64


def unread(path: Path) -> None:
    """For callers who may read no backing file."""
    raise Unsupported(
        f"{path} is a backing file, and nobody said that it may be read here; `keepstone store`, run on this host, "
        "reads it, and so does its machine while it runs"
    )


@dataclass(frozen=True, slots=True)
class _Link:
    """An image that is open."""

    path: Path
    format: str
    fd: int
    device: bool
    identity: tuple[int, int]


class Chain:
    """Open until `close`; the topmost image, too, is for reading and locked, or with `write` for both, and then QEMU is
    to lock it. `files`: their descriptors. `readable` is asked for each backing file, and raises where it must not be
    read.

    `Conflict` where somebody else writes to one of them, `SourceMissing`, `SourceFailed` where they are damaged, too
    many, or beneath themselves, `Unsupported` where only their machine can read them, `UsageError` for what is neither
    a file nor a block device, `AccessDenied`.
    """

    def __init__(self, env: Env, disk: DomainDisk, readable: Callable[[Path], object], *, write: bool = False) -> None:
        self._env, self._readable = env, readable
        with contextlib.ExitStack() as stack:
            self._stack = stack
            top = self._opened(Path(disk.source), disk.format, str(disk.source), write=write)
            self._links = [top]
            self._said = self._header(top)
            while (below := self._below(disk)) is not None:
                self._links.append(below)
            self._stack = stack.pop_all()
        self.files = [link.fd for link in self._links]
        self.close = self._stack.close

    def check(self) -> None:
        """`Conflict` where the topmost image is above something else by now; QEMU has locked it since."""
        if self._header(self._links[0]) != self._said:
            raise Conflict(f"{self._links[0].path} was given another backing file just now; try again")

    def blockdev(self, **options: str) -> dict[str, Any]:
        """The disk as QEMU's JSON has block devices (qapi/block-core.json, BlockdevOptions), for a process that has
        `files`. `options`: of the topmost image, and of its file."""
        top, *beneath = self._links
        image = None
        for link in reversed(beneath):
            image = _node(link, image, {"read-only": True})
        return _node(top, image, options)

    def _header(self, link: _Link) -> Named | None:
        return backing_of(self._env, link.path, link.fd) if link.format == _QCOW2 else None

    def _below(self, disk: DomainDisk) -> _Link | None:
        """What is beneath the last one."""
        above, depth = self._links[-1], len(self._links) - 1
        said = self._said if not depth else self._header(above)
        if above.format != _QCOW2:
            return None
        if depth < len(disk.backing):
            name, format = _described(disk, depth)
        elif said is None or disk.whole:
            return None
        else:
            name, format = _named(above, said)
        if depth == _LONGEST:
            raise SourceFailed(f"{disk.source} is above more than {_LONGEST} backing files; merge some of them")
        path = above.path.parent / name
        if format not in _FORMATS:
            raise Unsupported(
                f"{path}, beneath {above.path}, is {format}; of backing files only raw and qcow2 are read"
            )
        self._readable(path)
        link = self._opened(path, format, f"{path}, beneath {above.path}")
        if link.identity in {other.identity for other in self._links}:
            raise SourceFailed(f"{path} is beneath itself, by way of {above.path}; it has no data")
        return link

    def _opened(self, path: Path, format: str, what: str, *, write: bool = False) -> _Link:
        fs = self._env.fs
        mode = os.O_RDWR if write else os.O_RDONLY
        try:
            _check_kind(fs.stat(path), what)  # of other devices, some do something when they are opened
            fd = fs.open(path, mode | os.O_CLOEXEC | os.O_NONBLOCK)
            self._stack.callback(fs.close, fd)
            status = fs.fstat(fd)
            _check_kind(status, what)
            if not write:
                _lock(fd, path)
        except OSError as error:
            raise failure(error, what, missing=SourceMissing, other=SourceFailed) from error
        device = stat.S_ISBLK(status.st_mode)
        identity = (0, status.st_rdev) if device else (status.st_dev, status.st_ino)
        return _Link(path, format, fd, device, identity)


def _check_kind(status: os.stat_result, what: str) -> None:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise UsageError(f"{what} is neither an image nor a block device")


def _described(disk: DomainDisk, depth: int) -> tuple[str, str]:
    """Path and format, where the description of the domain has them."""
    backing = disk.backing[depth]
    if backing.kind not in ("file", "block"):
        raise Unsupported(f"{disk.target} is above {backing.kind} storage, which is read by its machine only")
    return backing.source, backing.format


def _named(above: _Link, said: Named) -> tuple[str, str]:
    """The same, where the header of the image above has them."""
    rebase = f"`qemu-img rebase -u -F FORMAT -b PATH {above.path}` names it"
    if _ADDRESS.match(said.name):
        raise Unsupported(
            f"{above.path} is above {said.name[:200]!r}, which is an address, and only files of this host are read; "
            f"where it is one, {rebase} by its path"
        )
    if not said.format:
        raise Unsupported(
            f"{above.path} does not say of which format its backing file {said.name!r} is, and that is not guessed; "
            f"{rebase} with its format"
        )
    return said.name, said.format


def _node(link: _Link, beneath: dict[str, Any] | None, options: dict[str, Any]) -> dict[str, Any]:
    # Whoever inherits the descriptors has them under the same numbers.
    protocol = "host_device" if link.device else "file"
    file = {"driver": protocol, "filename": f"/proc/self/fd/{link.fd}"} | options
    return {"driver": link.format, "file": file} | options | ({"backing": beneath} if link.format == _QCOW2 else {})


def _lock(fd: int, path: Path) -> None:
    for byte in (_HAS + _READ, _DENIES + _WRITE, _DENIES + _RESIZE):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    for byte in (_HAS + _WRITE, _HAS + _RESIZE, _DENIES + _READ):
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        if _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK:
            raise Conflict(f"{path} is in use by somebody who writes to it; end that first")
