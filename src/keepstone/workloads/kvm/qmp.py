# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor: commands and answers as lines of JSON over a unix socket (QEMU, docs/interop/qmp-spec.rst).

Our own client, and not `qemu.qmp`: backups run on plain threads and not in an event loop, and two of them ask here, the
one that backs up and the one that guards it. It also hands descriptors over with a command (`getfd`, `add-fd`), so that
QEMU needs to find no file of ours by its name. That is all there is to it.

Invariants
* Each answer belongs to its command by an id: one that comes after its command was given up is nobody's.
* Nothing waits for ever, and no line is longer than `_LONGEST`.
"""

from __future__ import annotations

import array
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import SourceMissing
from keepstone.workloads.kvm import monitor
from keepstone.workloads.kvm.monitor import Gone, Refused

__all__ = ["Gone", "Monitor", "Refused", "connect"]

_LONGEST = 32 << 20
_SECOND = 10**9


def connect(path: Path, timeout: float, what: str) -> socket.socket:
    """A connection to a unix socket; `what` it is, for messages. `SourceMissing`, `Gone`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise SourceMissing(f"{what} at {path} is not there; is the machine running?") from error
    except OSError as error:  # too long a path as well
        connection.close()
        raise Gone(f"{what} at {path} cannot be reached: {error}") from error
    return connection


class _Line(msgspec.Struct):
    """A greeting, an event, or an answer."""

    greeting: dict[str, Any] | None = msgspec.field(name="QMP", default=None)
    event: str | None = None
    id: int | None = None
    error: dict[str, Any] | None = None
    answer: Any = msgspec.field(name="return", default=None)


class Monitor(monitor.Monitor):
    """A connection; a monitor has one at a time. Any thread may ask.

    `SourceMissing` where there is no such socket, `Gone` where nobody greets.
    """

    def __init__(self, env: Env, path: Path, *, timeout: float = 20) -> None:
        super().__init__(env, str(path))
        self.path = path
        self._timeout = timeout
        self._lock = threading.Lock()
        self._last = 0
        self._rest = b""
        self._socket = connect(path, timeout, "the monitor of QEMU")
        try:
            if self._read(self._end(timeout)).greeting is None:
                raise Gone(f"what answers at {path} is no monitor of QEMU; name its QMP socket")
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    @property
    def process(self) -> int:
        """The process that made the socket: QEMU itself, unless it got it from whoever started it."""
        credentials = array.array("i")
        credentials.frombytes(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return credentials[0]

    def execute(self, command: str, *, fd: int | None = None, **arguments: Any) -> Any:
        named = {name.replace("_", "-"): value for name, value in arguments.items() if value is not None}
        with self._lock:
            self._last += 1
            end = self._end(self._timeout)
            message = msgspec.json.encode({"execute": command, "arguments": named, "id": self._last})
            self._send(message, fd)
            while True:
                line = self._read(end)
                if line.id == self._last:
                    break
        if line.error is not None:
            raise Refused(f"QEMU refuses {command}: {str(line.error.get('desc'))[:500]}")
        return line.answer

    def _end(self, timeout: float) -> int:
        return self._env.boot_time() + int(timeout * _SECOND)

    def _send(self, message: bytes, fd: int | None) -> None:
        try:
            self._socket.settimeout(self._timeout)
            if fd is None:
                self._socket.sendall(message)
            else:
                socket.send_fds(self._socket, [message], [fd])
        except OSError as error:
            raise self._gone(error) from error

    def _read(self, end: int) -> _Line:
        """The next line that is no event."""
        while True:
            line = self._line(end)
            try:
                told = from_json(_Line).decode(line)
            except msgspec.MsgspecError as error:
                raise Gone(f"what answers at {self.path} is no monitor of QEMU; name its QMP socket") from error
            if told.event is None:
                return told

    def _line(self, end: int) -> bytes:
        parts = []
        taken = 0
        while b"\n" not in self._rest:
            parts.append(self._rest)
            taken += len(self._rest)
            self._rest = b""
            if taken > _LONGEST:
                raise Gone(f"QEMU at {self.path} does not end its answer")
            try:
                self._socket.settimeout(max(0.001, (end - self._env.boot_time()) / _SECOND))
                self._rest = self._socket.recv(1 << 16)
            except TimeoutError as error:
                with contextlib.suppress(OSError):  # what comes of that line later is half of one
                    self._socket.shutdown(socket.SHUT_RDWR)
                raise Gone(
                    f"QEMU at {self.path} does not answer; it hangs, or its monitor has another client already"
                ) from error
            except OSError as error:
                raise self._gone(error) from error
            if not self._rest:
                raise self._gone(None)
        head, _, self._rest = self._rest.partition(b"\n")
        return b"".join([*parts, head])

    def _gone(self, error: OSError | None) -> Gone:
        return Gone(f"QEMU at {self.path} is gone{f' ({error})' if error else ''}; start the machine, then try again")
