# SPDX-License-Identifier: Apache-2.0
"""The server in this process, with processes that answer for it over a real socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from keepstone.catalogue import operations
from keepstone.control import people
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.identity import Authority, Issued, Principal
from keepstone.server.address import Address, listen
from keepstone.server.processes import Processes
from keepstone.server.serving import Serving
from tests.cli.services import until
from tests.unit.server.conftest import Heard

pytestmark = pytest.mark.service


@dataclass(frozen=True)
class Served:
    """A server that runs, and what can be asked of it."""

    serving: Serving
    installation: Installation
    port: int
    thread: threading.Thread

    def stop(self) -> None:
        """And wait."""
        self.serving.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()

    @property
    def answerers(self) -> dict[str, int]:
        """Those that run."""
        return Processes.read(self.installation.root).answerers.alive

    @contextmanager
    def by(self, name: str) -> Iterator[None]:
        """This one alone answers: the others are held."""
        others = [pid for other, pid in self.answerers.items() if other != name]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def connect(self) -> ssl.SSLSocket:
        """A new connection."""
        context = ssl.create_default_context(cafile=self.installation.ca)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 60), server_hostname="localhost")

    def certificate(self) -> x509.Certificate:
        """What a new connection is shown."""
        with self.connect() as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}"

    def ask(self, path: str, token: str = "") -> bytes:
        """Over a connection of its own."""
        context = ssl.create_default_context(cafile=self.installation.ca)
        with contextlib.closing(HTTPSConnection("localhost", self.port, timeout=60, context=context)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            return connection.getresponse().read()

    def counted(self) -> float:
        """Requests for what is not there, as anybody is told."""
        name = b'keepstone_requests_total{operation="",status="404"} '
        found = [line for line in self.ask("/metrics").splitlines() if line.startswith(name)]
        return float(found[0].rpartition(b" ")[2]) if found else 0.0


@pytest.fixture
def served(installation: Installation) -> Iterator[Served]:
    """One with two that answer."""
    listener = listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    serving = Serving(installation, Address("127.0.0.1", port), listener, answerers=2)
    ready = threading.Event()
    thread = threading.Thread(target=serving.run, args=(ready.set,))
    made = Served(serving, installation, port, thread)
    thread.start()
    assert ready.wait(60)
    yield made
    if thread.is_alive():
        made.stop()


def test_a_certificate_that_is_renewed_is_shown_by_all(served: Served) -> None:
    class Earlier(Env):
        def wall_time(self) -> int:
            return super().wall_time() - int(timedelta(days=390).total_seconds() * 1e9)

    tls = served.installation.root / "tls"
    first = served.certificate()
    served.serving.renew()
    assert served.certificate() == first

    old = Authority(Earlier(), Issued((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()))
    issued = old.server(["localhost", "127.0.0.1"])
    (tls / "server.pem").write_bytes(issued.certificate)
    (tls / "server.key").write_bytes(issued.key)
    served.serving.renew()

    there = x509.load_pem_x509_certificate((tls / "server.pem").read_bytes())
    assert there.not_valid_after_utc >= first.not_valid_after_utc
    for name in served.answerers:
        with served.by(name):
            until(lambda: served.certificate() == there, f"{name} shows another one")


def test_whoever_is_asked_tells_what_all_have_counted(served: Served) -> None:
    for name in ("answerer-1", "answerer-2", "answerer-1"):
        with served.by(name):
            served.ask("/nothing")

    for name in served.answerers:
        with served.by(name):
            assert served.counted() == 3


def test_a_role_that_is_taken_away_is_taken_away_everywhere(served: Served, plane: Plane) -> None:
    with plane.change() as change:
        who = people.add(change, "app", "reader", "Reader")
        held, _ = people.assign(change, "/", who.id, "Reader")
    issuer = served.installation.issuer(plane.place.tenant)
    token = issuer.issue(Principal(who.id, who.login), f"{served.url}/", served.url)
    path = f"/subscriptions/{plane.place.subscription}/resourceGroups/g?api-version=2024-11-01"

    def codes() -> list[str]:
        found = []
        for name in served.answerers:
            with served.by(name):
                found.append(json.loads(served.ask(path, token))["error"]["code"])
        return found

    assert codes() == ["ResourceGroupNotFound"] * 2
    with plane.change() as change:
        people.unassign(change, held)
    assert codes() == ["AuthorizationFailed"] * 2


def test_one_that_is_killed_is_replaced_while_the_other_answers(served: Served) -> None:
    before = served.answerers
    with served.by("answerer-1"):
        served.ask("/nothing")
    with served.by("answerer-2"):
        served.ask("/nothing")

        os.kill(before["answerer-2"], signal.SIGKILL)

    for _ in range(10):
        assert b'"status":"ok"' in served.ask("/healthz")
    until(lambda: served.answerers.get("answerer-2", before["answerer-2"]) != before["answerer-2"], "another begins")
    after = served.answerers
    assert after["answerer-1"] == before["answerer-1"]
    with served.by("answerer-2"):
        served.ask("/nothing")
        assert served.counted() == 3
        assert b"\nkeepstone_answerer_restarts_total 1.0\n" in served.ask("/metrics")


def test_one_that_is_killed_is_replaced_also_where_that_cannot_be_noted(served: Served, heard: Heard) -> None:
    before = served.answerers
    (served.installation.root / "run" / "processes.new").mkdir()

    os.kill(before["answerer-2"], signal.SIGKILL)

    now = served.serving._answerers.alive
    until(lambda: now().get("answerer-2", before["answerer-2"]) != before["answerer-2"], "another begins")
    until(lambda: len(heard.having("cannot be told who runs")) >= 2, "its end and its begin are in the log")
    assert served.answerers == before
    (served.installation.root / "run" / "processes.new").rmdir()


def test_a_request_that_one_has_is_answered_and_the_end_comes_then(served: Served) -> None:
    waiting = []
    for name in served.answerers:
        with served.by(name):
            connection = served.connect()
            connection.sendall(b"POST /adfs/oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
            served.ask("/healthz")  # the first half is there by now
        waiting.append(connection)

    served.serving.stop()

    until(lambda: _refuses(served.port), "it takes no connection any more")
    for connection in waiting:
        with connection:
            connection.sendall(b"}")
            assert b"".join(iter(partial(connection.recv, 4096), b"")).startswith(b"HTTP/1.1 400")
    served.thread.join(60)
    assert not served.thread.is_alive()


def test_a_second_stop_does_not_wait_for_requests(served: Served, heard: Heard) -> None:
    processes = served.answerers
    with served.connect() as connection:
        connection.sendall(b"POST /adfs/oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
        for name in processes:
            with served.by(name):
                served.ask("/healthz")
        served.serving.stop()
        until(lambda: heard.having("Waiting for connections to close"), "it waits")

        served.stop()

        assert not heard.having("timeout graceful shutdown exceeded")
        assert not heard.having("is killed")
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes.values())


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 60).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was waiting when the socket was closed
        return False
    return False


def test_where_nobody_can_answer_the_start_fails(installation: Installation, heard: Heard) -> None:
    (installation.root / "issuer.key").write_text("no key")
    listener = listen("127.0.0.1", 0)
    serving = Serving(installation, Address("127.0.0.1", listener.getsockname()[1]), listener, answerers=2)

    with pytest.raises(KeepstoneError, match="its log says why"):
        serving.run(lambda: pytest.fail("it is not ready"))

    assert heard.having("this answerer fell over a fault")
    assert Processes.read(installation.root).answerers.alive == {}


def test_housekeeping_is_done_from_the_beginning(installation: Installation, plane: Plane, request: Any) -> None:
    with plane.database.change() as connection:
        long_ago = plane.env.utc() - timedelta(days=30)
        row = {"id": plane.new_id(), "status": "Succeeded", "started": long_ago, "ended": long_ago}
        connection.execute(operations.insert().values(**row))

    request.getfixturevalue("served")

    def forgotten() -> bool:
        with plane.look() as connection:
            return connection.execute(operations.select()).first() is None

    until(forgotten, "the old operation is forgotten")
