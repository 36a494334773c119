# SPDX-License-Identifier: Apache-2.0
"""The calls of an agent through HTTPS: one service, one authority, one client certificate.

Whatever goes wrong on the way is tried again until the patience is over: every call may be repeated (`agentapi`). What
the service refuses is not. Each thread has a connection of its own, which stays open.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.env import Env
from keepstone.errors import AccessDenied, ServiceUnavailable, told
from keepstone.remote.tls import TlsConnection
from keepstone.remote.wire import PREFIX

__all__ = ["PATIENCE", "Broken", "Calls", "Throttle"]

PATIENCE = 900.0
"""Seconds for which a service that is away is waited for, where nobody says otherwise."""
_SOCKET = 90.0  # seconds: longer than the service lets anybody wait
_FIRST, _LONGEST = 0.5, 30.0  # seconds between two tries
_AGAIN = (408, 425, 429, 502, 503, 504)
_FAULTS = ("", "InternalServerError")  # other errors of status 500 are no fault, and come again
_READ = 1 << 20  # bytes of an error

T = TypeVar("T")


class Throttle(Protocol):
    """How fast bytes may leave."""

    def paced(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """The same in portions, each when it may go."""


class Broken(Exception):
    """The connection was lost, or the service is not there for now."""


class Calls:
    """`context`: asked for each new connection, so that a new certificate is used once it is there. `patience`: how
    many seconds to try for; one try takes no longer than that, or `_SOCKET` where it is none. `check` is called between
    tries, and may raise."""

    def __init__(
        self,
        env: Env,
        url: str,
        context: Callable[[], ssl.SSLContext],
        *,
        patience: float = PATIENCE,
        check: Callable[[], None] = lambda: None,
        throttle: Throttle | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._env = env
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._url = url
        self._context = context
        self._patience = patience
        self._silence = min(_SOCKET, patience or _SOCKET)  # seconds without a byte
        self._check = check
        self._throttle = throttle
        self._local = threading.local()
        self._all: list[_Connection] = []
        self._closed = False

    def post(self, path: str, body: bytes) -> bytes:
        """The answer, however often it has to be asked for. What the service refuses is raised as what it is;
        `ServiceUnavailable` when the patience is over."""
        return self.persist(lambda: self.once(path, [body]))

    def persist(self, call: Callable[[], T], done: Callable[[], int] = lambda: 0) -> T:
        """Try until it works, or the patience is over. `done`: how far it is; with each step patience is as before."""
        until = self._env.boot_time() + int(self._patience * 1e9)
        pause, before = _FIRST, done()
        while True:
            try:
                return call()
            except Broken as error:
                self._check()
                if (now := done()) != before:
                    until = self._env.boot_time() + int(self._patience * 1e9)
                    pause, before = _FIRST, now
                if self._env.boot_time() + pause * 1e9 > until:
                    raise ServiceUnavailable(f"{self._url} does not answer ({error}); its log may say why") from error
                self._env.sleep(pause)
                pause = min(_LONGEST, 2 * pause)

    def once(self, path: str, pieces: Sequence[bytes], *, large: bool = False) -> bytes:
        """One try. `Broken` where another one may do better. `large`: what was sent is not to be sent again before
        somebody has asked how much of it came."""
        return self._try(path, pieces, _whole, large=large)

    def stream(self, path: str, body: bytes, take: Callable[[http.client.HTTPResponse], None]) -> None:
        """One try of a call whose answer is read by `take`. `Broken`."""

        def read(response: http.client.HTTPResponse) -> bytes:
            take(response)
            return b""

        self._try(path, [body], read)

    def close(self) -> None:
        """Let go of all connections; who uses one finds it broken, and lets go of it. A signal's handler may call it:
        there is no lock. Whoever begins says so first and looks whether it is closed then, and here it is the other way
        round: one of them sees the other."""
        self._closed = True
        for connection in list(self._all):
            if connection.busy:
                connection.hang_up()
            else:
                connection.close()
        self._all.clear()

    def _try(
        self,
        path: str,
        pieces: Sequence[bytes],
        read: Callable[[http.client.HTTPResponse], bytes],
        *,
        large: bool = False,
    ) -> bytes:
        connection = self._connection()
        connection.busy = True
        reused = connection.sock is not None
        try:
            self._check_open()
            try:
                response = self._send(connection, path, pieces)
            except (OSError, http.client.HTTPException):
                if not reused or large or self._closed:
                    raise
                connection.close()  # the service closes what was idle for long
                response = self._send(connection, path, pieces)
            if response.status == 200:
                return read(response)
            body = response.read(_READ)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise _untrusted(self._url, error) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Broken(f"{type(error).__name__}: {error}") from error
        except BaseException:
            connection.close()
            raise
        finally:
            connection.busy = False
            if self._closed:
                connection.close()
        raise _refused(response.status, body)

    def _check_open(self) -> None:
        """`Broken` where it was closed."""
        if self._closed:
            raise Broken("it was closed here")

    def _send(self, connection: _Connection, path: str, pieces: Sequence[bytes]) -> http.client.HTTPResponse:
        if connection.sock is None:
            connection.connect()
            self._check_open()  # while it was not there yet, nobody could hang up
        connection.putrequest("POST", PREFIX + path, skip_accept_encoding=True)
        connection.putheader("Content-Length", str(sum(map(len, pieces))))
        connection.endheaders()
        for piece in pieces:
            if self._throttle is None:
                connection.put(piece)
            else:
                for portion in self._throttle.paced(piece):
                    connection.send(portion)
        connection.put(b"", now=True)
        response = connection.getresponse()
        if response.length is None and not response.chunked:  # it was cut off before that line, which is no error there
            raise http.client.IncompleteRead(b"")
        return response

    def _connection(self) -> _Connection:
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection not in self._all:
            connection = _Connection(self._host, self._port, self._silence, self._context())
            self._local.connection = connection
            self._all.append(connection)
        return connection


class _Connection(http.client.HTTPConnection):
    """HTTP over a `TlsConnection`, which is `tls` once there is one. `busy`: a thread is using it."""

    default_port = http.client.HTTPS_PORT
    auto_open = 0  # a connection that was closed is not opened again in the middle of a call

    def __init__(self, host: str, port: int, silence: float, context: ssl.SSLContext) -> None:
        super().__init__(host, port, silence)
        self._silence = silence
        self._context = context
        self.tls: TlsConnection | None = None
        self.busy = False

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self._silence)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = TlsConnection(plain, self._context, server_hostname=self.host)
            tls.greet(self._silence)
            tls.settimeout(self._silence)
        except BaseException:
            plain.close()
            raise
        self.tls = self.sock = tls

    def hang_up(self) -> None:
        """Whoever uses it finds that it has ended; any thread may call this."""
        if self.tls is not None:
            with contextlib.suppress(OSError):
                self.tls.shutdown()

    def put(self, data: bytes, *, now: bool = False) -> None:
        """A part of a body, which need not go before the next."""
        assert self.tls is not None
        self.tls.write(data)
        if now:
            self.tls.flush()


def _whole(response: http.client.HTTPResponse) -> bytes:
    return response.read()


def _untrusted(url: str, error: ssl.SSLCertVerificationError) -> AccessDenied:
    words = {9: "it is not valid yet", 10: "it is over"}  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED
    reason = words.get(error.verify_code, error.verify_message)
    hint = "; the clock of this machine may be wrong" if error.verify_code in words else ""
    return AccessDenied(f"the certificate of {url} is not to be trusted: {reason}{hint}")


def _refused(status: int, body: bytes) -> Exception:
    """What the service said, as what it is there."""
    try:
        said = from_msgpack(dict[str, str]).decode(body)
    except msgspec.MsgspecError:
        said = {}
    code, message = said.get("code", ""), said.get("message", f"the service answered {status}")
    if status in _AGAIN or (status == 500 and code in _FAULTS):
        return Broken(message)
    return told(code, message, status)
