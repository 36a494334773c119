# SPDX-License-Identifier: Apache-2.0
"""TLS between two ends of a test."""

from __future__ import annotations

import ssl
from typing import NamedTuple

import pytest

from keepstone.env import Env
from keepstone.identity import Authority

__all__ = ["Contexts"]


class Contexts(NamedTuple):
    """`stranger`: of a client that trusts nobody who is here."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    stranger: ssl.SSLContext


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder = tmp_path_factory.mktemp("tls")
    authority, other = (Authority.create(Env(), "Keepstone test") for _ in range(2))
    pair = authority.server(["localhost"])
    (folder / "pair").write_bytes(pair.certificate + pair.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "pair")
    client, stranger = (
        ssl.create_default_context(cadata=one.issued.certificate.decode()) for one in (authority, other)
    )
    return Contexts(server, client, stranger)
