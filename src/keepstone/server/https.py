# SPDX-License-Identifier: Apache-2.0
"""How connections are served that come to a socket which listens already: HTTP/1.1 over TLS, by uvicorn. Those over
which an agent transfers data are handed on to a process that has nothing else to do.

Here alone is decided what a connection may do before a request is read. Which kind it is, its first message says
(ClientHello, RFC 8446 4.1.2), which is looked at and left where it is. Nothing of it is believed: whoever names the
protocol of transfers comes to where that is spoken, and has to prove there who it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keepstone.agentapi.service import PEER
from keepstone.remote.wire import TRANSFER

__all__ = ["Server"]

_log = logging.getLogger(__name__)
_PATIENCE = 10  # seconds that requests in flight have
_IDLE = 75  # seconds that a connection stays open without a request: longer than clients pause between two polls
_HELLO = 16 << 10  # bytes that are looked at
_HELLO_SECONDS = 10.0  # that a client may take for them
_RECORD = 5  # bytes of the head of a TLS record, of which the last two are its length (RFC 8446 5.1)
_NAME = bytes([len(TRANSFER)]) + TRANSFER.encode()  # as the list of protocols has it (RFC 7301 3.1)
_PAUSE = 0.5  # seconds, where no connection can be taken
_SOON = 0.02  # seconds, where one cannot be handed on


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
    answers, `stopping` when it begins to stop, for whoever lets clients wait; both on the loop's thread. `hand_on`:
    gives a connection for transfers away; `BlockingIOError` where it has to be asked again, `OSError` where it cannot
    be."""

    def __init__(
        self,
        app: ASGIApp,
        tls: Path,
        ready: Callable[[], None],
        stopping: Callable[[], None],
        hand_on: Callable[[socket.socket], None],
    ) -> None:
        self._pair = str(tls / "server.pem"), str(tls / "server.key")
        self._ready = ready
        self._stopping = stopping
        self._hand_on = hand_on
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepting: list[asyncio.Task[None]] = []
        self._greeted: set[asyncio.Task[None]] = set()
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
        """As uvicorn does, but that connections are looked at before; and say so."""
        await super().startup([])
        self._loop = asyncio.get_running_loop()
        for listener in sockets or []:
            listener.setblocking(False)
            self._accepting.append(self._loop.create_task(self._accept(self._loop, listener)))
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does."""
        for task in (*self._accepting, *self._greeted):
            task.cancel()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield

    async def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # such as too many open files
                _log.warning("no connection can be taken: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            task = loop.create_task(self._greet(loop, connection))
            self._greeted.add(task)
            task.add_done_callback(self._greeted.discard)

    async def _greet(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(_HELLO_SECONDS):
                hello = await _hello(loop, connection)
                if _NAME in hello:
                    await self._part(connection)
                    return
            if hello:
                await loop.connect_accepted_socket(self._conversation, connection, ssl=self.config.ssl)
            else:
                connection.close()
        except (OSError, TimeoutError):  # it has gone, is too slow, or speaks no TLS
            connection.close()
        except BaseException:
            connection.close()
            raise

    async def _part(self, connection: socket.socket) -> None:
        """Hand it on, as soon as it is taken."""
        while True:
            try:
                self._hand_on(connection)
            except BlockingIOError:
                await asyncio.sleep(_SOON)
            else:
                connection.close()
                return

    def _conversation(self) -> asyncio.Protocol:
        return _Protocol(self.config, self.server_state, self.lifespan.state)


async def _hello(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    """The first message of a client, as far as it is one record of TLS, or what came in its place; it stays unread.
    Nothing where nothing comes."""
    wanted = 1
    while True:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)  # what is there already wakes nobody
        await _readable(loop, connection)
        data = connection.recv(_HELLO, socket.MSG_PEEK)
        more = min(_HELLO, _RECORD + int.from_bytes(data[3:_RECORD], "big") if len(data) >= _RECORD else _RECORD)
        if len(data) >= more or len(data) < wanted:  # all, or it has ended
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            return data
        wanted = more


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    event = asyncio.Event()
    loop.add_reader(connection, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(connection)
