# SPDX-License-Identifier: Apache-2.0
"""Serves disks to NBD clients: one thread for each connection, and workers of its own that answer it.

A client that is slow, silent or hostile costs its own connection and nothing else. On a unix socket the file's
permissions say who may come (its owner); elsewhere certificates do, where there is TLS.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from keepstone.disks.nbd.address import Address
from keepstone.disks.nbd.channel import Channel
from keepstone.disks.nbd.export import Export
from keepstone.disks.nbd.negotiation import Negotiation
from keepstone.disks.nbd.overlay import Overlay
from keepstone.disks.nbd.session import PIECE, Session
from keepstone.disks.nbd.violation import Violation
from keepstone.disks.port import BlockSource
from keepstone.env import Env
from keepstone.errors import AccessDenied, TargetExists, UsageError
from keepstone.objects import BufferPool

__all__ = ["NbdServer"]

_BUFFERS = 16  # that are kept
_HANDSHAKE = 10.0  # seconds for each message until an export is chosen


class NbdServer:
    """Serves `exports` (disks by name; a single one also without) at `address` from now on, until `close`.

    `overlay`: a folder for what clients write, which is gone with the server; without it nothing can be written.
    `tls`: nothing is served without it. At most `connections` at once; further ones are hung up.
    `TargetExists` where there is something at the socket's path, `UsageError` where the address cannot be had.
    """

    def __init__(
        self,
        env: Env,
        exports: Mapping[str, BlockSource],
        address: str | Path | Address,
        *,
        overlay: Path | None = None,
        tls: ssl.SSLContext | None = None,
        connections: int = 32,
    ) -> None:
        self._env = env
        self._tls = tls
        self._buffers = BufferPool(PIECE, _BUFFERS)
        self._limit = connections
        self._channels: dict[Channel, threading.Thread] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        place = address if isinstance(address, Address) else Address.of(address)
        with contextlib.ExitStack() as stack:
            overlays: dict[str, Overlay] = {}
            if overlay is not None:
                for name, source in exports.items():
                    overlays[name] = stack.enter_context(contextlib.closing(Overlay(env, source, overlay)))
            self._exports = {name: Export(name, source, overlays.get(name)) for name, source in exports.items()}
            self._listener, self.address = self._listening(place)
            self._resources = stack.pop_all()
        self._thread = threading.Thread(target=self._accept, name="nbd-listen", daemon=True)
        self._thread.start()

    def __enter__(self) -> NbdServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def wait(self) -> None:
        """Until it is closed."""
        self._ended.wait()

    @property
    def clients(self) -> int:
        """Connections that there are."""
        with self._lock:
            return len(self._channels)

    def close(self) -> None:
        """Hang up on everybody, and let go of the address; harmless when repeated."""
        if self._ended.is_set():
            return
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait for clients
        self._thread.join()
        self._listener.close()
        if self.address.socket is not None:
            with contextlib.suppress(OSError):
                self._env.fs.unlink(self.address.socket)
        with self._lock:
            there = dict(self._channels)
        for channel in there:
            channel.interrupt()
        for thread in there.values():
            thread.join()
        self._resources.close()

    def _listening(self, address: Address) -> tuple[socket.socket, Address]:
        try:
            if address.socket is not None:
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    listener.bind(address.socket)
                    self._env.fs.chmod(address.socket, 0o600)  # before anybody can connect
                    listener.listen()
                except BaseException:
                    listener.close()
                    raise
                return listener, address
            family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((address.host, address.port), family=family)
            return listener, replace(address, port=listener.getsockname()[1])
        except OSError as error:
            if address.socket is not None and self._there(address.socket):
                raise TargetExists(
                    f"{address.socket}: there is something already; remove it if nobody uses it, or take another path"
                ) from error
            kind = AccessDenied if isinstance(error, PermissionError) else UsageError
            raise kind(
                f"{address}: nobody can listen there: {error.strerror or error}; take another address"
            ) from error

    def _there(self, path: str) -> bool:
        try:
            self._env.fs.lstat(path)
        except OSError:
            return False
        return True

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                if not self._ended.is_set():
                    self._env.sleep(0.1)  # such as too many files open
                continue
            with self._lock:
                full = len(self._channels) >= self._limit
            if full or self._ended.is_set():
                sock.close()
                continue
            try:
                channel = Channel(self._env, sock, _HANDSHAKE)
            except OSError:
                sock.close()
                continue
            thread = threading.Thread(target=self._serve, args=(channel,), name="nbd-client", daemon=True)
            with self._lock:
                self._channels[channel] = thread
            try:
                thread.start()
            except RuntimeError:  # no thread to be had
                self._drop(channel)

    def _serve(self, channel: Channel) -> None:
        try:
            agreed = Negotiation(self._env, channel, self._exports, self._tls).run()
            if agreed is not None:
                Session(self._env, channel, agreed, self._buffers).run()
        except (OSError, Violation):
            pass  # the client's own affair: it is hung up
        finally:
            self._drop(channel)

    def _drop(self, channel: Channel) -> None:
        channel.close()
        with self._lock:
            self._channels.pop(channel, None)
