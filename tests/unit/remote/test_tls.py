# SPDX-License-Identifier: Apache-2.0
"""TLS that reads and writes the wire in large pieces, between two threads over a socket of this machine."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import pytest

from keepstone.remote.tls import TlsConnection
from tests.unit.remote.conftest import Contexts

pytestmark = pytest.mark.agents

T = TypeVar("T")


class Ends:
    """Two plain sockets, and a thread for what the far one does."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self._pool = ThreadPoolExecutor(1)

    def there(self, work: Callable[[], T]) -> Future[T]:
        return self._pool.submit(work)

    def close(self) -> None:
        self.near.close()
        self.far.close()
        self._pool.shutdown()


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ExitStack() as stack:
        made = Ends()
        stack.callback(made.close)
        yield made


def greeted(ends: Ends, contexts: Contexts, wire: int = 256 << 10) -> tuple[TlsConnection, TlsConnection]:
    """(client, server)"""

    def serve() -> TlsConnection:
        served = TlsConnection(ends.far, contexts.server, wire=wire)
        served.greet(20)
        return served

    server = ends.there(serve)
    client = TlsConnection(ends.near, contexts.client, server_hostname="localhost", wire=wire)
    client.greet(20)
    for one in (client, server.result(20)):
        one.settimeout(20)
    return client, server.result()


def whole(connection: TlsConnection, count: int) -> bytes:
    got = bytearray(count)
    at = 0
    while at < count:
        part = connection.recv_into(memoryview(got)[at:])
        if not part:
            break
        at += part
    return bytes(got[:at])


@pytest.mark.parametrize("wire", [1, 1000, 64 << 10, 256 << 10])
def test_what_is_written_arrives_however_it_comes_off_the_wire(ends: Ends, contexts: Contexts, wire: int) -> None:
    client, server = greeted(ends, contexts, wire=wire)
    data = os.urandom(20_000 if wire < 1000 else 3_000_000)

    def echo() -> None:
        server.sendall(whole(server, len(data)))

    done = ends.there(echo)
    client.write(data[:10])
    client.write(memoryview(data)[10:])
    client.flush()

    assert whole(client, len(data)) == data
    done.result(20)


def test_much_is_handed_out_at_once(ends: Ends, contexts: Contexts) -> None:
    """What all this is for: several records, not one."""
    client, server = greeted(ends, contexts)
    server.sendall(bytes(100_000))

    assert client.recv_into(memoryview(bytearray(1 << 20))) == 100_000


def test_small_parts_go_together(ends: Ends, contexts: Contexts) -> None:
    client, server = greeted(ends, contexts)
    for _ in range(50):
        client.write(b"x")
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.recv_into(memoryview(bytearray(50)))
    client.flush()
    server.settimeout(20)
    assert whole(server, 50) == b"x" * 50


def test_what_has_come_is_given_before_the_silence(ends: Ends, contexts: Contexts) -> None:
    client, server = greeted(ends, contexts)
    client.sendall(b"four")
    server.settimeout(0.1)
    buffer = memoryview(bytearray(10))

    assert server.recv_into(buffer) == 4
    with pytest.raises(TimeoutError):
        server.recv_into(buffer)
    client.sendall(b"more")
    assert server.recv_into(buffer) == 4  # nothing is broken by that


def test_whether_the_other_side_is_there(ends: Ends, contexts: Contexts) -> None:
    near, far = greeted(ends, contexts)
    assert far.is_there
    near.sendall(b"unread")
    assert far.is_there  # and what came is still to be read
    assert far.recv_into(memoryview(bytearray(100))) == 6

    near.close()

    assert not far.is_there


def test_the_end_is_nothing_more_to_read(ends: Ends, contexts: Contexts) -> None:
    client, server = greeted(ends, contexts)
    client.sendall(b"last")
    ends.near.shutdown(socket.SHUT_WR)  # without a farewell, as whoever is killed

    assert whole(server, 10) == b"last"
    assert server.recv_into(memoryview(bytearray(1))) == 0


def test_what_somebody_slips_in_is_no_data(ends: Ends, contexts: Contexts) -> None:
    client, server = greeted(ends, contexts)
    client.sendall(b"good")
    assert whole(server, 4) == b"good"
    ends.near.sendall(b"\x17\x03\x03\x00\x40" + os.urandom(64))  # a record of data, sealed by nobody
    with pytest.raises(ssl.SSLError):
        server.recv_into(memoryview(bytearray(1000)))


def test_who_is_not_trusted_hears_so(ends: Ends, contexts: Contexts) -> None:
    def serve() -> None:
        served = TlsConnection(ends.far, contexts.server)
        served.greet(20)
        served.settimeout(20)
        served.recv_into(memoryview(bytearray(1)))

    server = ends.there(serve)
    client = TlsConnection(ends.near, contexts.stranger, server_hostname="localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        client.greet(20)
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
        server.result(20)


def test_a_handshake_by_drops_has_an_end(ends: Ends, contexts: Contexts) -> None:
    """A byte now and then keeps nobody waiting for longer than the whole may take."""
    over = threading.Event()

    def drip() -> None:
        for byte in b"\x16\x03\x01\x02\x00" + bytes(512):  # the head of a record that would be whole after 517 bytes
            if over.wait(0.05):
                break
            ends.far.send(bytes([byte]))

    dripping = ends.there(drip)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        TlsConnection(ends.near, contexts.server).greet(0.5)
    assert time.monotonic() - began < 5
    over.set()
    dripping.result(20)


def test_a_record_by_drops_keeps_nobody_waiting(ends: Ends, contexts: Contexts) -> None:
    """Also once the handshake is over: a byte now and then is no sign of life for as long as no record is whole."""
    client, server = greeted(ends, contexts)
    over = threading.Event()

    def drip() -> None:
        for byte in b"\x17\x03\x03\x10\x00" + bytes(4096):
            if over.wait(0.05):
                break
            ends.near.send(bytes([byte]))

    dripping = ends.there(drip)
    server.settimeout(0.5)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        server.recv_into(memoryview(bytearray(10)))
    assert time.monotonic() - began < 5
    over.set()
    dripping.result(20)
    server.settimeout(20)
    server.sendall(b"x" * 1000)  # which waits as long as was said last, not for what was left
    assert whole(client, 1000) == b"x" * 1000


def test_a_file_keeps_it_open(ends: Ends, contexts: Contexts) -> None:
    """As `http.client` wants it of an answer that is the last."""
    client, server = greeted(ends, contexts)
    file = client.makefile()
    client.close()
    server.sendall(b"line\nrest")
    assert file.readline() == b"line\n"
    file.close()
    file.close()
    assert ends.near.fileno() == -1
    with pytest.raises(ValueError, match="w"):
        server.makefile("w")


def test_shutdown_wakes_who_waits(ends: Ends, contexts: Contexts) -> None:
    client, _ = greeted(ends, contexts)
    reading = ends.there(lambda: client.recv_into(memoryview(bytearray(1))))
    time.sleep(0.1)
    client.shutdown()
    assert reading.result(20) == 0
