# SPDX-License-Identifier: Apache-2.0
"""Connections for transfers as the service's own process sees them: those that stall, say what cannot be, or are too
many."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from keepstone.agentapi import transfers
from keepstone.agentapi.exchange import Exchange, Hangup
from keepstone.agentapi.transfers import Transfers
from keepstone.control.sessions.reading import Readings
from keepstone.control.sessions.registry import Registry
from keepstone.errors import CorruptObject, NotFound
from keepstone.remote.wire import PREFIX, NodeRecord, Progress, decode, encode, node_record
from tests.agents.living import Machine
from tests.cli.services import until

pytestmark = pytest.mark.agents
WHOLE = node_record(NodeRecord("files/page", b"", b"", b"x" * 100))


class Taken(Registry):
    """In place of the sessions: what was handed on."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def ask(
        self, machine: UUID, verb: str, session: str, first: int, body: memoryview, listens: object = None
    ) -> bytes:
        if session == "lost":
            raise NotFound("there is no such session")
        if session == "fault":
            raise OSError("not of the connection")
        self.sizes.append(len(body))
        return encode(Progress(first))


class Plain:
    """In place of TLS."""

    is_there = True

    def __init__(self, own: socket.socket) -> None:
        self.settimeout, self.recv_into, self.write = own.settimeout, own.recv_into, own.sendall

    def flush(self) -> None:
        """All is sent."""


