# SPDX-License-Identifier: Apache-2.0
"""Where a service listens, and what its clients call it."""

from __future__ import annotations

import socket

import pytest

from keepstone.errors import Conflict, UsageError
from keepstone.server.address import Address, listen

pytestmark = pytest.mark.service
HERE = socket.getfqdn()


@pytest.mark.parametrize(
    ("address", "url", "probe"),
    [
        (Address("127.0.0.1", 8443), "https://localhost:8443", "https://127.0.0.1:8443"),
        (Address("::1", 1), "https://localhost:1", "https://[::1]:1"),
        (Address("localhost", 1), "https://localhost:1", "https://localhost:1"),
        (Address("127.0.0.1", 1, ("vault",)), "https://localhost:1", "https://127.0.0.1:1"),
        (Address("0.0.0.0", 1), f"https://{HERE}:1", "https://127.0.0.1:1"),
        (Address("::", 1, ("vault.example", "other")), "https://vault.example:1", "https://[::1]:1"),
        (Address("192.0.2.1", 1), "https://192.0.2.1:1", "https://192.0.2.1:1"),
        (Address("2001:db8::1", 1), "https://[2001:db8::1]:1", "https://[2001:db8::1]:1"),
    ],
)
def test_an_address_for_clients_and_one_for_this_machine(address: Address, url: str, probe: str) -> None:
    assert (address.url, address.probe) == (url, probe)
    host = url.removeprefix("https://").rpartition(":")[0].strip("[]")
    assert host in address.names
    assert {"localhost", "127.0.0.1", "::1", HERE, *address.others} <= set(address.names)
    assert not {"0.0.0.0", "::"} & set(address.names)


def test_a_port_is_for_one() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]

        with pytest.raises(Conflict, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port)
        with pytest.raises(Conflict):
            listen("0.0.0.0", port)
    listen("127.0.0.1", port).close()


def test_a_port_that_somebody_is_about_to_leave_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    monkeypatch.setattr("time.sleep", lambda _: first.close())

    with listen("127.0.0.1", port) as second:
        assert second.getsockname()[1] == port


def test_all_addresses_of_either_kind() -> None:
    with listen("::", 0) as listener:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, listener.getsockname()[1]), 30).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_no_address_of_this_machine(host: str) -> None:
    with pytest.raises(UsageError, match=host):
        listen(host, 0)
