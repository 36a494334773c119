# SPDX-License-Identifier: Apache-2.0
"""Calls that are ended while threads make them: by another thread, or by a signal's handler in the middle of one."""

from __future__ import annotations

import http.client
import http.server
import random
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.identity import Authority
from keepstone.remote.calls import Broken, Calls

pytestmark = pytest.mark.agents

ANSWER = bytes(300_000)
ROUNDS = 60


class Service(http.server.ThreadingHTTPServer):
    """Answers every request with as many bytes. `greeted`: connections so far."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        authority = Authority.create(Env(), "Keepstone test")
        pair = authority.server(["localhost"])
        (folder / "pair").write_bytes(pair.certificate + pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "pair")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.client = ssl.create_default_context(cadata=authority.issued.certificate.decode())
        self.greeted = 0

    def process_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        self.greeted += 1
        super().process_request(request, client_address)

    def handle_error(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """Who asked has gone."""

    def calls(self, **more: object) -> Calls:
        return Calls(Env(), f"https://localhost:{self.server_address[1]}", lambda: self.client, patience=5.0, **more)  # type: ignore[arg-type]


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
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as made:
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


def test_closed_in_the_middle_of_sending(service: Service) -> None:
    """It is not connected again for the rest."""

    class Closing:
        def paced(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
            yield data[:10]
            before.append(service.greeted)
            calls.close()
            yield data[10:]

    before: list[int] = []
    calls = service.calls(throttle=Closing())

    with pytest.raises(Broken):
        calls.once("x", [bytes(500_000)])

    assert before == [service.greeted]
