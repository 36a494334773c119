# SPDX-License-Identifier: Apache-2.0
"""Looks after a machine of QEMU whose disks are held by jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from keepstone.workloads.kvm.qmp import Gone, Monitor, Refused
from keepstone.workloads.machines import guard
from keepstone.workloads.machines.guard import Room

__all__ = ["Guard"]


class Guard(guard.Guard):
    """`jobs`: those that hold the disks."""

    def __init__(self, monitor: Monitor, jobs: Sequence[str], room: Room, *, ran: bool) -> None:
        super().__init__(room, ran=ran)
        self._monitor = monitor
        self._jobs = jobs

    def _stands(self) -> bool:
        return bool(self._monitor.execute("query-status")["status"] == "io-error")

    def _give_up(self) -> None:
        for job in self._jobs:
            with contextlib.suppress(Refused):
                self._monitor.execute("job-cancel", id=job)

    def _go_on(self) -> None:
        with contextlib.suppress(Refused):
            self._monitor.execute("cont")

    def _gone(self, error: Exception) -> bool:
        return isinstance(error, Gone)
