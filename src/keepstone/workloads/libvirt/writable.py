# SPDX-License-Identifier: Apache-2.0
"""The image of a domain that is off, open for writing: `qemu-nbd` serves it at a socket that only this user reaches.

Invariants
* QEMU writes. So the records of changes that are in the image have what was written, and the next backup reads that. If
  it is killed, QEMU vouches for no record of this image any more, and the next backup reads it in full and says so.
* The image is locked, as QEMU locks images, until it is closed: its domain cannot be started meanwhile, whoever tries.
* The server ends with us, whatever happens to us, and closes the image in good order (`running.keeper`).
* Of files of this host it writes to this one only. What is beneath it QEMU reads, by descriptors of ours (`chain`): one
  whose data is in another file is refused before.
* Zeros are written as zeros, or kept as such in its tables. Nothing becomes a hole through which one sees what is
  beneath: QEMU discards no cluster of an image that is above another one without a zero in its place.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from keepstone.disks.nbd import NbdSink, NbdSource
from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, StorageError, Unsupported, UsageError
from keepstone.files import exists
from keepstone.workloads.libvirt.chain import Chain
from keepstone.workloads.libvirt.domains import DomainDisk
from keepstone.workloads.running.keeper import Keeper

__all__ = ["Writable", "check_image"]

_PROGRAM = "qemu-nbd"
_FORMATS = ("raw", "qcow2")
_PATIENCE = 30 * 10**9
_STEP = 0.02


def check_image(
    env: Env, disk: DomainDisk, allowed: Callable[[Path], object], readable: Callable[[Path], object]
) -> None:
    """`Unsupported`, `UsageError`, `AccessDenied` where this image could not be written, what `allowed` raises of its
    path, and what `Chain` does; it is not locked for it."""
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
    try:
        Chain(env, disk, readable, write=True).close()
    except Unsupported as error:
        raise Unsupported(f"{disk.target} is not written to: {error}. Otherwise, {elsewhere}") from error


class Writable:
    """`sink`, `existing`: to write to it, and what is there. `readable` is asked for each backing file. `Conflict`
    where somebody else has the image, `StorageError` where QEMU does not open it, and what `Chain` raises."""

    def __init__(self, env: Env, disk: DomainDisk, readable: Callable[[Path], object]) -> None:
        self._env = env
        with contextlib.ExitStack() as stack:
            chain = stack.enter_context(contextlib.closing(Chain(env, disk, readable, write=True)))
            folder = Path(tempfile.gettempdir()) / f"keepstone-replace-{env.random(8).hex()}"
            keeper = stack.enter_context(contextlib.closing(Keeper(folder=folder, hold=chain.files)))
            keeper.start(_command(disk, chain, folder / "nbd"))
            existing = self._connected(disk, keeper, folder / "nbd")
            self.existing = stack.enter_context(existing)
            chain.check()
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
            if exists(self._env.fs, socket):
                with contextlib.suppress(KeepstoneError):
                    return NbdSource(self._env, socket)
            self._env.sleep(_STEP)


def _command(disk: DomainDisk, chain: Chain, socket: Path) -> list[str]:
    # The program's own option does not reach the file.
    image = chain.blockdev(discard="unmap" if disk.discard else "ignore")
    words = ["--persistent", "--shared=32", "--cache=writeback", f"--socket={socket}"]
    return [_PROGRAM, *words, "json:" + json.dumps(image)]
