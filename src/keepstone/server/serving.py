# SPDX-License-Identifier: Apache-2.0
"""The server process: answers at one HTTPS port, asks for what is due, cleans up, and looks after the workers.

It stops for SIGTERM, SIGINT and SIGHUP: no new connection is taken, requests in flight are answered, workers end their
job or hand it back. A second signal does not wait for requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from keepstone.arm.service import Service
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.schedules import ItemPlans
from keepstone.control.upkeep import chores
from keepstone.jobs import Scheduler
from keepstone.server.address import Address
from keepstone.server.front import Front
from keepstone.server.metrics import Metrics
from keepstone.server.rounds import Chore, Rounds
from keepstone.server.workers import Workers

__all__ = ["Serving"]

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PATIENCE = 10  # seconds that requests in flight have
_OFTEN = 60.0  # seconds: a chore of this pace has to be short
_IDLE = 75  # seconds that a connection stays open without a request: longer than clients pause between two polls


class Serving:
    """`workers`: how many. `program`: what they are."""

    def __init__(
        self, installation: Installation, address: Address, *, workers: int, level: str, program: Sequence[str]
    ) -> None:
        plane = self._plane = installation.plane()
        env = plane.env
        self._installation = installation
        self._address = address
        self._workers = Workers(
            env, plane.root, plane.queue, workers, level=level, program=program, restarted=self._restarted
        )
        self._metrics = Metrics(plane, workers, self._workers.alive)
        issuer = installation.issuer(plane.place.tenant)
        service = Service(plane, issuer, self._metrics.answered)
        certificate, key = self._certificate = installation.certificate(address.names)
        config = uvicorn.Config(
            Front(service, plane, issuer, self._metrics, wanted=workers, workers=self._workers.alive),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=_PATIENCE,
        )
        self._server = _Server(config, self._workers.tell)
        self._rounds = _rounds(plane, [Chore("renewing the certificate", 3600, self.renew)])

    def run(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Until a signal says to stop, or `stop`. `ready` is called when it answers."""

        def begin() -> None:
            _log.info("answers at %s", self._address.url)
            self._workers.start()
            for rounds in self._rounds:
                rounds.start()
            ready()

        self._server.ready = begin
        with self._signals():
            try:
                self._server.run(sockets=[listener])
            finally:
                for rounds in self._rounds:
                    rounds.stop()
                self._workers.stop()
                for rounds in self._rounds:
                    rounds.finish(_PATIENCE)
                self._plane.database.close()
        _log.info("stopped")

    def stop(self) -> None:
        """Ask it to stop; asked again, it does not wait for requests."""
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True

    def _restarted(self) -> None:
        self._metrics.restarted()

    def renew(self) -> None:
        """Where the certificate does not do much longer, connections from now on get a new one."""
        certificate, _ = self._certificate
        before = certificate.read_bytes()
        paths = self._installation.certificate(self._address.names)
        if certificate.read_bytes() != before:
            self._server.renew(*paths)
            _log.info("the certificate is renewed")

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


class _Server(uvicorn.Server):
    """Says when it answers and when it begins to stop, and leaves the signals to others."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready: Callable[[], None] = lambda: None
        self._stopping = stopping
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def renew(self, certificate: Path, key: Path) -> None:
        """Use these from now on; on the loop's thread, which alone greets clients."""
        context = self.config.ssl
        if self._loop is not None and context is not None:
            self._loop.call_soon_threadsafe(context.load_cert_chain, str(certificate), str(key))


def _rounds(plane: Plane, own: Sequence[Chore]) -> list[Rounds]:
    """Threads for what has to be done again and again: what takes long is in nobody else's way."""
    scheduler = Scheduler(plane.database, plane.queue, plane.env, ItemPlans())
    every = [Chore(*chore) for chore in chores(plane)]
    return [
        Rounds(plane.env, "scheduler", [Chore("asking for what is due", 1, scheduler.tick)]),
        Rounds(plane.env, "housekeeping", [chore for chore in every if chore.every <= _OFTEN]),
        Rounds(plane.env, "upkeep", [*own, *(chore for chore in every if chore.every > _OFTEN)]),
    ]
