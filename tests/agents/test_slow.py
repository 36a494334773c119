# SPDX-License-Identifier: Apache-2.0
"""A machine that begins an upload and then says no more, as the service's own process sees it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from keepstone.agentapi import service
from keepstone.agentapi.service import PEER, AgentService
from keepstone.identity import Authority, Issued
from keepstone.remote.wire import NodeRecord, Progress, decode, encode, node_record
from tests.agents.living import Machine

pytestmark = pytest.mark.agents


class Taken:
    """In place of the receiver: what was handed on."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def ask(self, machine: UUID, verb: str, session: str, first: int, body: memoryview) -> bytes:
        self.sizes.append(len(body))
        return encode(Progress(first))


def test_an_upload_that_stalls_is_taken_as_far_as_it_came_and_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_PATIENCE", 0.6)
    living = machine.living
    tls = living.service.root / "tls"
    authority = Authority(living.plane.env, Issued((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()))
    own = x509.load_pem_x509_certificate((machine.home / "agent" / "state" / "machine.pem").read_bytes())
    taken = Taken()
    app = AgentService(living.plane, authority, taken)
    whole = node_record(NodeRecord("files/page", b"", b"", b"x" * 100))
    scope = {
        "type": "http", "method": "POST", "path": "/agent/v1/sessions/records", "query_string": b"session=s&first=7",
        "headers": [], "scheme": "https", "server": ("localhost", 8443), PEER: own.public_bytes(
            serialization.Encoding.DER),
    }  # fmt: skip
    said: list[dict[str, Any]] = []
    parts = [{"type": "http.request", "body": whole + whole[:20], "more_body": True}]

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.Event().wait()
        return parts.pop()

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))

    assert taken.sizes == [len(whole)]
    assert said[0]["status"] == 408
    assert decode(said[1]["body"], dict[str, str])["code"] == "RequestTimeout"
