# SPDX-License-Identifier: Apache-2.0
"""A service in this process, over HTTPS at a port of its own, whose worker rests when a test wants it to.

Its folder is held as `keepstone up` holds it, so commands find it by that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from keepstone.arm.service import Service
from keepstone.control import people
from keepstone.control.installation import Installation
from keepstone.control.work import handlers
from keepstone.env import Env
from keepstone.jobs import Worker
from keepstone.server import instance
from keepstone.server.address import Address, listen
from tests.cli.services import until

__all__ = ["Answering"]


class Answering:
    """The service in `root`, which is made. `asked`: the operations that it was asked for, in order; `heard` is called
    with each, when it is answered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.heard: Callable[[str], None] = lambda _: None
        installation = Installation(Env(), root)
        welcome = installation.begin("onprem1")
        assert welcome is not None
        self.password = welcome.password
        self.plane = installation.plane()
        self.issuer = installation.issuer(self.plane.place.tenant)
        self.installation = installation
        self._service = Service(self.plane, self.issuer, self._answered)
        self._address = Address("127.0.0.1", 0)
        self._hold: instance.Hold | None = None
        self._awake, self._over = threading.Event(), threading.Event()
        self._awake.set()
        self._worker = threading.Thread(target=self._work, name="worker")
        self._worker.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._address.probe

    def start(self) -> None:
        """Answer; after a stop at the same port."""
        listener = listen("127.0.0.1", self._address.port)
        self._address = Address("127.0.0.1", listener.getsockname()[1])
        certificate, key = self.installation.certificate(self._address.names)
        config = uvicorn.Config(
            self._service,
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="server")
        self._thread.start()
        until(lambda: self._server.started, "the server")
        self._hold = instance.take(self.root)
        self._hold.announce(self._address.url, self._address.probe)

    def leave(self) -> None:
        """Answer what has come, and no more; without waiting for the end of that."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Answer no more."""
        self.leave()
        self._thread.join()
        assert self._hold is not None
        self._hold.release()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """The worker takes no job meanwhile."""
        self._awake.clear()
        try:
            yield
        finally:
            self.wake()

    def wake(self) -> None:
        """The worker rests no more."""
        self._awake.set()

    def close(self) -> None:
        """The end of all of it."""
        self.stop()
        self._over.set()
        self._awake.set()
        self._worker.join()
        self.plane.database.close()

    def principal(self, login: str, secret: str, *roles: str, user: bool = False) -> None:
        """Somebody new who may log in."""
        with self.plane.change() as change:
            who = people.add(change, "user" if user else "app", login, login, secret)
            for role in roles:
                people.assign(change, "/", who.id, role)

    def _answered(self, operation: str, *_: object) -> None:
        self.asked.append(operation)
        self.heard(operation)

    def _work(self) -> None:
        worker = Worker(self.plane.queue, handlers(self.plane), self.plane.env, "test")
        while not self._over.is_set():
            self._awake.wait()
            if not worker.run_one():
                self._over.wait(0.01)
