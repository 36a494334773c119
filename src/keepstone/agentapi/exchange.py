# SPDX-License-Identifier: Apache-2.0
"""Requests and answers of one connection, one after the other, in the connection's own thread: HTTP/1.1 (RFC 9112), as
far as an agent that transfers data speaks it.

A request is a POST with a Content-Length. Its body is read straight to where it is wanted, and an answer is sent from
where it lies: neither is any larger in memory than whoever reads or sends makes it.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

from keepstone.errors import InvalidRequest

__all__ = ["MOMENT", "Connection", "Exchange", "Hangup", "Head"]

MOMENT = 0.25
"""Seconds without a byte after which `some` comes back without one."""
_IDLE = 75.0  # seconds that a connection stays open without a request
_HEAD = 16 << 10  # bytes
_HEAD_SECONDS = 10.0
_PATIENCE = 120.0  # seconds that a client may take for a small body, or to take what is sent at once
_DRAIN = 10.0  # seconds for what a client sends on after it was refused: it would not read why otherwise


class Hangup(Exception):
    """The connection is broken, or its client takes nothing any more."""


class Head(NamedTuple):
    """What is asked: `path` without the question mark, and what is behind it."""

    path: str
    query: dict[str, str]


class Connection(Protocol):
    """What a client is at the other end of: `remote.tls.TlsConnection`, which says what each does."""

    @property
    def is_there(self) -> bool: ...

    def settimeout(self, seconds: float | None, /) -> None: ...

    def recv_into(self, view: memoryview, /) -> int: ...

    def write(self, data: bytes | memoryview, /) -> None: ...

    def flush(self) -> None: ...


class Exchange:
    """Of one connection, which its user closes. Everything raises `Hangup` where that is broken."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ahead = b""
        self._left = 0  # bytes of the body that were not read
        self._begun = False

    def next(self) -> Head | None:
        """The next request; None at the end. `InvalidRequest` for what is none: nothing can follow that."""
        head, end = bytearray(self._ahead), -1
        self._ahead, self._begun = b"", False
        part = memoryview(bytearray(_HEAD))
        until = None
        while (end := head.find(b"\r\n\r\n")) < 0:
            if len(head) > _HEAD:
                raise InvalidRequest("the head of the request is too long")
            self._connection.settimeout(_IDLE if until is None else max(0.001, until - time.monotonic()))
            try:
                count = self._connection.recv_into(part)
            except OSError as error:
                raise Hangup("no request comes") from error
            if not count:
                return None
            until = until or time.monotonic() + _HEAD_SECONDS
            head += part[:count]
        self._ahead = bytes(head[end + 4 :])
        return self._parsed(bytes(head[: end + 2]))

    def _parsed(self, head: bytes) -> Head:
        line, _, rest = head.partition(b"\r\n")
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or words[0] != "POST" or words[2] != "HTTP/1.1":
            raise InvalidRequest("only POST requests of HTTP/1.1 are answered here")
        try:
            headers = http.client.parse_headers(io.BytesIO(rest + b"\r\n"))
        except http.client.HTTPException as error:
            raise InvalidRequest("the head of the request is none") from error
        lengths = headers.get_all("content-length") or []
        if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit() or len(lengths[0]) > 15:
            raise InvalidRequest("a request needs its Content-Length")
        if "transfer-encoding" in headers:
            raise InvalidRequest("a request's body cannot come in chunks")
        self._left = int(lengths[0])
        target = urlsplit(words[1])
        return Head(target.path, dict(parse_qsl(target.query)))

    @property
    def left(self) -> int:
        """How many bytes of the body have not been read yet."""
        return self._left

    def some(self, view: memoryview) -> int:
        """Read as much of the body as there is into `view`; how many bytes, 0 where nothing comes for a `MOMENT`."""
        wanted = min(len(view), self._left)
        if self._ahead:
            count = min(wanted, len(self._ahead))
            view[:count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
        else:
            self._connection.settimeout(MOMENT)
            try:
                count = self._connection.recv_into(view[:wanted])
            except TimeoutError:
                return 0
            except OSError as error:
                raise Hangup("the client is gone in the middle of a request") from error
            if not count:
                raise Hangup("the client has ended in the middle of a request")
        self._left -= count
        return count

    def body(self, largest: int) -> memoryview:
        """The whole body. `InvalidRequest` for one that is too large, `TimeoutError` where it does not come."""
        if self._left > largest:
            error = InvalidRequest(f"a request may have {largest} bytes; send less at a time")
            error.status = 413
            raise error
        view = memoryview(bytearray(self._left))
        at = 0
        until = time.monotonic() + _PATIENCE
        while at < len(view):
            at += self.some(view[at:])
            if time.monotonic() > until:
                raise TimeoutError
        return view

    def listens(self) -> bool:
        """Whether the client is still there, as far as one can see without a question."""
        return self._connection.is_there

    def answer(self, status: int, body: bytes) -> None:
        """The whole answer."""
        self._send(_head(status, f"content-length: {len(body)}") + body)

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """An answer of unknown length begins with its first `piece`, and ends here."""
        yield
        if self._begun:
            self._send(b"0\r\n\r\n")
        else:
            self.answer(200, b"")

    @property
    def has_begun(self) -> bool:
        """Whether something of a `stream` was sent for this request: no other answer to it can follow then."""
        return self._begun

    def piece(self, data: memoryview) -> None:
        """A piece of a `stream`; it goes once there is enough to send, or at the end."""
        head = b"" if self._begun else _head(200, "transfer-encoding: chunked")
        self._begun = True
        self._write(head + b"%x\r\n" % len(data), data, b"\r\n")

    def drain(self) -> bool:
        """Read what is left of the body to nowhere; whether the next request can be read."""
        nowhere = memoryview(bytearray(1 << 16))
        until = time.monotonic() + _DRAIN
        while self._left and time.monotonic() < until:
            self.some(nowhere)
        return not self._left

    def _send(self, data: bytes) -> None:
        self._write(data, now=True)

    def _write(self, *parts: bytes | memoryview, now: bool = False) -> None:
        try:
            self._connection.settimeout(_PATIENCE)
            for part in parts:
                self._connection.write(part)
            if now:
                self._connection.flush()
        except OSError as error:
            raise Hangup("the client takes no answer") from error


def _head(status: int, length: str) -> bytes:
    words = http.client.responses.get(status, "")
    kind = "content-type: application/msgpack\r\ncache-control: no-store"
    return f"HTTP/1.1 {status} {words}\r\n{kind}\r\n{length}\r\n\r\n".encode("latin-1")
