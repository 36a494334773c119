# SPDX-License-Identifier: Apache-2.0
"""Which connections are served and which are handed on: by the first message alone, in whatever pieces it comes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from keepstone.control.installation import Installation
from keepstone.env import Env
from keepstone.remote.wire import TRANSFER
from keepstone.server import https
from keepstone.server.https import Server
from keepstone.server.passing import hand_on, listening, received
from tests.cli.services import until

pytestmark = pytest.mark.service


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Served:
    def __init__(self, root: Path) -> None:
        installation = Installation(Env(), root)
        installation.begin("onprem1")
        installation.certificate(["localhost"])
        self.root = root
        self.context = ssl.create_default_context(cafile=str(installation.ca))
        self.taken: list[bytes] = []
        self.full = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        ready = threading.Event()
        self.server = Server(app, root / "tls", ready.set, lambda: None, self.take)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        assert ready.wait(30)

    def take(self, connection: socket.socket) -> None:
        if self.full:
            self.full -= 1
            raise BlockingIOError
        self.taken.append(connection.recv(1 << 14))

    def ask(self) -> bytes:
        client = HTTPSConnection("localhost", self.port, context=self.context, timeout=30)
        try:
            client.request("GET", "/")
            return client.getresponse().read()
        finally:
            client.close()

    def close(self) -> None:
        self.server.stop()
        self.thread.join(30)
        self.listener.close()
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("https") / "service")
    yield made
    made.close()


def hello(protocol: str) -> bytes:
    """The first message of a client that names this protocol."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([protocol])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_ordinary_clients_are_served(served: Served) -> None:
    assert served.ask() == b"ok"


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_transfers_are_handed_on_unread(served: Served, pieces: int) -> None:
    served.taken.clear()
    said = hello(TRANSFER)
    with socket.create_connection(("localhost", served.port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        step = -(-len(said) // pieces)
        for at in range(0, len(said), step):
            client.sendall(said[at : at + step])
        until(lambda: served.taken, "it is handed on")
        assert client.recv(1) == b""

    assert served.taken == [said]
    assert served.ask() == b"ok"


def test_one_that_cannot_be_taken_yet_waits(served: Served) -> None:
    served.taken.clear()
    served.full = 3
    with socket.create_connection(("localhost", served.port)) as client:
        client.sendall(hello(TRANSFER))
        until(lambda: served.taken, "it is handed on")
    assert served.full == 0


@pytest.mark.parametrize("said", [b"", b"\x16", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 10])
def test_whoever_speaks_no_tls_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(https, "_HELLO_SECONDS", 0.3)
    served.taken.clear()
    with socket.create_connection(("localhost", served.port)) as client:
        client.settimeout(30)
        client.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100)[:1] in (b"", b"\x15")
    assert served.taken == []
    assert served.ask() == b"ok"


def test_a_protocol_that_only_begins_so_is_another_one(served: Served) -> None:
    served.taken.clear()
    with socket.create_connection(("localhost", served.port)) as client:
        client.settimeout(30)
        client.sendall(hello(f"{TRANSFER}0"))
        assert client.recv(1) == b"\x16"  # its TLS goes on here
    assert served.taken == []


def test_connections_travel(tmp_path: Path) -> None:
    root = tmp_path / ("deep" * 50)
    (root / "run").mkdir(parents=True)
    with socket.socket() as nowhere, pytest.raises(OSError, match="No such file"):
        hand_on(root, nowhere)
    listener = listening(root)
    mine, other = socket.socketpair()
    with mine, other:
        hand_on(root, other)
    assert (root / "run" / "receiver.sock").stat().st_mode & 0o777 == 0o600
    got: Any = received(listener)
    with got:
        assert got.family == socket.AF_UNIX
        assert got.recv(1) == b""
    found: list[OSError] = []

    def wait() -> None:
        try:
            received(listener)
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(30)
    assert found
    listener.close()
