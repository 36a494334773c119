# SPDX-License-Identifier: Apache-2.0
"""What this machine knows of its items' schedules, for times when the service is away.

The service decides when a backup is due, and makes up for what was missed as soon as its agent is back. All that the
machine can do meanwhile is to know that something is due, to say so, and to ask more often.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.objects import replace_private, write_private
from keepstone.remote.wire import Plan

__all__ = ["Plans"]

_FRESH = 600.0  # seconds
_OFTEN = 5.0  # seconds between two tries while something is due


class Plans:
    """Kept in `path`."""

    def __init__(self, env: Env, path: Path) -> None:
        self._env = env
        self._path = path
        self._until = 0
        self._plans: list[Plan] = []
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._plans = from_json(list[Plan]).decode(path.read_bytes())

    def keep(self, plans: list[Plan]) -> None:
        """What the service says from now on."""
        self._until = self._env.boot_time() + int(_FRESH * 1e9)
        if plans == self._plans:
            return
        self._plans = plans
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError, KeepstoneError):
            fresh.unlink(missing_ok=True)
            write_private(self._env, fresh, msgspec.json.encode(plans))
            replace_private(self._env, fresh, self._path)

    def is_old(self) -> bool:
        """Whether the service is to be asked again."""
        return self._env.boot_time() >= self._until

    def due(self) -> list[Plan]:
        """What should have begun by now, by this machine's clock."""
        now = self._env.wall_time() / 1e9
        return [plan for plan in self._plans if plan.due <= now]

    def overdue(self) -> str:
        """The same for people."""
        due = self.due()
        return f"; {due[0].name} is due{f', and {len(due) - 1} more' if len(due) > 1 else ''}" if due else ""

    def patience(self, usual: float) -> float:
        """Seconds until the next try."""
        return min(usual, _OFTEN) if self.due() else usual