class Line:
    """A machine's end of a connection without TLS; the service's end is served by a thread."""

    def __init__(self, served: Transfers, certificate: bytes | None) -> None:
        self.own, other = socket.socketpair()
        self.own.settimeout(20)
        self.error: Hangup | None = None

        def serve() -> None:
            with other:
                try:
                    served.serve(Exchange(Plain(other)), certificate)
                except Hangup as error:
                    self.error = error

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()

    def send(self, call: str, body: bytes, length: int | None = None) -> None:
        size = len(body) if length is None else length
        self.own.sendall(f"POST {PREFIX}{call} HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode() + body)

    def answer(self) -> tuple[int, bytes]:
        response = http.client.HTTPResponse(self.own)
        response.begin()
        return response.status, response.read()

    def code(self) -> tuple[int, str]:
        status, body = self.answer()
        return status, decode(body, dict[str, str])["code"]

    def close(self) -> None:
        self.own.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


def fetched(
    self: Readings, machine: UUID, job: str, token: int, body: memoryview, put: Callable[[memoryview], None]
) -> None:
    """In place of a point: some bytes, and damage where the job says so."""
    for _ in range(token):
        put(memoryview(b"chunks"))
    if job == "damaged":
        raise CorruptObject("no more can be read")


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def certificate(machine: Machine) -> bytes:
    found = x509.load_pem_x509_certificate((machine.home / "agent" / "state" / "machine.pem").read_bytes())
    return found.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def line(machine: Machine, taken: Taken, certificate: bytes) -> Iterator[Callable[..., Line]]:
    served = Transfers(machine.living.plane, taken)
    made: list[Line] = []

    def make(who: bytes | None = certificate) -> Line:
        made.append(Line(served, who))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_upload_that_stalls_is_taken_as_far_as_it_came_and_given_up(
    line: Callable[..., Line], taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_PATIENCE", 0.6)
    one = line()
    one.send("sessions/records?session=s&first=7", WHOLE + WHOLE[:20], 10_000)

    assert one.code() == (408, "RequestTimeout")
    assert taken.sizes == [len(WHOLE)]


def test_an_upload_that_ends_is_taken_as_far_as_it_came(line: Callable[..., Line], taken: Taken) -> None:
    one = line()
    one.send("sessions/records?session=s&first=7", 2 * WHOLE + WHOLE[:20], 10_000)
    one.close()

    assert taken.sizes == [2 * len(WHOLE)]
    assert isinstance(one.error, Hangup)


def test_records_of_any_size_come_whole(line: Callable[..., Line], taken: Taken) -> None:
    """Larger than a buffer, and smaller, one request after the other over the same connection."""
    large = node_record(NodeRecord("files/page", b"", b"", b"x" * 5_000_000))
    one = line()
    for body in (WHOLE, large, WHOLE + large + WHOLE, b""):
        one.send("sessions/records?session=s&first=0", body)
        assert one.answer()[0] == 200
    assert sum(taken.sizes) == 3 * len(WHOLE) + 2 * len(large)
    assert taken.sizes[-1] == 0
    assert set(taken.sizes) <= {0, len(WHOLE), len(large), len(WHOLE) + len(large), len(large) + len(WHOLE)}


@pytest.mark.parametrize(
    "head",
    [
        b"GET /agent/v1/sessions/state HTTP/1.1\r\n\r\n",
        b"POST /agent/v1/sessions/state HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        b"POST /agent/v1/sessions/state HTTP/1.1\r\n\r\n",
        b"POST /agent/v1/sessions/state HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /agent/v1/sessions/state HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /agent/v1/sessions/state HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        b"POST /agent/v1/sessions/state HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /agent/v1/sessions/state HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"POST /agent/v1/" + b"x" * 20_000,
        b"\x16\x03\x01 no words\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection(line: Callable[..., Line], head: bytes) -> None:
    one = line()
    one.own.sendall(head)

    assert one.code() == (400, "InvalidRequestContent")
    assert one.own.recv(1) == b""
    assert one.error is None


def test_a_body_that_is_too_large_is_not_read(line: Callable[..., Line]) -> None:
    one = line()
    one.send("sessions/nodes?session=s", b"", 10**12)

    assert one.code() == (413, "InvalidRequestContent")


@pytest.mark.parametrize("first", ["-1", "x", "9" * 19, "%00"])
def test_numbers_that_are_none(line: Callable[..., Line], first: str) -> None:
    one = line()
    one.send(f"sessions/records?session=s&first={first}", WHOLE)
    assert one.code() == (400, "InvalidRequestContent")
    one.send("sessions/state?session=s", b"")
    assert one.answer()[0] == 200


def test_strangers_learn_nothing(line: Callable[..., Line], taken: Taken) -> None:
    one = line(None)
    for call in ("sessions/state?session=s", "points/open", "pulse", "nothing"):
        one.send(call, b"")
        assert one.code() == (401, "AuthenticationFailed")
    assert taken.sizes == []


def test_what_is_refused_after_a_stream_is_said(line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that came whole says nothing of the next one, over the same connection."""
    monkeypatch.setattr(Readings, "fetch", fetched)
    one = line()
    for count in (3, 0, 1):
        one.send(f"points/fetch?job=j&token={count}", b"")
        assert one.answer() == (200, b"chunks" * count)
        one.send("sessions/state?session=lost", b"")
        assert one.answer()[0] == 404
    one.send("points/fetch?job=damaged&token=0", b"")
    assert one.answer()[0] == 500
    one.send("sessions/state?session=s", b"")
    assert one.answer()[0] == 200


def test_a_stream_that_breaks_has_no_end(line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readings, "fetch", fetched)
    one = line()
    one.send("points/fetch?job=damaged&token=2", b"")

    with pytest.raises(http.client.IncompleteRead):
        one.answer()
    one.close()
    assert isinstance(one.error, Hangup)


def test_a_fault_of_the_service_is_no_break(line: Callable[..., Line], caplog: pytest.LogCaptureFixture) -> None:
    one = line()
    one.send("sessions/state?session=fault", b"")

    assert one.code() == (500, "InternalServerError")
    assert "a fault while agent/sessions/state was answered" in caplog.text


def test_a_machine_has_so_many_connections(line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "CONNECTIONS", 2)
    lines = [line() for _ in range(2)]
    for one in lines:
        one.send("sessions/state?session=s", b"")
        assert one.answer()[0] == 200
    late = line()
    late.send("sessions/state?session=s", b"")
    assert late.code()[0] == 429
    lines[0].close()

    def again() -> Any:
        late.send("sessions/state?session=s", b"")
        return late.answer()[0] == 200

    until(again, "there is room again")
