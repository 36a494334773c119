# SPDX-License-Identifier: Apache-2.0
"""What has to be done again and again: a list of chores, and a thread that does each when its time has come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keepstone.env import Env
from keepstone.errors import KeepstoneError

__all__ = ["Chore", "Rounds"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """`what`: for the log. `every`: seconds from one end to the next begin. The first time is at once."""

    what: str
    every: float
    run: Callable[[], object]


class Rounds(threading.Thread):
    """One after the other. A chore that fails is told in the log, and tried again when it is due."""

    def __init__(self, env: Env, name: str, chores: Sequence[Chore]) -> None:
        super().__init__(name=name, daemon=True)
        self._env = env
        self._chores = tuple(chores)
        self._over = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        due = dict.fromkeys(self._chores, self._env.boot_time())
        while not self._over.is_set():
            chore = min(due, key=due.__getitem__)
            if self._over.wait(max(0, due[chore] - self._env.boot_time()) / 1e9):
                return
            self._do(chore)
            due[chore] = self._env.boot_time() + int(chore.every * 1e9)

    def stop(self) -> None:
        """End after the chore in hand."""
        self._over.set()

    def _do(self, chore: Chore) -> None:
        try:
            chore.run()
        except KeepstoneError as error:
            _log.error("%s: %s", chore.what, error)
        except Exception:
            _log.exception("%s: a fault; it is tried again in %.0f seconds", chore.what, chore.every)
