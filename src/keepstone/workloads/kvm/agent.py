# SPDX-License-Identifier: Apache-2.0
"""The agent in a guest: JSON over a unix socket that QEMU passes on (QEMU, docs/interop/qemu-ga-ref).

What an earlier client left unread is flushed by `guest-sync-delimited`, whose answer follows the byte 0xFF. An agent
does one command at a time, in order; one that hangs, hangs for everybody. So after the first answer that does not come
nothing more is asked over a connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.workloads.kvm.qmp import connect
from keepstone.workloads.machines.stillness import AgentFailed, AgentRefused
from keepstone.workloads.machines.watchdog import Watchdog

__all__ = ["Agent", "AgentFailed", "AgentRefused"]

_LONGEST = 1 << 20
_SECOND = 10**9


class _Answer(msgspec.Struct):
    error: dict[str, Any] | None = None
    answer: Any = msgspec.field(name="return", default=None)


class Agent:
    """A connection; an agent's socket has one at a time.

    `AgentFailed` where nobody answers within `timeout` seconds, here and from `ask`.
    """

    piece = 384 << 10
    """Bytes of a file in one command: the agent takes it in small bites, so more of them at once gain nothing."""

    def __init__(self, env: Env, path: Path, *, timeout: float) -> None:
        self._env = env
        self._rest = b""
        try:
            self._socket = connect(path, timeout, "the socket of the guest agent")
        except KeepstoneError as error:
            raise AgentFailed(str(error)) from error
        try:
            self._synchronise(timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def watched(self, seconds: float) -> Watchdog:
        """It holds the connection."""
        return Watchdog(self._socket.fileno(), seconds)

    def ask(self, command: str, *, timeout: float, **arguments: Any) -> Any:
        """What the agent returns; `_` in names of arguments stands for `-`."""
        end = self._end(timeout)
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._send(message)
        return self._answer(command, end)

    def _synchronise(self, timeout: float) -> None:
        end = self._end(timeout)
        sign = int.from_bytes(self._env.random(4), "big") >> 1
        self._send({"execute": "guest-sync-delimited", "arguments": {"id": sign}}, b"\xff")
        while self._answer("guest-sync-delimited", end, delimited=True) != sign:
            pass

    def _send(self, message: dict[str, Any], prefix: bytes = b"") -> None:
        try:
            self._socket.sendall(prefix + msgspec.json.encode(message) + b"\n")
        except OSError as error:
            raise AgentFailed(f"the guest agent is gone ({error})") from error

    def _answer(self, command: str, end: int, *, delimited: bool = False) -> Any:
        while True:
            line = self._line(command, end)
            if delimited and b"\xff" not in line:
                continue
            try:
                told = from_json(_Answer).decode(line.rpartition(b"\xff")[2])
            except msgspec.MsgspecError as error:
                raise AgentFailed(f"the guest agent answers {command} with what is no JSON") from error
            if told.error is not None:
                raise AgentRefused(f"the guest agent refuses {command}: {str(told.error.get('desc'))[:500]}")
            return told.answer

    def _line(self, command: str, end: int) -> bytes:
        while b"\n" not in self._rest:
            left = end - self._env.boot_time()
            if left <= 0 or len(self._rest) > _LONGEST:
                raise AgentFailed(f"the guest agent does not answer {command}")
            try:
                self._socket.settimeout(left / _SECOND)
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise AgentFailed(f"the guest agent is gone ({error})") from error
            if not data:
                raise AgentFailed("the guest agent is gone")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _end(self, timeout: float) -> int:
        return self._env.boot_time() + int(timeout * _SECOND)
