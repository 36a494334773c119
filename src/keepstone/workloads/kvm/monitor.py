# SPDX-License-Identifier: Apache-2.0
"""A monitor of QEMU, however it is reached: by its own socket (`qmp`), or through whoever has that (`libvirt.monitor`).

Invariant: one has it at a time, from opening it to closing it; who comes meanwhile waits, and is told that it is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.workloads.machines.janitor import Janitor

__all__ = ["Gone", "Monitor", "Refused", "Way"]

_SECOND = 10**9
_Self = TypeVar("_Self", bound="Monitor")


class Refused(SourceFailed):
    """QEMU does not do what was asked of it; the message has its own words."""


class Gone(SourceFailed):
    """QEMU has ended, or answers no more."""


class Monitor(ABC):
    """`place`: names it for people, and among all monitors of this machine. Any thread may ask."""

    def __init__(self, env: Env, place: str) -> None:
        self.place = place
        self._env = env

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of it; what this client began in QEMU goes on."""

    @abstractmethod
    def execute(self, command: str, *, fd: int | None = None, **arguments: Any) -> Any:
        """What QEMU returns; `_` in names of arguments stands for `-`. `fd` is handed over. `Refused`, `Gone`."""

    def wait(self, done: Callable[[], bool], what: str, timeout: float = 30) -> None:
        """Ask until it is so; `Gone` where that takes too long."""
        end = self._env.boot_time() + int(timeout * _SECOND)
        while not done():
            if self._env.boot_time() > end:
                raise Gone(f"QEMU at {self.place} does not get done with {what}; look what the machine is doing")
            self._env.sleep(0.005)


class Way(Protocol):
    """How the monitor of one machine is reached, time and again."""

    def open(self, env: Env, timeout: float) -> Monitor:
        """`SourceMissing` where its QEMU is gone, and all that was in it, `Gone` where somebody else has it."""

    def janitor(self, prefix: str) -> Janitor:
        """What calls `nearby.clear` where we are killed."""
