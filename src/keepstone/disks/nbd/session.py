# SPDX-License-Identifier: Apache-2.0
"""What a server does for one client that has chosen an export: one thread takes requests, others answer them.

Invariants
* Whatever a client asks for, a request under way keeps a few words, and each worker one buffer of `PIECE`: a long read
  goes out in pieces.
* Writes are done before the next request is taken, straight out of the buffer that they came into.
* What does not keep to the protocol ends the connection; everything else that fails is an error in a reply.

Sources: doc/proto.md, "Transmission", "Request message", "Simple reply message", "Structured reply chunk message",
"Request types", "Error values".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from keepstone.disks.nbd.channel import Channel
from keepstone.disks.nbd.negotiation import ALLOCATION_NUMBER, LARGEST, Agreed
from keepstone.disks.nbd.protocol import (
    COMMAND,
    DESCRIPTOR,
    LENGTH,
    LONGEST_TEXT,
    REQUEST_MAGIC,
    SHORT,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY,
    STRUCTURED_REPLY_MAGIC,
    Chunk,
    Command,
    CommandFlag,
    Failure,
    State,
)
from keepstone.disks.nbd.violation import Violation
from keepstone.env import Env
from keepstone.errors import KeepstoneError, StorageFull
from keepstone.objects import BufferPool

__all__ = ["PIECE", "Session"]

PIECE = 1 << 20
"""Bytes that go out, or come in, at once."""
_UNDER_WAY = 64  # requests of one client
_EXTENTS = 4096  # of one answer
_DONE = 1
_OFFSET = 8
_HOLE = State.HOLE | State.ZERO
_PATIENCE = 60.0  # seconds that a client has to take a piece of an answer, or to send one of a write

_FLAGS: dict[int, CommandFlag] = {
    Command.READ: CommandFlag.FUA | CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA,
    Command.FLUSH: CommandFlag.FUA,
    Command.TRIM: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE,
    Command.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
_WRITING = (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)


class _Failed(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, code: Failure, text: str) -> None:
        super().__init__(text)
        self.code = code


class Session:
    """`buffers`: of `PIECE` bytes each, for all sessions of a server."""

    def __init__(self, env: Env, channel: Channel, agreed: Agreed, buffers: BufferPool) -> None:
        self._channel = channel
        self._agreed = agreed
        self._export = agreed.export
        self._buffers = buffers
        self._pool = env.pool()
        self._room = threading.Semaphore(_UNDER_WAY)

    def run(self) -> None:
        """Until the client leaves. `Violation` and `OSError` where it does not say goodbye."""
        try:
            while self._take():
                pass
            self._pool.shutdown()  # what is under way is answered yet
        finally:
            self._channel.interrupt()
            self._pool.shutdown(cancel_futures=True)

    def _take(self) -> bool:
        """Take one request; whether the client stays."""
        self._channel.wait(None, send=_PATIENCE)
        magic, flags, command, cookie, offset, length = COMMAND.unpack(self._channel.receive(COMMAND.size))
        if magic != REQUEST_MAGIC:
            raise Violation("it sent no request")
        if command == Command.DISC:
            return False
        payload = length if command == Command.WRITE else 0
        if payload > LARGEST:
            raise Violation("it writes more than it may at once")
        try:
            self._check(command, flags, offset, length)
            if command in _WRITING:
                self._write(command, offset, length)
                payload = 0
        except _Failed as error:
            self._skip(payload)
            self._fail(cookie, error)
            return True
        if command == Command.READ and length:
            self._beside(self._read, cookie, offset, length)
        elif command == Command.BLOCK_STATUS:
            self._beside(self._status, cookie, offset, length, bool(flags & CommandFlag.REQ_ONE))
        else:
            self._done(cookie)
        return True

    def _check(self, command: int, flags: int, offset: int, length: int) -> None:
        if command not in _FLAGS:
            raise _Failed(Failure.EINVAL, "there is no such command")
        if flags & ~int(_FLAGS[command]):  # the complement of a flag has known bits only
            raise _Failed(Failure.EINVAL, "this command has no such flag")
        if command in _WRITING and self._export.overlay is None:
            raise _Failed(Failure.EPERM, "this export is read-only")
        if command != Command.FLUSH and offset + length > self._export.size:
            code = Failure.ENOSPC if command in (Command.WRITE, Command.WRITE_ZEROES) else Failure.EINVAL
            raise _Failed(code, f"the disk has {self._export.size} bytes")
        if command == Command.READ:
            if length > LARGEST:
                raise _Failed(Failure.EINVAL, f"at most {LARGEST} bytes are read at once")
            if flags & CommandFlag.DF and not self._agreed.structured:
                raise _Failed(Failure.EINVAL, "this flag is of structured replies")
            if flags & CommandFlag.DF and length > PIECE:
                raise _Failed(Failure.EOVERFLOW, f"at most {PIECE} bytes come in one part")
        if command == Command.BLOCK_STATUS and not (self._agreed.allocation and length):
            raise _Failed(Failure.EINVAL, "no metadata context was chosen, or the range is empty")

    def _beside(self, work: Callable[..., None], cookie: int, *given: int) -> None:
        """Answer on another thread, while further requests come in."""

        def answer() -> None:
            try:
                work(cookie, *given)
            except Exception:  # whatever it is, an answer is missing now, and the client must not wait for it
                self._channel.interrupt()

        def over(_: Future[None]) -> None:
            self._room.release()

        self._room.acquire()
        self._pool.submit(answer).add_done_callback(over)

    def _read(self, cookie: int, offset: int, length: int) -> None:
        buffer = self._buffers.take()
        try:
            if self._agreed.structured:
                self._read_structured(buffer, cookie, offset, length)
            else:
                self._read_simple(buffer, cookie, offset, length)
        finally:
            self._buffers.give(buffer)

    def _read_structured(self, buffer: memoryview, cookie: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            view = buffer[: min(PIECE, end - offset)]
            try:
                self._fetch(view, offset)
            except _Failed as error:
                self._fail(cookie, error)
                return
            last = _DONE if offset + len(view) == end else 0
            head = STRUCTURED_REPLY.pack(
                STRUCTURED_REPLY_MAGIC, last, Chunk.OFFSET_DATA, cookie, _OFFSET + len(view)
            ) + offset.to_bytes(_OFFSET, "big")
            self._channel.send(head, view)
            offset += len(view)

    def _read_simple(self, buffer: memoryview, cookie: int, offset: int, length: int) -> None:
        """In one message, whose beginning says already that all went well."""
        end = offset + length
        view = buffer[: min(PIECE, length)]
        try:
            self._fetch(view, offset)
        except _Failed as error:
            self._fail(cookie, error)
            return
        with self._channel.alone():
            self._channel.send_within((SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie), view))
            offset += len(view)
            while offset < end:
                view = buffer[: min(PIECE, end - offset)]
                try:
                    self._fetch(view, offset)
                except _Failed as error:
                    raise Violation("what was promised cannot be read") from error
                self._channel.send_within((view,))
                offset += len(view)

    def _fetch(self, view: memoryview, offset: int) -> None:
        try:
            count = self._export.pread_into(view, offset)
        except KeepstoneError as error:
            raise _Failed(Failure.EIO, str(error)) from error
        except Exception as error:
            raise _Failed(Failure.EIO, f"{type(error).__name__}") from error
        if count != len(view):
            raise _Failed(Failure.EIO, "the disk ended early")

    def _status(self, cookie: int, offset: int, length: int, one: bool) -> None:
        extents = bytearray()
        flags, count = 0, 0
        for run, zero in self._export.runs(offset, length):
            kind = _HOLE if zero else 0
            if count and kind != flags:
                extents += DESCRIPTOR.pack(count, flags)
                count = 0
                if one or len(extents) >= _EXTENTS * DESCRIPTOR.size:
                    break
            flags, count = kind, count + run
        if count:
            extents += DESCRIPTOR.pack(count, flags)
        self._chunk(cookie, Chunk.BLOCK_STATUS, LENGTH.pack(ALLOCATION_NUMBER) + extents)

    def _write(self, command: int, offset: int, length: int) -> None:
        overlay = self._export.overlay
        assert overlay is not None
        failed: KeepstoneError | None = None
        if command == Command.WRITE:
            self._channel.wait(_PATIENCE)
            buffer = self._buffers.take()
            try:
                for at in range(0, length, PIECE):
                    view = buffer[: min(PIECE, length - at)]
                    self._channel.receive_into(view)
                    if failed is not None:
                        continue  # take what still comes of it
                    try:
                        overlay.write(offset + at, view)
                    except KeepstoneError as error:
                        failed = error
            finally:
                self._buffers.give(buffer)
        elif command == Command.WRITE_ZEROES:
            try:
                overlay.zero(offset, length)
            except KeepstoneError as error:
                failed = error
        if failed is not None:
            raise _Failed(Failure.ENOSPC if isinstance(failed, StorageFull) else Failure.EIO, str(failed)) from failed

    def _skip(self, count: int) -> None:
        """Take the data of a write that is refused."""
        if count:
            self._channel.wait(_PATIENCE)
            buffer = self._buffers.take()
            for at in range(0, count, PIECE):
                self._channel.receive_into(buffer[: min(PIECE, count - at)])
            self._buffers.give(buffer)

    def _done(self, cookie: int) -> None:
        if self._agreed.structured:
            self._chunk(cookie, Chunk.NONE, b"")
        else:
            self._channel.send(SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie))

    def _fail(self, cookie: int, error: _Failed) -> None:
        if self._agreed.structured:
            text = str(error).encode()[:LONGEST_TEXT].decode(errors="ignore").encode()
            self._chunk(cookie, Chunk.ERROR, LENGTH.pack(error.code) + SHORT.pack(len(text)) + text)
        else:
            self._channel.send(SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error.code, cookie))

    def _chunk(self, cookie: int, kind: Chunk, payload: bytes) -> None:
        """A reply that consists of this part alone, or ends by it."""
        self._channel.send(STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, _DONE, kind, cookie, len(payload)) + payload)
