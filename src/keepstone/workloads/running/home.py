# SPDX-License-Identifier: Apache-2.0
"""The folder of a machine that runs from a point: what it wrote, and of which point that is.

    point.json   the point; locked as long as a machine runs here (flock(2)), by whoever has it
    NAME.qcow2   a disk: what differs from the point, after the move all of it
    NAME.fd      what its firmware keeps
    qmp, agent, console, nbd    sockets, there while it runs

Invariant: what a machine wrote is only ever laid over the point that it started from.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import Conflict, NotFound, TargetExists
from keepstone.files import exists, make_folder, sync_folder
from keepstone.objects import failure

__all__ = ["Home"]

_RECORD = "point.json"
_LONGEST = 4096


class _Record(msgspec.Struct, frozen=True):
    point: str


class Home:
    """Takes the folder for a machine of this point; it is made where it is not there. `taken`: a machine runs here
    already, and it stays that one's.

    `NotFound` where there is no place for it, `TargetExists` where it has something else, `Conflict` where it belongs
    to another point; what `failure` makes of an `OSError`.
    """

    def __init__(self, env: Env, folder: Path, point: str) -> None:
        self.folder = folder
        self.monitor, self.agent = folder / "qmp", folder / "agent"
        self.console, self.disks = folder / "console", folder / "nbd"
        self._fs = env.fs
        with self._failures(), contextlib.ExitStack() as stack:
            try:
                make_folder(self._fs, folder)
            except FileNotFoundError as error:
                raise NotFound(f"the folder of {folder} does not exist; make it, or choose another one") from error
            record = folder / _RECORD
            if self._fs.listdir(folder) and not exists(self._fs, record, follow=False):
                raise TargetExists(f"{folder} has something else in it; choose an empty folder")
            self._fd = self._fs.open(record, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            stack.callback(self._fs.close, self._fd)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.taken = False
            except BlockingIOError:
                self.taken = True
            self._belong(point)
            stack.pop_all()

    def _belong(self, point: str) -> None:
        told = self._fs.pread(self._fd, _LONGEST, 0)
        if not told and not self.taken:
            self._fs.pwrite(self._fd, msgspec.json.encode(_Record(point)), 0)
            self._fs.fsync(self._fd)
            sync_folder(self._fs, self.folder)
            return
        try:
            known = from_json(_Record).decode(told).point
        except msgspec.MsgspecError:
            known = "a point that cannot be told"
        if known != point:
            raise Conflict(
                f"{self.folder} has what a machine of {known} wrote, and fits no other point; choose another"
            )

    @property
    def lock(self) -> int:
        """A descriptor; as long as a process has it, the folder is taken."""
        return self._fd

    @property
    def sockets(self) -> list[Path]:
        """What is there only while the machine runs."""
        return [self.monitor, self.agent, self.console, self.disks]

    def tidy(self) -> None:
        """Take sockets away that were left by a machine whose host went down."""
        for path in self.sockets:
            with contextlib.suppress(FileNotFoundError), self._failures():
                self._fs.unlink(path)

    def close(self) -> None:
        """Leave it to others, unless a machine runs in it. Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._fs.close(fd)

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise failure(error, str(self.folder)) from error
