# SPDX-License-Identifier: Apache-2.0
"""How an application is served: HTTP/1.1 over TLS by uvicorn, at a socket that listens already.

Here alone is decided what a connection may do before a request is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keepstone.agentapi.service import PEER

__all__ = ["Server"]

_PATIENCE = 10  # seconds that requests in flight have
_IDLE = 75  # seconds that a connection stays open without a request: longer than clients pause between two polls


class _Protocol(HttpToolsProtocol):
    """As uvicorn's; tells who the client is, where it has a certificate of our authority."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as asyncio has it
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        self._peer = secured.getpeercert(binary_form=True) if secured is not None else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[PEER] = self._peer  # type: ignore[literal-required]  # an own one


class Server(uvicorn.Server):
    """Serves `app` with the certificate in the folder `tls`. Signals are left to others. `ready` is called when it
    answers, `stopping` when it begins to stop, for whoever lets clients wait; both on the loop's thread."""

    def __init__(self, app: ASGIApp, tls: Path, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        self._pair = str(tls / "server.pem"), str(tls / "server.key")
        self._ready = ready
        self._stopping = stopping
        self._loop: asyncio.AbstractEventLoop | None = None
        certificate, key = self._pair
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=_Protocol,
                ws="none",
                lifespan="off",
                ssl_certfile=certificate,
                ssl_keyfile=key,
                ssl_ca_certs=str(tls / "ca.pem"),
                ssl_cert_reqs=ssl.CERT_OPTIONAL,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_IDLE,
                timeout_graceful_shutdown=_PATIENCE,
            )
        )

    def stop(self, *, at_once: bool = False) -> None:
        """Take no new connection, answer the requests in flight, for `_PATIENCE` seconds at most, and end. `at_once`:
        do not wait for them."""
        self.force_exit = self.force_exit or at_once
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping)

    def renew(self) -> None:
        """Use what is in the folder now for connections from now on; on the loop's thread, which alone greets
        clients."""
        context = self.config.ssl
        if self._loop is not None and context is not None:
            self._loop.call_soon_threadsafe(context.load_cert_chain, *self._pair)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, and say so."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield
