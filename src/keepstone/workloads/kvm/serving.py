# SPDX-License-Identifier: Apache-2.0
"""QEMU's NBD server, at a socket that only we reach.

Invariants
* The socket lies in a folder of our own, and QEMU gets it as a descriptor: it needs to find no file of ours.
* The folder is named after the monitor as well: what a killed predecessor left is removed, and nobody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import Conflict
from keepstone.files import names_in
from keepstone.workloads.kvm.monitor import Monitor, Refused

__all__ = ["Serving"]

_SOCKET = "nbd"


class Serving:
    """`prefix`: how its names begin, in QEMU and outside. `sweep` ends the server with the last export of ours."""

    def __init__(self, env: Env, monitor: Monitor, prefix: str) -> None:
        self._env = env
        self._monitor = monitor
        self._prefix = prefix
        self._name = f"{prefix}{hashlib.sha256(os.fsencode(monitor.place)).hexdigest()[:8]}-"
        self._place: Path | None = None

    @property
    def address(self) -> Path:
        """The socket at which the exports are."""
        assert self._place is not None
        return self._place / _SOCKET

    def start(self) -> None:
        """`Conflict` where QEMU serves somebody else."""
        self.clear()
        self._place = Path(tempfile.mkdtemp(prefix=self._name))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.address))
            try:
                self._listen(listener)
            except Refused as error:
                if self._monitor.execute("query-block-exports") or self._backs_up():
                    raise Conflict(
                        f"QEMU at {self._monitor.place} serves disks to somebody else already; wait until that is over"
                    ) from error
                self._monitor.execute("nbd-server-stop")  # of a predecessor that was killed before it had an export
                self._listen(listener)

    def _backs_up(self) -> bool:
        """Whether somebody else does, such as libvirt, which begins its server before it has exports."""
        jobs = self._monitor.execute("query-jobs")
        return any(job["type"] == "backup" and not str(job["id"]).startswith(self._prefix) for job in jobs)

    def _listen(self, listener: socket.socket) -> None:
        name = f"{self._prefix}s"
        self._monitor.execute("getfd", fd=listener.fileno(), fdname=name)
        self._monitor.execute("nbd-server-start", addr={"type": "fd", "data": {"str": name}})

    def clear(self) -> None:
        """Let go of what a predecessor that was killed left outside of QEMU."""
        folder = Path(tempfile.gettempdir())
        for left in names_in(self._env.fs, folder, self._name):
            self._forget(folder / left)

    def close(self) -> None:
        """Let go of what is outside of QEMU."""
        if self._place is not None:
            self._forget(self._place)

    def _forget(self, place: Path) -> None:
        """Remove the folder of a socket."""
        for remove, path in ((self._env.fs.unlink, place / _SOCKET), (self._env.fs.rmdir, place)):
            with contextlib.suppress(OSError):
                remove(path)
