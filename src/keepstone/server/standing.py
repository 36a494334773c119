# SPDX-License-Identifier: Apache-2.0
"""Jobs that stand until somebody ends them, beside those that a worker runs one after the other: each has a thread, and
there is little to do for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import sqlalchemy as sa

from keepstone.env import Env
from keepstone.errors import JobLost
from keepstone.jobs import Context, Handler, JobQueue, Worker

__all__ = ["Standing"]

_log = logging.getLogger(__name__)
_MOST = 8  # at once
_PAUSE = 0.3  # seconds between two looks into the queue
_AWAY = 2.0  # the same while the database is away


class Standing:
    """`owner` names the process in its jobs."""

    def __init__(self, queue: JobQueue, handlers: Mapping[str, Handler], env: Env, owner: str) -> None:
        self._queue = queue
        self._operations = handlers.keys()
        self._worker = Worker(queue, {name: self._known(handler) for name, handler in handlers.items()}, env, owner)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._contexts: set[Context] = set()
        self._threads: set[threading.Thread] = set()
        self._looking = threading.Thread(target=self._look, name="standing", daemon=True)

    def start(self) -> None:
        """Look for them from now on."""
        self._looking.start()

    def stop(self) -> None:
        """Hand them back: they go on with another worker."""
        self._stopping.set()
        if self._looking.ident is None:
            return
        self._looking.join()
        with self._lock:
            contexts, threads = set(self._contexts), set(self._threads)
        for context in contexts:
            self._leave(context)
        for thread in threads:
            thread.join(_AWAY)

    def _leave(self, context: Context) -> None:
        """Hand a job back; its handler finds that at its next `check`."""
        try:
            self._queue.hand_back(context.claim)
            context.beat()
        except JobLost:  # it has ended just now, or was handed back already
            pass
        except sa.exc.SQLAlchemyError as error:
            _log.warning("job %s has to wait until its lease ends: %s", context.claim.id, error)

    def _look(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                with self._lock:
                    room = len(self._threads) < _MOST
                begins = room and self._queue.waiting(self._operations)
                pause = _PAUSE
            except sa.exc.SQLAlchemyError as error:
                _log.error("the database is away: %s", error)
                begins, pause = False, _AWAY
            if begins:
                thread = threading.Thread(target=self._run, name="standing job", daemon=True)
                with self._lock:
                    self._threads.add(thread)
                thread.start()

    def _run(self) -> None:
        try:
            self._worker.run_one()
        except sa.exc.SQLAlchemyError as error:
            _log.error("the database is away: %s", error)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _known(self, handler: Handler) -> Handler:
        def run(context: Context) -> None:
            with self._lock:
                self._contexts.add(context)
            try:
                if self._stopping.is_set():  # it was claimed in the moment of the stop
                    self._leave(context)
                    context.check()
                _log.info("job begins", extra={"job": str(context.claim.id)})
                handler(context)
            finally:
                with self._lock:
                    self._contexts.discard(context)

        return run
