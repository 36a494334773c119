# SPDX-License-Identifier: Apache-2.0
"""Whoever asks the service in the benchmark: every answer is counted, and timed from when its request was due."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.service.load import Order, Run
from keepstone.env import Env
from keepstone.identity import Authority

pytestmark = pytest.mark.service

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
NONE = b"HTTP/1.1 204 No Content\r\n\r\n"
BAD = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, `server.pem` and `server.key`."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.create(Env(), "bench")
    issued = authority.server(["localhost"])
    (folder / "ca.pem").write_bytes(authority.issued.certificate)
    (folder / "server.pem").write_bytes(issued.certificate)
    (folder / "server.key").write_bytes(issued.key)
    return folder


def asked(tls: Path, answer: Callable[[bytes], bytes], requests: list[str], *, pause: float = 0, **more: float) -> Run:
    """A run against a server that answers so, after a pause; with `seconds`, `rate` and `connections` as they are
    given."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                await reader.readuntil(b"\r\n")
                await asyncio.sleep(pause)
                said = answer(head)
                for piece in (said[:9], said[9:]):  # an answer comes in pieces
                    writer.write(piece)
                    await writer.drain()
        finally:
            writer.close()

    async def both() -> Run:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        order = Order(port, str(tls / "ca.pem"), requests, int(more.get("connections", 1)), more.get("seconds", 0),
                      more.get("rate", 0))  # fmt: skip
        run = Run(order)
        try:
            await run.run()
        finally:
            server.close()
            await server.wait_closed()
        return run

    return asyncio.run(both())


def test_every_request_is_asked_once(tls: Path) -> None:
    heard: list[bytes] = []

    def answer(head: bytes) -> bytes:
        heard.append(head)
        return NONE if b"/none" in head else OK

    run = asked(tls, answer, [f"GET /{name} HTTP/1.1\r\n\r\n" for name in ("a", "none", "b", "c")], connections=1)
    assert [line.split()[1] for line in heard] == [b"/a", b"/none", b"/b", b"/c"]
    assert len(run.seconds) == 4


def test_an_error_is_no_answer(tls: Path) -> None:
    with pytest.raises(RuntimeError, match="404 Not Found"):
        asked(tls, lambda head: BAD if b"/b" in head else OK, ["GET /a HTTP/1.1\r\n\r\n", "GET /b HTTP/1.1\r\n\r\n"])


def test_a_request_that_has_to_wait_for_its_connection_has_waited(tls: Path) -> None:
    """40 a second are due where one takes a twentieth of a second: each has waited longer than the one before."""
    run = asked(tls, lambda head: OK, ["GET /a HTTP/1.1\r\n\r\n"], pause=0.05, seconds=0.2, rate=40)
    assert len(run.seconds) == 8
    assert run.seconds[-1] > 0.05 * 8 - 0.2
