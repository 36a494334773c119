# SPDX-License-Identifier: Apache-2.0
"""Calls that are ended while threads make them: by another thread, or by a signal's handler in the middle of one."""

from __future__ import annotations

import http.client
import http.server
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from keepstone.env import Env
from keepstone.remote.calls import Broken, Calls, Throttle
from keepstone.remote.tls import TlsConnection
from tests.unit.remote.conftest import Contexts

pytestmark = pytest.mark.agents

ANSWER = bytes(300_000)
ROUNDS = 60


class Service(http.server.ThreadingHTTPServer):
    """Answers every request with as many bytes."""

    def __init__(self, contexts: Contexts) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = contexts.server.wrap_socket(self.socket, server_side=True)
        self.client = contexts.client

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has gone."""

    def calls(self, throttle: Throttle | None = None) -> Calls:
        url = f"https://localhost:{self.server_address[1]}"
        return Calls(Env(), url, lambda: self.client, patience=5.0, throttle=throttle)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def service(contexts: Contexts) -> Iterator[Service]:
    with Service(contexts) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def whole(response: http.client.HTTPResponse) -> None:
    """Read the answer in many calls."""
    room = memoryview(bytearray(4096))
    count = 0
    while got := response.readinto(room):
        count += got
    if count < len(ANSWER):
        raise http.client.IncompleteRead(b"")


def test_closed_while_threads_use_it(service: Service) -> None:
    """Wherever each of them is, it finds it broken, and nothing else; and so does who comes later."""
    ends: list[BaseException] = []

    def use(calls: Calls) -> None:
        try:
            while True:
                calls.stream("x", b"", whole)
        except BaseException as error:
            ends.append(error)

    chance, interval = random.Random(5), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(ROUNDS):
            calls = service.calls()
            threads = [threading.Thread(target=use, args=(calls,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0, 0.05))
            calls.close()
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)

    assert [type(error) for error in ends] == [Broken] * 3 * ROUNDS
    with pytest.raises(Broken, match="closed here"):
        calls.once("x", [b""])


def test_closed_in_the_middle_of_sending(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not connected again for the rest."""

    class Closing:
        def paced(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
            yield data[:10]
            calls.close()
            yield data[10:]

    connected: list[TlsConnection] = []
    greet = TlsConnection.greet

    def noted(connection: TlsConnection, seconds: float) -> None:
        connected.append(connection)
        greet(connection, seconds)

    monkeypatch.setattr(TlsConnection, "greet", noted)
    calls = service.calls(throttle=Closing())

    with pytest.raises(Broken):
        calls.once("x", [bytes(500_000)])

    assert len(connected) == 1
