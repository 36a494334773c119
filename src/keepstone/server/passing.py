# SPDX-License-Identifier: Apache-2.0
"""How those that answer agents reach the process that has the write sessions: a socket in the data folder, which
belongs to the service's user alone.

A call is two u32 (lengths), what is asked (msgpack) and its body; an answer a u16 status, a u32 length and its body
(little-endian). Every call may be repeated.
"""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from uuid import UUID

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.env import Env
from keepstone.errors import ServiceUnavailable, told

__all__ = ["ANSWER", "ASKED", "Passing", "place", "read"]

ASKED = struct.Struct("<II")
ANSWER = struct.Struct("<HI")
_PATIENCE = 10.0  # seconds that a receiver may take to be started anew
_PAUSE = 0.2


def place(root: Path) -> Path:
    """Where the socket is."""
    return root / "run" / "receiver.sock"


def read(connection: socket.socket, count: int) -> bytearray | None:
    """So many bytes; None where the other side has ended."""
    data = bytearray(count)
    view = memoryview(data)
    at = 0
    while at < count:
        got = connection.recv_into(view[at:])
        if not got:
            return None
        at += got
    return data


class Passing:
    """`agentapi.Sessions` in another process. Safe for several threads."""

    def __init__(self, env: Env, root: Path) -> None:
        self._env = env
        self._path = str(place(root))
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def ask(self, machine: UUID, verb: str, session: str, first: int, body: memoryview) -> bytes:
        about = msgspec.msgpack.encode((machine.bytes, verb, session, first))
        until = self._env.boot_time() + int(_PATIENCE * 1e9)
        while True:
            try:
                status, answer = self._ask(about, body)
                break
            except OSError as error:
                if self._env.boot_time() > until:
                    raise ServiceUnavailable("the process that takes uploads does not answer; try again") from error
                self._env.sleep(_PAUSE)
        if status == 200:
            return answer
        code, message = from_msgpack(tuple[str, str]).decode(answer)
        raise told(code, message, status)

    def _ask(self, about: bytes, body: memoryview) -> tuple[int, bytes]:
        """One call, over a connection that is open already where there is one; `OSError` where that has ended."""
        connection = self._connection()
        try:
            connection.sendall(ASKED.pack(len(about), len(body)) + about)
            connection.sendall(body)
            status, length = ANSWER.unpack(_all(connection, ANSWER.size))
            answer = _all(connection, length)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return status, bytes(answer)

    def _connection(self) -> socket.socket:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection


def _all(connection: socket.socket, count: int) -> bytearray:
    data = read(connection, count)
    if data is None:
        raise ConnectionResetError("the receiver has ended")
    return data
