# SPDX-License-Identifier: Apache-2.0
"""Looks after a domain whose disks are held by a backup job."""

from __future__ import annotations

import contextlib

from keepstone.env import Env
from keepstone.workloads.libvirt.sweep import abort
from keepstone.workloads.libvirt.virsh import Gone, Refused, Virsh
from keepstone.workloads.machines import guard

__all__ = ["Guard"]

_TURNS = 5  # libvirt is asked one time in so many: that costs a process


class Guard(guard.Guard):
    """`checkpoint`: how everything of the job begins."""

    def __init__(self, env: Env, virsh: Virsh, uuid: str, checkpoint: str, room: guard.Room, *, ran: bool) -> None:
        super().__init__(room, ran=ran)
        self._env, self._virsh, self._uuid, self._checkpoint = env, virsh, uuid, checkpoint
        self._turn = 0

    def _stands(self) -> bool:
        self._turn += 1
        if self._turn % _TURNS:
            return False
        return self._virsh.ask("domstate", self._uuid, "--reason").strip() == "paused (I/O error)"

    def _give_up(self) -> None:
        with contextlib.suppress(Refused):
            abort(self._env, self._virsh, self._uuid, self._checkpoint)

    def _go_on(self) -> None:
        with contextlib.suppress(Refused):
            self._virsh.ask("resume", self._uuid)

    def _gone(self, error: Exception) -> bool:
        return isinstance(error, Gone)
