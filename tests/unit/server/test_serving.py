# SPDX-License-Identifier: Apache-2.0
"""The server in this process, over a real socket: its certificate while it runs, and its threads."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from keepstone.catalogue import operations
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.identity import Authority, Issued
from keepstone.server.address import Address, listen
from keepstone.server.serving import Serving
from tests.cli.services import until

pytestmark = pytest.mark.service


@pytest.fixture
def serving(installation: Installation) -> Iterator[tuple[Serving, int]]:
    """It, and its port."""
    listener = listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    made = Serving(installation, Address("127.0.0.1", port), workers=0, level="info", program=["false"])
    ready = threading.Event()
    thread = threading.Thread(target=made.run, args=(listener, ready.set))
    thread.start()
    assert ready.wait(60)
    yield made, port
    made.stop()
    thread.join(60)
    assert not thread.is_alive()


def shown(installation: Installation, port: int) -> x509.Certificate:
    """The certificate that a new connection gets."""
    context = ssl.create_default_context(cafile=installation.ca)
    with (
        socket.create_connection(("127.0.0.1", port), 60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def test_a_certificate_is_renewed_while_the_server_runs(
    serving: tuple[Serving, int], installation: Installation
) -> None:
    class Earlier(Env):
        def wall_time(self) -> int:
            return super().wall_time() - int(timedelta(days=390).total_seconds() * 1e9)

    made, port = serving
    tls = installation.root / "tls"
    first = shown(installation, port)
    made.renew()
    assert shown(installation, port) == first

    old = Authority(Earlier(), Issued((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()))
    issued = old.server(["localhost", "127.0.0.1"])
    (tls / "server.pem").write_bytes(issued.certificate)
    (tls / "server.key").write_bytes(issued.key)
    made.renew()

    until(lambda: shown(installation, port) != first, "another one is shown")
    new = shown(installation, port)
    assert new.not_valid_after_utc >= first.not_valid_after_utc
    assert new.serial_number == x509.load_pem_x509_certificate((tls / "server.pem").read_bytes()).serial_number


def test_housekeeping_is_done_from_the_beginning(installation: Installation, plane: Plane, request: Any) -> None:
    with plane.database.change() as connection:
        long_ago = plane.env.utc() - timedelta(days=30)
        row = {"id": plane.new_id(), "status": "Succeeded", "started": long_ago, "ended": long_ago}
        connection.execute(operations.insert().values(**row))

    request.getfixturevalue("serving")

    def forgotten() -> bool:
        with plane.look() as connection:
            return connection.execute(operations.select()).first() is None

    until(forgotten, "the old operation is forgotten")
