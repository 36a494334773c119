# SPDX-License-Identifier: Apache-2.0
"""The parent's side: starts the child, gives it blocks of the disk, takes what it tells.

A child that crashes, or does not answer in time, or says what no sound one would, is ended; only the request that it
was at fails, and the next one starts another. Nothing that it says is believed beyond its type; see `reader.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import msgspec

from keepstone.disks import BlockSource
from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError, ServiceUnavailable
from keepstone.objects import round_up
from keepstone.workloads.guestfiles.wire import (
    BLOCKS,
    DATA,
    DONE,
    FAILED,
    HEADER,
    MOST,
    NO_BLOCKS,
    PART,
    REQUEST,
    SHARED,
    WANT,
    WANTED,
    Answers,
    Item,
    List,
    Piece,
    Read,
    Request,
    Volume,
    Volumes,
)

__all__ = ["Worker"]

T = TypeVar("T")
PROGRAM = (sys.executable, "-I", "-m", "keepstone.workloads.guestfiles.child")
_MEMORY = 1 << 30  # bytes of addresses that a child may have
_SECONDS = 60  # that it may take for one request, beside those that the disk takes
_ENTRIES = 4_000_000  # of one directory
_encoder = msgspec.msgpack.Encoder()


class Worker:
    """A process that looks at one disk, which stays its owner's. Safe for several threads; one request at a time.

    `CorruptObject` where something is not what its file system says, or the process fails at it; `ServiceUnavailable`
    where there is no process to be had; what the disk raises.
    """

    def __init__(self, env: Env, disk: BlockSource, *, seconds: int = _SECONDS, memory: int = _MEMORY) -> None:
        self._env = env
        self._disk = disk
        self._seconds = seconds
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: socket.socket | None = None
        self._left = 0.0
        self._failure: KeepstoneError | None = None
        self._lock = threading.Lock()
        self._shared = memoryview(b"")
        self._buffer = memoryview(bytearray(MOST))

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it. Harmless when repeated."""
        with self._lock:
            self._end()

    def volumes(self) -> list[Volume]:
        """What is on the disk."""
        with self._lock:
            return [one for part in self._answer(Volumes(), PART) for one in self._decoded(Answers.volumes, part)]

    def items(self, volume: int, inode: int) -> list[Item]:
        """What is in a directory, in order of the names."""
        with self._lock:
            items: list[Item] = []
            for part in self._answer(List(volume, inode), PART):
                items += self._decoded(Answers.items, part)
                if len(items) > _ENTRIES:
                    self._fail(f"a directory has more than {_ENTRIES:,} entries")
            return items

    def read(self, pieces: list[Piece], sink: Callable[[int, memoryview], None]) -> None:
        """Call `sink(index, bytes)` for each of these pieces, in order; the bytes are valid during the call only.

        Raised behind the last one: why some could not be had.
        """
        with self._lock:
            if sum(piece.length for piece in pieces) > MOST:
                raise ValueError("more than one answer has room for")
            lost = at = 0
            room = MOST
            for body in self._answer(Read(pieces), DATA):
                if at >= len(pieces) or len(body) not in (0, pieces[at].length):
                    self._fail("it gave other bytes than it was asked for")
                if body:
                    sink(at, self._shared[room : room + pieces[at].length])
                room += pieces[at].length
                if not body:
                    lost += 1
                at += 1
            if at < len(pieces):
                self._fail("it gave fewer bytes than it was asked for")
            if lost:
                raise self._failure or CorruptObject(
                    "its content is not where its file system says, or is kept in a way that is not known here"
                )

    # ------------------------------------------------------------------ a request

    def _answer(self, request: Request, kind: int) -> Iterator[memoryview]:
        """The messages of this kind that answer it; each is valid until the next one."""
        self._failure = None
        self._left = self._seconds
        if self._process is None:
            self._start()
        try:
            self._send(REQUEST, _encoder.encode(request))
            while True:
                got, body = self._receive()
                if got == WANT and len(body) == WANTED.size:
                    self._serve(*WANTED.unpack(body))
                elif got == kind:
                    yield body
                elif got == DONE:
                    return
                elif got == FAILED:
                    reason = bytes(body).decode("utf-8", "replace")
                    raise self._failure or CorruptObject(f"the file system cannot be read there: {reason}")
                else:
                    self._fail("it said what nobody understands")
        except OSError as error:
            self._fail("it ended" if not isinstance(error, TimeoutError) else f"it took more than {self._seconds} s")
        except GeneratorExit:  # nobody takes the rest of the answer
            self._end()
            raise

    def _serve(self, offset: int, length: int) -> None:
        """Give it these bytes of the disk."""
        if not length <= MOST or offset + length > self._disk.size:
            self._fail("it asked for bytes that the disk does not have")
        try:
            got = self._disk.pread_into(self._shared[: round_up(length)], offset)
        except KeepstoneError as error:
            self._failure = error
            self._send(NO_BLOCKS, b"")
        else:
            self._send(BLOCKS, b"", min(got, length))

    def _decoded(self, decoder: msgspec.msgpack.Decoder[list[T]], body: memoryview) -> list[T]:
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError:
            self._fail("it said what nobody understands")

    # ------------------------------------------------------------------ the process

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        shared = os.memfd_create("keepstone", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        numbers = self._disk.size, self._memory, self._seconds, shared
        command = [*PROGRAM, *map(str, numbers)]
        try:
            os.ftruncate(shared, SHARED)
            fcntl.fcntl(shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._shared = memoryview(mmap.mmap(shared, SHARED))
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"LC_ALL": "C.UTF-8", "TZ": "UTC"},
                pass_fds=(shared,),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ServiceUnavailable(f"no process could be started that looks into the disk: {error}") from error
        finally:
            theirs.close()
            os.close(shared)
        self._pipe = ours

    def _end(self) -> int | None:
        """End the process; how it ended."""
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has gone by itself, as a rule
            return process.wait(0.01)
        process.kill()
        process.wait()
        return None

    def _fail(self, reason: str) -> NoReturn:
        """Give up the process, and this request."""
        code = self._end()
        if code is not None and code < 0:
            reason += f", killed by {signal.Signals(-code).name}"
        raise self._failure or CorruptObject(
            f"the process that looks into the disk failed ({reason}); a file system of it is damaged, or of a kind "
            "that is not known well. Other parts of it, and the disk as a whole, can still be restored"
        )

    # ------------------------------------------------------------------ messages

    def _send(self, kind: int, body: bytes, length: int | None = None) -> None:
        pipe = self._timed()
        began = self._env.boot_time()
        pipe.sendall(HEADER.pack(kind, len(body) if length is None else length) + body)
        self._left -= (self._env.boot_time() - began) / 1e9

    def _receive(self) -> tuple[int, memoryview]:
        kind, length = HEADER.unpack(self._exactly(HEADER.size))
        if length > MOST:
            self._fail("it said more than it may")
        return kind, self._shared[:length] if kind == DATA else self._exactly(length)

    def _exactly(self, count: int) -> memoryview:
        done = 0
        while done < count:
            pipe = self._timed()
            began = self._env.boot_time()
            got = pipe.recv_into(self._buffer[done:count])
            self._left -= (self._env.boot_time() - began) / 1e9
            if not got:
                raise ConnectionError
            done += got
        return self._buffer[:count]

    def _timed(self) -> socket.socket:
        """The pipe, on which a wait ends in time. `TimeoutError`."""
        if self._pipe is None or self._left <= 0:
            raise TimeoutError
        self._pipe.settimeout(self._left)
        return self._pipe
