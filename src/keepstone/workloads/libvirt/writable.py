# SPDX-License-Identifier: Apache-2.0
"""The image of a domain that is off, open for writing: `qemu-nbd` serves it at a socket that only this user reaches.

Invariants
* QEMU writes. So the records of changes that are in the image have what was written, and the next backup reads that. If
  it is killed, QEMU vouches for no record of this image any more, and the next backup reads it in full and says so.
* The image is locked, as QEMU locks images, until it is closed: its domain cannot be started meanwhile, whoever tries.
* The server ends with us, whatever happens to us, and closes the image in good order (`running.keeper`).
* Of files of this host it writes to this one only: an image that has a part of its disk in another file is refused
  before, and whatever its header says by then, it has no backing file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from keepstone.disks.nbd import NbdSink, NbdSource
from keepstone.disks.qcow2 import check_header
from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, StorageError, Unsupported, UsageError
from keepstone.objects import failure
from keepstone.workloads.libvirt.domains import DomainDisk
from keepstone.workloads.running.keeper import Keeper

__all__ = ["Writable", "check_image"]

_PROGRAM = "qemu-nbd"
_FORMATS = ("raw", "qcow2")
_PATIENCE = 30 * 10**9
_STEP = 0.02


def check_image(env: Env, disk: DomainDisk, allowed: Callable[[Path], object]) -> None:
    """`Unsupported`, `UsageError`, `AccessDenied` where this image could not be written, and what `allowed` raises of
    its path; nothing is locked for it."""
    elsewhere = "restore it elsewhere by --target"
    if disk.kind not in ("file", "block") or not disk.source:
        raise Unsupported(f"{disk.target} is on {disk.kind} storage, which only its machine writes to; {elsewhere}")
    if disk.format not in _FORMATS:
        raise Unsupported(f"the image of {disk.target} is {disk.format}, which is not written to; {elsewhere}")
    if disk.read_only:
        raise UsageError(f"{disk.target} is read-only in the machine; {elsewhere}")
    if shutil.which(_PROGRAM) is None:
        raise Unsupported(f"the images of a machine are written by {_PROGRAM}, which is not here; install qemu-utils")
    allowed(Path(disk.source))
    fd = _opened(env, disk)
    try:
        if disk.format == "qcow2":
            check_header(Path(disk.source), env.fs.pread(fd, 512, 0))
    except Unsupported as error:
        reason = str(error).partition(";")[0]
        raise Unsupported(f"{disk.target} is on an image that is not written to: {reason}; {elsewhere}") from error
    finally:
        env.fs.close(fd)


def _opened(env: Env, disk: DomainDisk) -> int:
    try:
        return env.fs.open(disk.source, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise failure(error, disk.source) from error


class Writable:
    """`sink`, `existing`: to write to it, and what is there. `Conflict` where somebody else has the image,
    `StorageError` where QEMU does not open it."""

    def __init__(self, env: Env, disk: DomainDisk) -> None:
        self._env = env
        with contextlib.ExitStack() as stack:
            fd = _opened(env, disk)
            stack.callback(env.fs.close, fd)
            folder = Path(tempfile.gettempdir()) / f"keepstone-replace-{env.random(8).hex()}"
            keeper = stack.enter_context(contextlib.closing(Keeper(folder=folder, hold=[fd])))
            keeper.start(_command(disk, fd, folder / "nbd"))
            existing = self._connected(disk, keeper, folder / "nbd")
            self.existing = stack.enter_context(existing)
            self.sink = stack.enter_context(NbdSink(env, folder / "nbd"))
            self._stack = stack.pop_all()

    def __enter__(self) -> Writable:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _connected(self, disk: DomainDisk, keeper: Keeper, socket: Path) -> NbdSource:
        end = self._env.boot_time() + _PATIENCE
        while True:
            ended = keeper.wait(0)
            if ended is not None and "lock" in ended.said:
                raise Conflict(f"{disk.source} is in use by somebody else, though its machine is off; end that first")
            if ended is not None or self._env.boot_time() > end:
                said = "it does not answer" if ended is None else ended.said.rpartition(": ")[2]
                raise StorageError(f"{disk.source}: QEMU does not open it for writing: {said[:500]}")
            if socket.exists():
                with contextlib.suppress(KeepstoneError):
                    return NbdSource(self._env, socket)
            self._env.sleep(_STEP)


def _command(disk: DomainDisk, fd: int, socket: Path) -> list[str]:
    # The keeper has the file open under the same number, and QEMU after it.
    protocol = "host_device" if disk.kind == "block" else "file"
    discard = {"discard": "unmap" if disk.discard else "ignore"}  # the program's own option does not reach the file
    file = {"driver": protocol, "filename": f"/proc/self/fd/{fd}"} | discard
    image = {"driver": disk.format, "file": file} | discard | ({"backing": None} if disk.format == "qcow2" else {})
    words = ["--persistent", "--shared=32", "--cache=writeback", f"--socket={socket}"]
    return [_PROGRAM, *words, "json:" + json.dumps(image)]
