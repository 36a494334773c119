# SPDX-License-Identifier: Apache-2.0
"""Where servers are: URIs by doc/uri.md, paths, hosts and ports."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.disks.nbd import Address
from keepstone.errors import UsageError

pytestmark = pytest.mark.vm


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (Path("/run/s"), Address(socket="/run/s")),
        ("/run/s", Address(socket="/run/s")),
        ("./s", Address(socket="./s")),
        ("nbd+unix:///?socket=nbd.sock", Address(socket="nbd.sock", hostname="localhost")),
        ("nbd+unix:///disk?socket=/a%20b", Address(socket="/a b", export="disk", hostname="localhost")),
        ("nbds+unix:///?socket=/s&tls-hostname=h", Address(socket="/s", tls=True, hostname="h")),
        ("example.com:1234", Address(host="example.com", port=1234)),
        ("[::1]:10809", Address(host="::1")),
        ("nbd://example.com", Address(host="example.com", hostname="example.com")),
        ("nbd://example.com//disk", Address(host="example.com", export="/disk", hostname="example.com")),
        ("nbd://h:5/hello%20world", Address(host="h", port=5, export="hello world", hostname="h")),
        ("nbds://[::1]/x?tls-type=x509&tls-verify-peer=1", Address(host="::1", export="x", tls=True, hostname="::1")),
    ],
)  # fmt: skip
def test_what_an_address_says(text: str | Path, address: Address) -> None:
    assert Address.of(text) == address
    again = Address.of(address.uri)
    assert (again.socket, again.host, again.port, again.export, again.tls) == (
        address.socket, address.host, address.port, address.export, address.tls
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "host:99999", "host:x", "a b:1@c:2", "nbd:", "nbd:///x", "nbd+unix:///x", "nbd+unix:///",
     "nbd://h/?socket=/s", "nbd://h/?what=1", "nbds://h/?tls-verify-peer=0", "nbds://h/?tls-type=psk", "nbd://h:0x1/",
     "nbd://h/%ff", "nbd://[::1/", "nbd://h/%00", "nbd://h/" + "x" * 4097],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        Address.of(text)


def test_an_export_that_the_address_does_not_name() -> None:
    assert Address.of("h:1", "disk").export == Address.of("nbd://h", "disk").export == "disk"
    assert Address.of("nbd://h/other", "disk").export == "other"


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("/s", True), ("127.0.0.1:1", True), ("127.8.9.1:1", True), ("[::1]:1", True), ("localhost:1", True),
     ("0.0.0.0:1", False), ("[::]:1", False), ("192.0.2.1:1", False), ("localhost.example.com:1", False)],
)  # fmt: skip
def test_who_reaches_it(text: str, loopback: bool) -> None:
    assert Address.of(text).loopback is loopback
