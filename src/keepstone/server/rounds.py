# SPDX-License-Identifier: Apache-2.0
"""What has to be done again and again: a list of chores, and a thread that does each when its time has come.

One that fails is told in the log, and tried again ever later, up to a minute or its own pace.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keepstone.env import Env
from keepstone.errors import KeepstoneError

__all__ = ["Chore", "Rounds"]

_log = logging.getLogger(__name__)
_LATEST = 60.0  # seconds until one that failed is tried again, if it is not seldom anyway


@dataclass(frozen=True, slots=True)
class Chore:
    """`what`: for the log. `every`: seconds from one end to the next begin. The first time is at once."""

    what: str
    every: float
    run: Callable[[], object]


class Rounds(threading.Thread):
    """One after the other."""

    def __init__(self, env: Env, name: str, chores: Sequence[Chore]) -> None:
        super().__init__(name=name, daemon=True)
        self._env = env
        self._chores = tuple(chores)
        self._over = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        due = dict.fromkeys(self._chores, self._env.boot_time())
        failures = dict.fromkeys(self._chores, 0)
        while not self._over.is_set():
            chore = min(due, key=due.__getitem__)
            if self._over.wait(max(0, due[chore] - self._env.boot_time()) / 1e9):
                return
            failures[chore] = 0 if self._do(chore) else failures[chore] + 1
            pause = max(chore.every, min(_LATEST, chore.every * 2.0 ** failures[chore]))
            due[chore] = self._env.boot_time() + int(pause * 1e9)

    def stop(self) -> None:
        """End after the chore in hand."""
        self._over.set()

    def finish(self, patience: float) -> None:
        """Wait for that, for so many seconds at most; a chore that takes longer ends with the process."""
        if self.ident is not None:
            self.join(patience)

    def _do(self, chore: Chore) -> bool:
        """Whether it was done."""
        try:
            chore.run()
        except KeepstoneError as error:
            _log.error("%s: %s", chore.what, error)
            return False
        except Exception:
            _log.exception("%s: a fault", chore.what)
            return False
        return True
