# SPDX-License-Identifier: Apache-2.0
"""Questions that stay open until there is work."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keepstone.remote.wire import Pulse, encode
from tests.agents.living import Hand, Living, Machine

pytestmark = pytest.mark.agents


@contextmanager
def asking(living: Living, hand: Hand) -> Iterator[None]:
    """A question that is open for long; whoever asked hangs up at the end, as an agent does that is stopped."""
    body = encode(Pulse(version="0", wait=50.0))
    head = f"POST /agent/v1/pulse HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", living.port)) as one,
        hand.identity.context().wrap_socket(one, server_hostname="localhost") as secured,
    ):
        secured.sendall(head.encode() + body)
        yield


def test_work_goes_to_nobody_who_is_gone(living: Living, machine: Machine, source: Path) -> None:
    """It would be his for half a minute, and an attempt of it be lost."""
    machine.protect(source)
    hand, second = machine.hand(), living.machine("other").hand()

    def everybody_is_told() -> None:
        """The service looks for work each second; this question waits for longer than that."""
        assert second.pulse(wait=2.0).work == []

    try:
        hand.pulse(wait=0.0)
        everybody_is_told()  # of who is new
        with asking(living, hand):
            everybody_is_told()
        job = machine.ask(source)
        everybody_is_told()

        assert hand.take(job).attempt == 1
    finally:
        hand.close()
        second.close()
