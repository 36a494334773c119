# SPDX-License-Identifier: Apache-2.0
"""The disks of a domain that is off: its images, read as they lie there, as the domain would see them.

Invariant: they do not change while they are read. Each is locked as QEMU locks images (`chain`): not begun where
somebody writes to it, and no QEMU gets to write to it until it is closed. So the domain cannot be started meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from keepstone.disks import BlockSource, open_disk
from keepstone.disks.qemu import QemuSource
from keepstone.env import Env
from keepstone.errors import Unsupported
from keepstone.workloads.libvirt.chain import Chain
from keepstone.workloads.libvirt.domains import DomainDisk

__all__ = ["Image"]


class Image:
    """A `BlockSource`. `token`: what the point before called its state, where its record of changes is still there:
    that goes on, and tells the next backup of the running domain what changed since this one too. `readable` is asked
    for each backing file.

    What `Chain`, `QemuSource` and `open_disk` raise.
    """

    def __init__(self, env: Env, disk: DomainDisk, token: str | None, readable: Callable[[Path], object]) -> None:
        otherwise = "start the machine, or leave the disk out by --exclude-disk"
        if disk.kind not in ("file", "block") or not disk.source:
            raise Unsupported(
                f"{disk.target} is on {disk.kind} storage, which is read by its machine only; {otherwise}"
            )
        self._token = token
        with contextlib.ExitStack() as stack:
            try:
                chain = stack.enter_context(contextlib.closing(Chain(env, disk, readable)))
            except Unsupported as error:
                error.args = (f"{error}. Otherwise, {otherwise}",)
                raise
            path = Path(disk.source)
            source: BlockSource
            if disk.format == "qcow2":
                source = QemuSource(env, path, chain.blockdev(), chain.files)
            else:
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
