# SPDX-License-Identifier: Apache-2.0
"""A worker process: runs jobs, one after the other, until it is told to stop or its server is gone.

`python -m keepstone.server.worker --data DIR` is started by the server (`workers.py`), whose end of the pipe that is
this process's stdin tells it to go on. A stop does not wait for a long job: what does not end by itself within `GRACE`
seconds is handed back, and goes on from its last checkpoint with the next worker.

All lines of the log name the job in hand: this process has one at a time, beside those that stand (`standing.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.errors import JobLost, KeepstoneError
from keepstone.jobs import Context, Handler, JobQueue, Worker
from keepstone.server import logs, parent
from keepstone.server.standing import Standing

__all__ = ["GRACE", "UNWIND", "Shift", "main", "work"]

_log = logging.getLogger("keepstone.server.worker")  # also where this is the program
GRACE = 3.0
"""Seconds that a job has to come to its end after a stop was asked for."""
UNWIND = 10.0
"""Seconds that its handler then has to leave, before the process goes without it."""
_PAUSE = 0.2  # seconds between two looks into the queue
_AWAY = 2.0  # the same while the database is away


class Shift:
    """The work of one process. `owner` names it in its jobs."""

    def __init__(
        self, queue: JobQueue, handlers: Mapping[str, Handler], env: Env, owner: str, lines: logs.Lines
    ) -> None:
        self._queue = queue
        self._env = env
        self._lines = lines
        self._handlers = {name: self._watched(handler) for name, handler in handlers.items()}
        self._worker = Worker(queue, self._handlers, env, owner)
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._context: Context | None = None

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopping.is_set():
            try:
                worked = self._queue.waiting(self._handlers.keys()) and self._worker.run_one()
                pause = 0.0 if worked else _PAUSE
            except sa.exc.SQLAlchemyError as error:
                _log.error("the database is away: %s", error)
                pause = _AWAY
            self._context, self._lines.about = None, {}
            self._stopping.wait(pause)
        self._ended.set()

    def stop(self, grace: float = GRACE, unwind: float = UNWIND) -> bool:
        """Run no other job, and leave this one when it has ended or, after `grace` seconds, when it was handed back;
        whether `run` has come to its end by then."""
        self._stopping.set()
        if self._ended.wait(grace):
            return True
        if self._context is not None:
            self._leave(self._context)
        return self._ended.wait(unwind)

    def _leave(self, context: Context) -> None:
        """Hand the job back; its handler finds that at its next `check`."""
        try:
            self._queue.hand_back(context.claim)
            _log.info("this job is handed back, and goes on with the next worker")
        except JobLost:  # it has come to its end just now
            pass
        except sa.exc.SQLAlchemyError as error:
            _log.warning("this job cannot be handed back, and has to wait until its lease ends: %s", error)
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            context.beat()

    def _watched(self, handler: Handler) -> Handler:
        def run(context: Context) -> None:
            claim = context.claim
            self._lines.about = {"job": str(claim.id), "operation": claim.operation}
            self._context = context
            if self._stopping.is_set():  # it was claimed in the moment of the stop
                self._leave(context)
                context.check()
            again = f", attempt {claim.attempt}" if claim.attempt > 1 else ""
            _log.info("job begins%s", again)
            began = self._env.boot_time()
            try:
                handler(context)
            except KeepstoneError as error:
                _log.warning("job stops: %s", error, extra={"code": error.code, "seconds": self._since(began)})
                raise
            _log.info("job is done", extra={"seconds": self._since(began)})

        return run

    def _since(self, began: int) -> float:
        return round((self._env.boot_time() - began) / 1e9, 3)


def work(
    plane: Plane,
    handlers: Mapping[str, Handler],
    standing: Mapping[str, Handler],
    owner: str,
    lines: logs.Lines,
    grace: float,
) -> None:
    """Run jobs until stdin ends, or SIGTERM comes; `standing` are those of which several go on at a time."""
    shift = Shift(plane.queue, handlers, plane.env, owner, lines)
    beside = Standing(plane.queue, standing, plane.env, owner)
    told = threading.Event()

    def leave() -> None:
        told.wait()
        beside.stop()
        if not shift.stop(grace):
            _log.error("the handler of this job does not leave; the process goes without it")
            logging.shutdown()
            os._exit(0)

    signal.signal(signal.SIGTERM, lambda *_: told.set())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=leave, name="leave", daemon=True).start()
    parent.hear(lambda _: None, told.set)
    if standing:
        beside.start()
    shift.run()


def _of_the_service(plane: Plane, host: str) -> tuple[Mapping[str, Handler], Mapping[str, Handler]]:
    from keepstone.control.work import handlers, standing

    return handlers(plane), standing(plane, host)


def main(
    arguments: Sequence[str] | None = None, handlers: Mapping[str, Handler] | None = None, grace: float = GRACE
) -> int:
    """Be a worker; the exit code. `handlers`: other ones than those of the service."""
    parser = parent.options("worker", "A worker of a server.")
    parser.add_argument("--owner", required=True, help="what names this worker in its jobs")
    parser.add_argument("--listen", default="127.0.0.1", help="the address for those who recover files")
    given = parser.parse_args(arguments)
    lines = logs.to_stderr(given.process, given.log_level)

    def begin() -> None:
        from keepstone.server.choices import installed

        plane = installed(Env(), given.data).plane()
        known, standing = _of_the_service(plane, given.listen) if handlers is None else (handlers, {})
        _log.info("ready for %d kinds of jobs", len(known) + len(standing))
        work(plane, known, standing, given.owner, lines, grace)

    return parent.run("worker", begin)


if __name__ == "__main__":
    sys.exit(main())
