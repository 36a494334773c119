# SPDX-License-Identifier: Apache-2.0
"""The server process: has the socket at which the service listens, asks for what is due, cleans up, and looks after
those that answer, receive and work. It answers nobody itself, so what it does keeps nobody waiting.

It stops for SIGTERM, SIGINT and SIGHUP: no new connection is taken, requests in flight are answered, workers end their
job or hand it back. A second signal does not wait for requests.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from types import FrameType

from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.schedules import ItemPlans
from keepstone.control.upkeep import chores
from keepstone.errors import KeepstoneError
from keepstone.jobs import Scheduler
from keepstone.server.address import Address
from keepstone.server.answerers import RENEW, Answerers
from keepstone.server.children import Children
from keepstone.server.processes import Kind, Processes, counts
from keepstone.server.receivers import Receivers
from keepstone.server.rounds import Chore, Rounds
from keepstone.server.workers import PROGRAM, Workers

__all__ = ["Serving"]

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PATIENCE = 10  # seconds that a chore has to end
_NAP = 0.5  # seconds
_OFTEN = 60.0  # seconds: a chore of this pace has to be short


class _Event(enum.Enum):
    READY = enum.auto()  # an answerer answers
    DIED = enum.auto()  # one does not any more
    STOP = enum.auto()
    OVER = enum.auto()  # all have stopped


class Serving:
    """`answerers`, `workers`: how many. `program`: what a worker is."""

    def __init__(
        self,
        installation: Installation,
        address: Address,
        listener: socket.socket,
        *,
        answerers: int = 1,
        workers: int = 0,
        level: str = "info",
        program: Sequence[str] = PROGRAM,
    ) -> None:
        plane = self._plane = installation.plane()
        self._installation = installation
        self._address = address
        self._listener = listener
        self._lock = threading.Lock()
        self._events: SimpleQueue[_Event] = SimpleQueue()  # may be put into by whatever a signal has interrupted
        self._certificate, _ = installation.certificate(address.names)
        self._answerers = Answerers(
            plane,
            listener,
            answerers,
            level=level,
            ready=lambda: self._events.put(_Event.READY),
            died=lambda: self._events.put(_Event.DIED),
            changed=self._note,
        )
        self._receivers = Receivers(plane, level=level, changed=self._note)
        self._workers = Workers(plane, workers, host=address.host, level=level, program=program, changed=self._note)
        self._rounds = _rounds(plane, [Chore("renewing the certificate", 3600, self.renew)])

    def run(self, ready: Callable[[], None], stopping: Callable[[], None] = lambda: None) -> None:
        """Until a signal says to stop, or `stop`. `ready` is called when all answer, `stopping` when it begins to end.
        `KeepstoneError` where one dies before."""
        with self._signals():
            try:
                self._prepare()
                self._receivers.start()
                self._answerers.start()
                if self._all_answer():
                    _log.info("answers at %s", self._address.url)
                    self._workers.start()
                    for rounds in self._rounds:
                        rounds.start()
                    ready()
                    while self._next() is not _Event.STOP:
                        pass
            finally:
                stopping()
                self._end()
        _log.info("stopped")

    def _next(self) -> _Event:
        """The next event. The system may hand a signal to another thread than this one, as after a SIGSTOP, and then
        wakes nobody who could handle it: so this one gets up now and then."""
        while True:
            with contextlib.suppress(Empty):
                return self._events.get(timeout=_NAP)

    def stop(self) -> None:
        """Ask it to stop; asked again, it does not wait for requests."""
        self._events.put(_Event.STOP)

    def renew(self) -> None:
        """Where the certificate does not do much longer, connections from now on get a new one."""
        before = self._certificate.read_bytes()
        self._installation.certificate(self._address.names)
        if self._certificate.read_bytes() != before:
            for children in (self._answerers, self._receivers):
                children.send(RENEW)
            _log.info("the certificate is renewed")

    def _prepare(self) -> None:
        """Nothing that a server before left stands for this one."""
        folder = counts(self._plane.root)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        self._note()

    def _all_answer(self) -> bool:
        """Wait until they do; False where they are to stop before."""
        for _ in range(self._answerers.wanted):
            match self._next():
                case _Event.STOP:
                    return False
                case _Event.DIED:
                    raise KeepstoneError("the service cannot answer: a process of it ended at once; its log says why")
        return True

    def _end(self) -> None:
        """Stop all, on a thread of its own: this one hears whoever is in a hurry."""
        thread = threading.Thread(target=self._stop_all, name="stop")
        thread.start()
        while (event := self._next()) is not _Event.OVER:
            if event is _Event.STOP:
                self._answerers.hurry()
        thread.join()
        self._plane.database.close()

    def _stop_all(self) -> None:
        try:
            for rounds in self._rounds:
                rounds.stop()
            self._answerers.tell()
            self._listener.close()  # not before: one that is just started gets it
            self._workers.tell()
            self._answerers.stop()
            self._receivers.stop()
            self._workers.stop()
            for rounds in self._rounds:
                rounds.finish(_PATIENCE)
        finally:
            self._events.put(_Event.OVER)

    def _note(self) -> None:
        """Let those that answer know who runs."""
        with self._lock:
            known = Processes(
                server=os.getpid(),
                answerers=_kind(self._answerers),
                receivers=_kind(self._receivers),
                workers=_kind(self._workers),
            )
            try:
                known.write(self._plane.root)
            except OSError as error:  # such as a full disk: whoever tells of a change goes on with its process
                _log.error("those that answer cannot be told who runs: %s", error)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals that stop the server, from here on."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                    before[number] = signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _kind(children: Children) -> Kind:
    return Kind(children.wanted, children.alive(), children.restarts)


def _rounds(plane: Plane, own: Sequence[Chore]) -> list[Rounds]:
    """Threads for what has to be done again and again: what takes long is in nobody else's way."""
    scheduler = Scheduler(plane.database, plane.queue, plane.env, ItemPlans())
    every = [Chore(*chore) for chore in chores(plane)]
    return [
        Rounds(plane.env, "scheduler", [Chore("asking for what is due", 1, scheduler.tick)]),
        Rounds(plane.env, "housekeeping", [chore for chore in every if chore.every <= _OFTEN]),
        Rounds(plane.env, "upkeep", [*own, *(chore for chore in every if chore.every > _OFTEN)]),
    ]
