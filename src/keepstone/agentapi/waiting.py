# SPDX-License-Identifier: Apache-2.0
"""Agents that wait for work: thousands of them, and one look at the queue each second for all.

A waiting agent costs an entry here and its connection; no thread and no question of its own. When it was last seen is
written for all at once, every few seconds.

The same look sees whose identity was taken away or given to somebody else: what was known of a machine before that is
not to be trusted any more, whoever asks first then (`still`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Hashable
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from anyio import to_thread

from keepstone.control import agents
from keepstone.control.plane import Plane
from keepstone.errors import KeepstoneError

__all__ = ["Waiting"]

_log = logging.getLogger(__name__)
_LOOK = 1.0  # seconds
_OLD = 3 * 10**9  # nanoseconds after which a look is no good any more
_NOTE = 10 * 10**9  # nanoseconds between two notes of who was seen
_BACK = timedelta(seconds=30)  # how far a look goes back behind the one before


class Waiting:
    """Of one process, on its loop. It begins with the first agent that comes."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._events: dict[UUID, asyncio.Event] = {}
        self._seen: dict[UUID, tuple[datetime, str]] = {}
        self._busy: set[UUID] = set()
        self._looked = 0
        self._since = plane.env.utc()  # the last look began, or this one
        self._marks: dict[UUID, Hashable] = {}
        self._count = 0
        self._changed: dict[UUID, int] = {}  # when that was seen, in boot time
        self._all_changed = 0
        self._task: asyncio.Task[None] | None = None

    def seen(self, machine: UUID, version: str) -> None:
        """This agent was heard of; it is of this version of Keepstone."""
        self._seen[machine] = self._plane.env.utc(), version
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def is_blind(self) -> bool:
        """Whether nobody has looked lately: what is remembered of agents is not to be trusted then."""
        return self._plane.env.boot_time() - self._looked > _OLD

    def still(self, machine: UUID, moment: int) -> bool:
        """Whether what was looked up of a machine, not before that moment (boot time), is true yet: somebody has looked
        lately, and saw no change."""
        return not self.is_blind and moment > max(self._all_changed, self._changed.get(machine, 0))

    def may_have(self, machine: UUID) -> bool:
        """Whether it is worth while to ask the queue for a job of this machine."""
        return machine in self._busy or self.is_blind

    async def wait(self, machine: UUID, seconds: float) -> bool:
        """Until there is something for it; whether there is."""
        event = self._events[machine] = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            if self._events.get(machine) is event:
                del self._events[machine]
        return True

    def wake(self) -> None:
        """Everybody may go: the service stops."""
        for event in self._events.values():
            event.set()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        noted = self._plane.env.boot_time()
        while True:
            with contextlib.suppress(sa.exc.SQLAlchemyError, KeepstoneError):
                self._busy, marks, count = await to_thread.run_sync(self._look)
                now = self._looked = self._plane.env.boot_time()
                changed = self._compare(marks, count, now)
                for machine in self._busy | changed:
                    event = self._events.get(machine)
                    if event is not None:
                        event.set()
                if now - noted >= _NOTE and self._seen:
                    noted = now
                    seen, self._seen = self._seen, {}
                    await to_thread.run_sync(self._note, seen)
            await asyncio.sleep(_LOOK)

    def _look(self) -> tuple[set[UUID], dict[UUID, Hashable], int]:
        since, now = self._since - _BACK, self._plane.env.utc()
        with self._plane.look() as connection:
            found = (
                self._plane.queue.machines_waiting(connection),
                agents.changed_since(connection, since),
                agents.count(connection),
            )
        self._since = now
        return found

    def _compare(self, marks: dict[UUID, Hashable], count: int, now: int) -> set[UUID]:
        """Machines that something has changed of since the look before. Where one is gone, nobody knows which. (That
        another one came in the same second may hide it until its time is over; it has no jobs any more.)"""
        changed = {machine for machine, mark in marks.items() if self._marks.get(machine) != mark}
        self._changed.update(dict.fromkeys(changed, now))
        if count < self._count:
            self._all_changed = now
        self._marks, self._count = marks, count
        return changed

    def _note(self, noted: dict[UUID, tuple[datetime, str]]) -> None:
        with self._plane.database.change() as connection:
            agents.seen(connection, noted)
