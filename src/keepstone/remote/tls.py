# SPDX-License-Identifier: Apache-2.0
"""A TLS connection that moves much data: it reads and writes the wire in large pieces.

Python's own `SSLSocket` has OpenSSL read the wire record by record, of 16 KiB at most (RFC 8446 5.1): two system calls
and a way through several functions of Python for each. Here OpenSSL works in memory (`ssl.MemoryBIO`): the wire is read
by up to a quarter of a megabyte, and everything that is complete in it is handed out at once.

For one thread at a time, but for `shutdown`. No call waits for longer than was said, however the other side divides
what it sends: a byte now and then holds nobody.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["TlsConnection"]

_PIECE = 256 << 10  # bytes that wait to be sent together


class TlsConnection:
    """TLS over a connected socket, which is this object's from now on; `greet` is to come first. `wire`: bytes that are
    read at once. Everything raises `OSError`: `ssl.SSLError` for what TLS does not allow, `TimeoutError` where nothing
    comes or goes for as long as `settimeout` says."""

    def __init__(
        self,
        plain: socket.socket,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        wire: int = _PIECE,
    ) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._wire = memoryview(bytearray(wire))
        self._seconds: float | None = None
        self._files = 0
        self._closed = False

    def greet(self, seconds: float) -> None:
        """The handshake, within so many seconds. `ssl.SSLCertVerificationError` where the other is not to be
        trusted."""
        self.settimeout(seconds)
        until = time.monotonic() + seconds
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._more(until)
            except OSError:
                with contextlib.suppress(OSError):
                    self.flush()  # says why
                raise
            else:
                self.flush()
                return

    @property
    def certificate(self) -> bytes | None:
        """Of the other side, in DER, where it showed one that is trusted."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def is_there(self) -> bool:
        """Whether the other side has neither ended nor broken the connection, as far as it is known here."""
        self._plain.settimeout(0)
        try:
            return bool(self._plain.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._plain.settimeout(self._seconds)

    def settimeout(self, seconds: float | None) -> None:
        """How long each of the others waits; None: for ever."""
        self._seconds = seconds
        self._plain.settimeout(seconds)

    def recv_into(self, view: memoryview) -> int:
        """Read what is there, at least a byte; how many bytes, 0 at the end."""
        count = 0
        until: float | None = None
        while count < len(view):
            try:
                part = self._read(view[count:])
            except ssl.SSLWantReadError:
                if count:
                    break
                self.flush()  # TLS may have to answer something itself
                if self._seconds is not None:
                    until = until or time.monotonic() + self._seconds
                self._more(until)
                continue
            except ssl.SSLEOFError:  # without a farewell, which HTTP does without: it knows where a message ends
                break
            if not part:
                break
            count += part
        return count

    def write(self, data: bytes | memoryview) -> None:
        """Send this, once there is enough to send or at the next `flush`."""
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _PIECE):
            self._tls.write(view[at : at + _PIECE])
            if self._outgoing.pending >= _PIECE:
                self.flush()

    def flush(self) -> None:
        """Send what waits."""
        while self._outgoing.pending:
            self._plain.settimeout(self._seconds)
            self._plain.sendall(self._outgoing.read())

    def sendall(self, data: bytes | memoryview) -> None:
        """Send this now."""
        self.write(data)
        self.flush()

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """To read from; the connection stays open until that is closed as well."""
        if mode != "rb":
            raise ValueError(mode)
        self._files += 1
        return io.BufferedReader(_File(self))

    def shutdown(self) -> None:
        """No more is read or sent, and whoever waits for it hears so; any thread may call this."""
        self._plain.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it, once nobody reads it as a file."""
        self._closed = True
        if not self._files:
            self._plain.close()

    def _read(self, view: memoryview) -> int:
        return self._tls.read(len(view), view)  # type: ignore[return-value]  # the stubs know it without a buffer

    def _more(self, until: float | None) -> None:
        """Read the wire, until that moment (`time.monotonic`) at the latest."""
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        self._plain.settimeout(left)
        count = self._plain.recv_into(self._wire)
        if count:
            self._incoming.write(self._wire[:count])
        else:
            self._incoming.write_eof()

    def _let_go(self) -> None:
        self._files -= 1
        if self._closed and not self._files:
            self._plain.close()


class _File(io.RawIOBase):
    def __init__(self, connection: TlsConnection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._connection.recv_into(memoryview(buffer).cast("B"))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._connection._let_go()
