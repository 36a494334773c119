# SPDX-License-Identifier: Apache-2.0
"""Looks after a machine whose disks are held.

What the guest overwrites is copied to the fleecing files first. Where these have no room, QEMU (until 10.1) fails or
stops the guest's write rather than the copy. So while disks are held, a thread looks at the room, and gives the moment
up in time: the backup fails, the guest goes on. Where the guest was faster and stands still already, it is let go on.

Invariant: a guest that stands still because of us goes on within about `_PACE` seconds. Whether it is because of us is
not asked: one that ran when its disks were held, and stands still for an error of a disk, is reason enough to give up.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from keepstone.env import Env
from keepstone.errors import KeepstoneError, StorageFull
from keepstone.objects import failure
from keepstone.workloads.kvm.qmp import Gone, Monitor, Refused

__all__ = ["Guard", "room"]

_PACE = 0.2


def room(env: Env, folder: Path) -> int:
    """Free bytes in this folder, for us."""
    found = env.fs.statvfs(os.fspath(folder))
    return found.f_bavail * found.f_frsize


class Guard:
    """Guards as long as it is entered. `room`: what is free, `reserve`: how much of it must stay so, in bytes; `ran`:
    whether the guest did when its disks were held."""

    def __init__(
        self, monitor: Monitor, jobs: Sequence[str], folder: Path, room: Callable[[], int], reserve: int, *, ran: bool
    ) -> None:
        self._ran = ran
        self._monitor = monitor
        self._jobs = jobs
        self._folder = folder
        self._room = room
        self._reserve = reserve
        self._failure: KeepstoneError | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepstone-guard", daemon=True)

    def __enter__(self) -> Guard:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what makes it useless to go on: `StorageFull`, `Gone`."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while not self._end.wait(_PACE):
            try:
                self._look()
            except (KeepstoneError, OSError) as error:
                told = error if isinstance(error, KeepstoneError) else failure(error, str(self._folder))
                self._failure = self._failure or told
                if isinstance(error, Gone):
                    return

    def _look(self) -> None:
        stands = self._ran and self._monitor.execute("query-status")["status"] == "io-error"
        if self._failure is None and not stands and self._room() >= self._reserve:
            return
        if self._failure is None:
            self._failure = StorageFull(
                f"there is no more room in {self._folder} for what the guest overwrites while it is backed up; "
                "nothing was made, and the guest goes on. Free some, or name another folder by --fleece"
            )
            for job in self._jobs:
                with contextlib.suppress(Refused):
                    self._monitor.execute("job-cancel", id=job)
        if stands:
            with contextlib.suppress(Refused):
                self._monitor.execute("cont")
