# SPDX-License-Identifier: Apache-2.0
"""Looks after a machine whose disks are held.

What the guest overwrites is copied to files first. Where these have no room, QEMU (until 10.1) fails or
stops the guest's write rather than the copy. So while disks are held, a thread looks at the room, and gives the moment
up in time: the backup fails, the guest goes on. Where the guest was faster and stands still already, it is let go on.

Invariant: a guest that stands still because of us goes on within about `_PACE` seconds, or as often as its hypervisor
is asked. Whether it is because of us is not asked: one that ran when its disks were held, and stands still for an error
of a disk, is reason enough to give up. One that met the end of the room after the last look goes on when its disks are
let go (`settle`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from keepstone.env import Env
from keepstone.errors import KeepstoneError, StorageFull
from keepstone.objects import failure

__all__ = ["RESERVE", "Guard", "Room"]

RESERVE = 256 << 20
_PACE = 0.2
_Self = TypeVar("_Self", bound="Guard")


class Room:
    """The `folder` of these files, of which `reserve` bytes must be free to begin with, and a quarter of it later."""

    def __init__(self, env: Env, folder: Path, reserve: int = RESERVE) -> None:
        self._env = env
        self.folder = folder
        self._reserve = reserve

    def _free(self) -> int:
        """For us."""
        found = self._env.fs.statvfs(os.fspath(self.folder))
        return found.f_bavail * found.f_frsize

    def spare(self) -> int:
        """How many bytes are free beyond those that must be. `OSError`."""
        return max(0, self._free() - self._reserve)

    def enough(self) -> None:
        """`StorageFull` where there is no sense in a beginning; `OSError`."""
        if self._free() < self._reserve:
            raise StorageFull(
                f"{self.folder} has less than {self._reserve >> 20} MiB free for what the guest overwrites while it is "
                "backed up; free some, or name another folder by --fleece"
            )

    def ends(self) -> bool:
        """Whether it is time to give up."""
        return self._free() < self._reserve // 4


class Guard(ABC):
    """Guards as long as it is entered. `ran`: whether the guest did when its disks were held."""

    def __init__(self, room: Room, *, ran: bool) -> None:
        self._room = room
        self._ran = ran
        self._failure: KeepstoneError | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepstone-guard", daemon=True)

    def __enter__(self: _Self) -> _Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    @abstractmethod
    def _stands(self) -> bool:
        """Whether the guest stands still for an error of a disk. `Gone` and others as the hypervisor has them."""

    @abstractmethod
    def _give_up(self) -> None:
        """Let the moment go; what the hypervisor refuses is no failure."""

    @abstractmethod
    def _go_on(self) -> None:
        """Let the guest go on; the same."""

    @abstractmethod
    def _gone(self, error: Exception) -> bool:
        """Whether there is nothing to look after any more."""

    def check(self) -> None:
        """Raise what makes it useless to go on: `StorageFull`, or what the hypervisor said."""
        if self._failure is not None:
            raise self._failure

    def settle(self) -> None:
        """The disks are let go: a guest that stands still since the guard looked for the last time goes on."""
        if self._failure is None or not self._ran:
            return
        with contextlib.suppress(KeepstoneError):  # whoever is gone stands still for nobody
            if self._stands():
                self._go_on()

    def _run(self) -> None:
        while not self._end.wait(_PACE):
            try:
                self._look()
            except (KeepstoneError, OSError) as error:
                told = error if isinstance(error, KeepstoneError) else failure(error, str(self._room.folder))
                self._failure = self._failure or told
                if self._gone(error):
                    return

    def _look(self) -> None:
        stands = self._ran and self._stands()
        if self._failure is None and not stands and not self._room.ends():
            return
        if self._failure is None:
            self._failure = StorageFull(
                f"there is no more room in {self._room.folder} for what the guest overwrites while it is backed up; "
                "nothing was made, and the guest goes on. Free some, or name another folder by --fleece"
            )
            self._give_up()
        if stands:
            self._go_on()
