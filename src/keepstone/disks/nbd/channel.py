# SPDX-License-Identifier: Apache-2.0
"""A connected socket that gives and takes whole messages, plain or by TLS.

Several threads may send, each message in one piece, while another one receives. Whatever ends the conversation is an
`OSError`: `TimeoutError` where the other side stopped, `ConnectionError` where it is gone, `ssl.SSLError`.

Time limits are the kernel's (SO_RCVTIMEO, SO_SNDTIMEO), so that a megabyte is taken by one call (MSG_WAITALL) straight
into the caller's memory. TLS goes through memory (`ssl.MemoryBIO`): one thread may wait for bytes while others send.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterable, Iterator

from keepstone.env import Env
from keepstone.objects import Buffer

__all__ = ["Channel"]

_RECORDS = 256 << 10  # bytes that are taken from the network, or sealed, at once


class Channel:
    """`patience`: seconds in which one message has to come or go; None for ever."""

    def __init__(self, env: Env, sock: socket.socket, patience: float | None) -> None:
        self._env = env
        self._socket = sock
        self._sending = threading.Lock()
        self._state = threading.Lock()  # of the TLS object, which is not safe for several threads
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._patience: float | None = -1.0
        self._send_patience: float | None = -1.0
        sock.settimeout(None)
        self.wait(patience)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def wait(self, receive: float | None, send: float | None = None) -> None:
        """Be so patient from now on, in seconds; `send`: the same in sending, where it is another."""
        send = receive if send is None else send
        if receive != self._patience:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(receive))
        if send != self._send_patience:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send))
        self._patience, self._send_patience = receive, send

    def receive(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = bytearray(count)
        self.receive_into(memoryview(data))
        return bytes(data)

    def receive_into(self, view: memoryview) -> None:
        """Fill all of `view`."""
        begun = self._env.boot_time() if self._patience is not None else 0
        done, whole = 0, len(view)
        while done < whole:
            count = self._take(view[done:])
            done += count
            if self._patience is not None and done < whole and self._env.boot_time() - begun > self._patience * 1e9:
                raise TimeoutError("the other side takes too long")

    def _take(self, view: memoryview) -> int:
        if self._tls is not None:
            return self._unseal(view)
        try:
            count = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
        except BlockingIOError as error:
            raise TimeoutError("the other side does not answer") from error
        if not count:
            raise ConnectionResetError("the other side closed the connection")
        return count

    def _unseal(self, view: memoryview) -> int:
        assert self._tls is not None
        with self._state, contextlib.suppress(ssl.SSLWantReadError):
            count = int(self._tls.read(len(view), view))
            if not count:
                raise ConnectionResetError("the other side closed the connection")
            return count
        self._fill()
        return 0

    def _fill(self) -> None:
        """Wait for bytes of TLS."""
        try:
            data = self._socket.recv(_RECORDS)
        except BlockingIOError as error:
            raise TimeoutError("the other side does not answer") from error
        if not data:
            raise ConnectionResetError("the other side closed the connection")
        with self._state:
            self._incoming.write(data)

    def send(self, *parts: Buffer) -> None:
        """All of these bytes, as one message."""
        with self._sending:
            self.send_within(parts)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else sends meanwhile; use `send_within`."""
        with self._sending:
            yield

    def send_within(self, parts: Iterable[Buffer]) -> None:
        """As `send`, for whoever is `alone`."""
        views = [memoryview(part).cast("B") for part in parts]
        try:
            if self._tls is None:
                self._send(views)
            else:
                for view in views:
                    for at in range(0, len(view), _RECORDS):
                        with self._state:
                            self._tls.write(view[at : at + _RECORDS])
                        self._flush()
        except BlockingIOError as error:
            raise TimeoutError("the other side takes nothing") from error

    def _send(self, views: list[memoryview]) -> None:
        while views:
            count = self._socket.sendmsg(views)
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if views:
                views[0] = views[0][count:]

    def _flush(self) -> None:
        with self._state:
            data = self._outgoing.read()
        if data:
            self._socket.sendall(data)

    def secure(self, context: ssl.SSLContext, *, server: bool, hostname: str | None = None) -> None:
        """Go on by TLS."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=hostname)
        begun = self._env.boot_time()
        try:
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    self._flush()
                    self._fill()
                    if self._patience is not None and self._env.boot_time() - begun > self._patience * 1e9:
                        raise TimeoutError("the other side takes too long") from None
                else:
                    break
        finally:
            with contextlib.suppress(OSError):
                self._flush()  # the last message of the handshake, or what is wrong with it
        self._tls = tls

    def interrupt(self) -> None:
        """Nothing comes or goes any more; whoever waits is told."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; nobody may use it any more. Harmless when repeated."""
        self.interrupt()
        self._socket.close()


def _timeval(seconds: float | None) -> bytes:
    microseconds = max(1, int(seconds * 1e6)) if seconds is not None else 0  # 0 is for ever
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))
