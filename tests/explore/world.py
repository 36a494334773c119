# SPDX-License-Identifier: Apache-2.0
"""A world in which every interleaving can be had, and had again: actors that hand over to a seeded scheduler.

Each actor is a greenlet. Exactly one runs; at every object storage operation (`Env.step`) the scheduler decides from
its seed who goes on, and whether the actor is killed there. A killed actor performs no further operation, not even
in its `finally` clauses: the process is gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from greenlet import getcurrent, greenlet

from keepstone.env import Env, Process

__all__ = ["Killed", "Scheduler", "World"]


class Killed(BaseException):
    """The process of this actor is gone."""


class Scheduler:
    """Runs actors to their ends, one step at a time.

    `switch`: how likely another actor goes on at a step. `kill`: how likely an actor that may die does so at a step.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.switch = self.rng.choice((0.03, 0.1, 0.3, 0.6, 1.0))
        self.kill = self.rng.choice((0.0, 0.0, 0.002, 0.01))
        self.trace: list[int] = []
        self.errors: list[BaseException] = []
        self._actors: list[greenlet] = []
        self._mortal: list[bool] = []
        self.alive: list[bool] = []
        self.dead: set[int] = set()
        self.actor = -1  # who runs; -1 outside of `run`

    def run(self, actors: list[tuple[Callable[[], None], bool]]) -> None:
        """(what an actor does, whether it may be killed) for each."""
        self._hub = getcurrent()
        for index, (work, mortal) in enumerate(actors):
            self._mortal.append(mortal)
            self.alive.append(True)
            self._actors.append(greenlet(partial(self._live, index, work)))
        following = self.rng.randrange(len(actors))
        while following >= 0:
            following = self._hand_over(following)
        self.actor = -1

    def _live(self, index: int, work: Callable[[], None]) -> int:
        """An actor from its beginning to its end; who goes on then, -1 for nobody."""
        try:
            work()
        except Killed:
            pass
        except BaseException as error:
            self.errors.append(error)
        self.alive[index] = False
        self.dead.add(index)
        others = [other for other, alive in enumerate(self.alive) if alive]
        return self.rng.choice(others) if others else -1

    def _hand_over(self, index: int) -> int:
        """Let this actor go on, until it hands over; to whom."""
        self.actor = index
        self.trace.append(index)
        following: int = self._actors[index].switch()
        return following

    def step(self, what: str) -> None:
        """Called by the actor that runs."""
        me = self.actor
        if me < 0:
            return
        if me in self.dead:
            raise Killed
        if self._mortal[me] and self.kill and self.rng.random() < self.kill:
            self.dead.add(me)
            raise Killed
        if self.rng.random() < self.switch:
            others = [other for other, alive in enumerate(self.alive) if alive and other != me]
            if others:
                self._hub.switch(self.rng.choice(others))
                if me in self.dead:
                    raise Killed


class World(Env):
    """The Env of one schedule: time stands still but for a tick a look, chance comes from the seed, work runs
    inline."""

    def __init__(self, seed: int) -> None:
        super().__init__(threads=0)
        self.scheduler = Scheduler(seed)
        self._rng = random.Random(seed ^ 0x5EED)
        self._ticks = 10**18

    def wall_time(self) -> int:
        self._ticks += 1000
        return self._ticks

    def boot_time(self) -> int:
        return self.wall_time()

    def random(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def sleep(self, seconds: float) -> None:
        self.step("sleep")

    def process(self) -> Process:
        return Process("world", "boot", self.scheduler.actor, 1)

    def is_running(self, process: Process) -> bool | None:
        return process.pid not in self.scheduler.dead

    def step(self, what: str) -> None:
        self.scheduler.step(what)
