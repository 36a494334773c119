# SPDX-License-Identifier: Apache-2.0
"""One connection to an NBD server, of one thread at a time: agreed upon, then read and written by many requests under
way at once.

Nothing that a server says is believed before it is checked: lengths before memory is taken, places against what was
asked for, handles against what is under way. What breaks the protocol breaks the connection.

Source: doc/proto.md of https://github.com/NetworkBlockDevice/nbd; its sections are named in `protocol.py`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from keepstone.disks.nbd.address import Address
from keepstone.disks.nbd.agreement import Agreement, agree
from keepstone.disks.nbd.channel import Channel
from keepstone.disks.nbd.protocol import (
    COMMAND,
    DATA_HEAD,
    DESCRIPTOR,
    HOLE_HEAD,
    LENGTH,
    LONGEST_TEXT,
    REQUEST_MAGIC,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Chunk,
    Command,
    Failure,
)
from keepstone.disks.nbd.violation import Violation
from keepstone.env import Env
from keepstone.errors import AccessDenied, SourceFailed, SourceMissing, StorageError, StorageFull

__all__ = ["Connection"]

PIECE = 512 << 10
"""Bytes of one request at most: with larger ones the server rests while they travel, with smaller ones calls cost."""
_DEPTH = 16  # requests under way
_LONGEST_ZEROS = 32 << 20  # bytes of one request for zeros, which some servers write one by one
_PARTS = 1 << 16  # in which one reply may come
_LONGEST_STATUS = 16 << 20  # bytes of what is said of extents
_ZEROS = memoryview(bytes(PIECE))
_HEAD = SIMPLE_REPLY.size  # as long as a structured reply's up to its length
_FLAG_DONE = 1
_CHANGES = {Command.WRITE, Command.WRITE_ZEROES, Command.FLUSH}


@dataclass(slots=True)
class _Request:
    """What is under way; `view` is filled by a read, `runs` by a question for block status, `data` goes with a write.

    `failed`: why it did; `full`: for want of room.
    """

    command: Command
    offset: int
    length: int
    data: memoryview | None = None
    view: memoryview | None = None
    parts: list[tuple[int, int]] = field(default_factory=list)
    runs: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    failed: str | None = None
    full: bool = False

    def fail(self, code: int, text: str = "") -> None:
        """Note what the server says of it first."""
        if self.failed is None:
            self.failed = f"{_meaning(code)} ({text})" if text else _meaning(code)
            self.full = code == Failure.ENOSPC

    def place(self, offset: int, count: int) -> memoryview:
        """Where these bytes go. `Violation` where they were not asked for."""
        if self.view is None:
            raise Violation("it sent data that nobody asked for")
        if count <= 0 or offset < self.offset or offset + count > self.offset + self.length:
            raise Violation("it sent data outside of what was asked for")
        if len(self.parts) >= _PARTS:
            raise Violation("it sent one reply in too many parts")
        begin = offset - self.offset
        self.parts.append((begin, begin + count))
        return self.view[begin : begin + count]

    def complete(self) -> None:
        """`Violation` where a part of the data is missing or came twice."""
        if self.failed is not None or self.view is None:
            return
        at = 0
        for begin, end in sorted(self.parts):
            if begin != at:
                raise Violation("it left out a part of the data, or sent it twice")
            at = end
        if at != self.length:
            raise Violation("it left out a part of the data")


class Connection:
    """`agreed` says what the server offers.

    `SourceMissing` where no server answers or it has no such export, `AccessDenied` where it is one of TLS that failed
    or was not offered, `SourceFailed` for all else, here and from every function. After a failure the connection may
    be `lost`.
    """

    def __init__(
        self, env: Env, address: Address, contexts: Sequence[str], tls: ssl.SSLContext | None, patience: float
    ) -> None:
        self.address = address
        self.lost = True
        self._cookie = 0
        self._channel = _connected(env, address, patience)
        try:
            with self._failures():
                self.agreed: Agreement = agree(self._channel, address, contexts, tls)
        except BaseException:
            self._channel.close()
            raise
        self.lost = False

    def close(self) -> None:
        """Say goodbye; harmless when repeated."""
        if not self.lost:
            self.lost = True
            with contextlib.suppress(OSError):
                self._channel.send(COMMAND.pack(REQUEST_MAGIC, 0, Command.DISC, 0, 0, 0))
        self._channel.close()

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` from `offset`; both of its ends are on the server's blocks."""
        step = self._step(PIECE)
        failed = self._all(
            _Request(Command.READ, offset + at, min(step, len(view) - at), view=view[at : at + step])
            for at in range(0, len(view), step)
        )
        if failed is not None:
            raise SourceFailed(
                f"{self.address}: bytes {offset} to {offset + len(view)} cannot be read: {failed.failed}; see the "
                "server's log"
            )

    def write_from(self, view: memoryview, offset: int) -> None:
        """Put `view` at `offset`; both of its ends are on the server's blocks. `StorageFull`, `StorageError` where the
        server says no; then any part of it may be there."""
        step = self._step(PIECE)
        failed = self._all(
            _Request(Command.WRITE, offset + at, min(step, len(view) - at), data=view[at : at + step])
            for at in range(0, len(view), step)
        )
        self._written(failed, offset, len(view))

    def zero(self, offset: int, length: int) -> None:
        """Make this range, whose ends are on the server's blocks, zeros; as holes where it likes. As `write_from`."""
        if not self.agreed.zeroes:
            for at in range(0, length, len(_ZEROS)):
                self.write_from(_ZEROS[: length - at], offset + at)
            return
        step = self._step(_LONGEST_ZEROS)
        failed = self._all(
            _Request(Command.WRITE_ZEROES, offset + at, min(step, length - at)) for at in range(0, length, step)
        )
        self._written(failed, offset, length)

    def flush(self) -> None:
        """What was written until now is durable on return, as far as the server can say. `StorageError`."""
        if self.agreed.flushes:
            self._written(self._all(iter([_Request(Command.FLUSH, 0, 0)])), 0, self.agreed.size)

    def _step(self, most: int) -> int:
        """Bytes of one request."""
        return min(most, self.agreed.largest) // self.agreed.smallest * self.agreed.smallest

    def _written(self, failed: _Request | None, offset: int, length: int) -> None:
        if failed is not None:
            kind = StorageFull if failed.full else StorageError
            raise kind(
                f"{self.address}: bytes {offset} to {offset + length} cannot be written: {failed.failed}; see the "
                "server's log"
            )

    def _all(self, requests: Iterator[_Request]) -> _Request | None:
        """Have these answered, many at once; the first that failed, after which no further one is sent."""
        failed: _Request | None = None
        under_way: dict[int, _Request] = {}
        with self._failures():
            while True:
                batch: list[bytes | memoryview] = []
                while len(under_way) < _DEPTH and failed is None and (request := next(requests, None)) is not None:
                    batch.append(self._asked(request, under_way))
                    if request.data is not None:
                        batch.append(request.data)
                if batch:
                    self._channel.send(*batch)
                if not under_way:
                    return failed
                done = self._message(under_way)
                if failed is None and done is not None and done.failed is not None:
                    failed = done

    def block_status(self, offset: int, length: int) -> dict[str, list[tuple[int, int]]]:
        """(length, flags) of the extents from `offset` on, by the name of each context; at least one of each.

        They may end before what was asked for, or behind it.
        """
        under_way: dict[int, _Request] = {}
        request = _Request(Command.BLOCK_STATUS, offset, length)
        with self._failures():
            self._channel.send(self._asked(request, under_way))
            while under_way:
                self._message(under_way)
            if request.failed is None and set(request.runs) != set(self.agreed.contexts):
                raise Violation("it did not say what was asked of its extents")
        if request.failed is not None:
            raise SourceFailed(
                f"{self.address}: it cannot be told where data is from byte {offset} on: {request.failed}"
                "; see the server's log"
            )
        return {self.agreed.contexts[number]: runs for number, runs in request.runs.items()}

    def _asked(self, request: _Request, under_way: dict[int, _Request]) -> bytes:
        self._cookie += 1
        under_way[self._cookie] = request
        return COMMAND.pack(REQUEST_MAGIC, 0, request.command, self._cookie, request.offset, request.length)

    def _message(self, under_way: dict[int, _Request]) -> _Request | None:
        """Take one message of the server; the request that is over by it."""
        head = self._channel.receive(_HEAD)
        magic, code, cookie = SIMPLE_REPLY.unpack(head)
        request = under_way.get(cookie)
        if request is None or magic not in (SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC):
            raise Violation("it answered what nobody asked")
        if magic == SIMPLE_REPLY_MAGIC:
            self._simple(request, code)
            over = True
        else:
            if not self.agreed.structured:
                raise Violation("it sent a structured reply, which was not agreed upon")
            self._chunk(request, code & 0xFFFF)
            over = bool(code >> 16 & _FLAG_DONE)
        if not over:
            return None
        del under_way[cookie]
        request.complete()
        return request

    def _simple(self, request: _Request, error: int) -> None:
        if error:
            request.fail(error)
        elif request.command in _CHANGES:
            return
        elif request.view is None or self.agreed.structured:
            raise Violation("it sent a simple reply where a structured one was agreed upon")
        else:
            self._channel.receive_into(request.place(request.offset, request.length))

    def _chunk(self, request: _Request, kind: int) -> None:
        if kind == Chunk.OFFSET_DATA:
            length, offset = DATA_HEAD.unpack(self._channel.receive(DATA_HEAD.size))
            self._channel.receive_into(request.place(offset, length - 8))
        elif kind == Chunk.OFFSET_HOLE:
            length, offset, count = HOLE_HEAD.unpack(self._channel.receive(HOLE_HEAD.size))
            if length != HOLE_HEAD.size - LENGTH.size:
                raise Violation("it sent a hole of another form")
            place = request.place(offset, count)
            place[:] = _ZEROS[: len(place)]
        else:
            (length,) = LENGTH.unpack(self._channel.receive(LENGTH.size))
            if kind == Chunk.BLOCK_STATUS:
                self._status(request, length)
            elif kind >> 15:
                request.fail(*self._error(length))
            elif kind != Chunk.NONE or length:
                raise Violation(f"it sent a part of a reply that nobody knows ({kind})")

    def _status(self, request: _Request, length: int) -> None:
        if request.command != Command.BLOCK_STATUS or length % DESCRIPTOR.size != LENGTH.size or length == LENGTH.size:
            raise Violation("it said of its extents what nobody asked, or in another form")
        if length > _LONGEST_STATUS:
            raise Violation("it says too much of its extents at once")
        payload = self._channel.receive(length)
        (context,) = LENGTH.unpack_from(payload)
        if context not in self.agreed.contexts or context in request.runs:
            raise Violation("it said of its extents what nobody asked, or twice")
        runs = list(DESCRIPTOR.iter_unpack(payload[LENGTH.size :]))
        if any(not count for count, _ in runs):
            raise Violation("it has an extent without length")
        request.runs[context] = runs

    def _error(self, length: int) -> tuple[int, str]:
        """The code and the text of an error chunk."""
        if not 6 <= length <= 6 + LONGEST_TEXT + 64:
            raise Violation("it sent an error of another form")
        payload = self._channel.receive(length)
        (code,) = LENGTH.unpack_from(payload)
        count = int.from_bytes(payload[4:6], "big")
        if count > length - 6:
            raise Violation("it sent an error of another form")
        return int(code), payload[6 : 6 + count].decode("utf-8", "replace")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Violation as error:
            self.lost = True
            raise SourceFailed(f"{self.address}: {error}; this NBD server is not sound, use another") from error
        except ssl.SSLError as error:
            self.lost = True
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            raise AccessDenied(f"{self.address}: TLS failed: {reason}; check the certificates of both sides") from error
        except OSError as error:
            self.lost = True
            raise SourceFailed(
                f"{self.address}: the NBD server went away: {error.strerror or error}; start it again, and then this"
            ) from error
        except BaseException:
            self.lost = True  # in the middle of a message, as far as anybody knows
            raise


def _connected(env: Env, address: Address, patience: float) -> Channel:
    try:
        if address.socket is None:
            sock = socket.create_connection((address.host, address.port), timeout=patience)
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(patience)
                sock.connect(address.socket)
            except BaseException:
                sock.close()
                raise
    except PermissionError as error:
        raise AccessDenied(f"{address}: {error.strerror}; check owner and permissions of the socket") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise SourceMissing(
            f"{address}: no NBD server answers there: {reason}; start it, or check the address"
        ) from error
    return Channel(env, sock, patience)


def _meaning(code: int) -> str:
    try:
        return f"error {Failure(code).name}"
    except ValueError:
        return f"error {code}"
