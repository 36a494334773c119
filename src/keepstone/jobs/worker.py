# SPDX-License-Identifier: Apache-2.0
"""A worker: claims jobs one after the other, runs their handlers, and shows that it is alive.

A handler is a function of a `Context`. It may be run again from its last checkpoint, on another machine, while the
worker before it believes that it still runs: so its steps are such that doing one twice does no harm, and it asks
`check` between them. What it raises becomes the job's error; how it ends itself is in `Context.ending`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from keepstone.env import Env
from keepstone.errors import JobCancelled, JobLost, KeepstoneError
from keepstone.jobs import log
from keepstone.jobs.queue import Claim, JobQueue, Status

__all__ = ["Context", "Handler", "Worker"]

_log = logging.getLogger(__name__)
_PULSE = 2.0  # seconds between signs of life, with which people see how far a job is

Handler = Callable[["Context"], None]


class Context:
    """What a handler knows of its job and may say of it. Safe for several threads. `lines`: of its log, which are not
    written yet."""

    def __init__(self, queue: JobQueue, claim: Claim, lines: Sequence[list[str]] = ()) -> None:
        self.claim = claim
        self.ended = False
        self._queue = queue
        self._cancelled = threading.Event()
        self._lost: JobLost | None = None
        self._progress: dict[str, Any] | None = None
        self._facts: dict[str, Any] = {}
        self._lines = [*lines]
        self._writing = threading.Lock()

    @property
    def state(self) -> dict[str, Any] | None:
        """Where an earlier worker left off; None: at the beginning."""
        return self.claim.state

    def check(self) -> None:
        """`JobCancelled` or `JobLost` where the job is not to go on; a handler asks between its steps."""
        if self._lost is not None:
            raise self._lost
        if self._cancelled.is_set():
            raise JobCancelled(f"job {self.claim.id} was cancelled")

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Should this worker die, the next one begins from here. Raises what `check` raises."""
        if self._queue.checkpoint(self.claim, state):
            self._cancelled.set()
        self.check()

    def progress(self, done: int, expected: int, line: str = "", target: str = "") -> None:
        """How far it is, in bytes, and what it is at; people see it at the next sign of life. `target`: where what a
        job does while it goes on is to be had."""
        self._progress = {"done": done, "expected": expected, "line": line} | ({"target": target} if target else {})

    def note(self, text: str) -> None:
        """A line of the job's log; people see it at the next sign of life."""
        with self._writing:
            self._lines = log.appended(self._lines, [log.line(self._queue.now(), text)])

    def lines(self) -> list[list[str]]:
        """Those of the log that are not written yet; they count as written."""
        with self._writing:
            found, self._lines = self._lines, []
        return found

    def result(self, facts: dict[str, Any]) -> None:
        """What came of it, for those who look at the job when it is over."""
        self._facts = facts

    @property
    def final(self) -> dict[str, Any]:
        """How far it came, and what came of it."""
        return {**(self._progress or {}), "result": self._facts}

    @contextmanager
    def ending(self, status: Status = Status.COMPLETED) -> Iterator[sa.Connection]:
        """The job's last transaction: what the block writes is there if and only if the job has ended so."""
        with self._queue.ending(self.claim, status, progress=self.final, lines=self.lines()) as connection:
            yield connection
        self.ended = True

    def beat(self) -> None:
        """A sign of life."""
        lines = self.lines()
        try:
            if self._queue.renew(self.claim, progress=self._progress, lines=lines):
                self._cancelled.set()
        except JobLost as error:
            self._lost = error
        except sa.exc.SQLAlchemyError:  # they are told with the next one
            with self._writing:
                self._lines = log.appended(lines, self._lines)
            raise


class Worker:
    """`owner` names this worker in the jobs that it holds."""

    def __init__(self, queue: JobQueue, handlers: Mapping[str, Handler], env: Env, owner: str) -> None:
        self._queue = queue
        self._handlers = handlers
        self._env = env
        self._owner = owner

    def run_one(self) -> bool:
        """Run the next job to its end; whether there was one."""
        claim = self._queue.claim(self._owner, self._handlers.keys())
        if claim is None:
            return False
        context = Context(self._queue, claim)
        over = threading.Event()
        pulse = threading.Thread(target=self._beat, args=(context, over), name="pulse", daemon=True)
        pulse.start()
        try:
            self._run(context)
        except JobLost as error:
            _log.warning("%s", error)
        finally:
            over.set()
            pulse.join()
        return True

    def _run(self, context: Context) -> None:
        queue, claim = self._queue, context.claim
        try:
            self._handlers[claim.operation](context)
            if not context.ended:
                with context.ending():
                    pass
        except JobLost:
            raise
        except JobCancelled:
            with queue.ending(claim, Status.CANCELLED, lines=context.lines()):
                pass
        except KeepstoneError as error:
            failure = {"code": error.code, "message": str(error)}
            with queue.ending(claim, Status.FAILED, failure, lines=context.lines()):
                pass
        except Exception:
            _log.exception("job %s (%s) failed by a fault of its handler", claim.id, claim.operation)
            message = f"a fault of Keepstone itself stopped this job; the server's log has it under {claim.id}"
            failure = {"code": "InternalServerError", "message": message}
            with queue.ending(claim, Status.FAILED, failure, lines=context.lines()):
                pass

    def _beat(self, context: Context, over: threading.Event) -> None:
        while not over.wait(min(_PULSE, self._queue.lease.total_seconds() / 4)):
            try:
                context.beat()
            except sa.exc.SQLAlchemyError as error:  # the database is away: the lease says how long that may last
                _log.warning("no sign of life of job %s could be written: %s", context.claim.id, error)
