# SPDX-License-Identifier: Apache-2.0
"""A connection to the agent of a guest by way of libvirt, for commands that have the content of files.

    python -I -S channel.py URI UUID

virsh takes a command as a word of its command line, which everybody on a host can read. This process reads questions
from its stdin, lines of JSON ([command, seconds]), asks them through libvirt's own library, and writes a line for each:
{"return": ...} as the agent has it, or {"error": "..."}. The first line, `_READY`, says that it has reached the
machine. It ends with its input, when what it asks has been answered.

Run as a program it needs the standard library only. Functions: libvirt, html/libvirt-libvirt-host.html,
libvirt-libvirt-domain.html, libvirt-virterror.html; virDomainQemuAgentCommand is libvirt-qemu.h's.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import subprocess
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keepstone.env import Env
    from keepstone.workloads.machines.stillness import AgentFailed

__all__ = ["ITS_OWN", "SAYS_NO", "Channel"]

_READY = b"{}"
ITS_OWN = 15.0  # seconds that libvirt may take besides
_LONGEST = 16 << 20  # bytes of an answer
SAYS_NO = "unable to execute QEMU agent command"
_SECOND = 10**9


class Channel:
    """`AgentFailed` where libvirt or the machine is not there, or nobody answers within `timeout` seconds, here and
    from `ask`; after that nothing is asked any more. `holding`: descriptors that the process has until it ends."""

    piece = 64 << 10
    """Bytes of a file in one command. libvirt 9.0 hangs where a command is more than its socket to QEMU takes at once,
    which is 208 KiB (net.core.wmem_default), of base64."""

    def __init__(self, env: Env, uri: str, uuid: str, *, timeout: float, holding: Collection[int] = ()) -> None:
        self._env = env
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, uri, uuid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=holding,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
        try:
            self._answer("libvirt does not answer", timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """What is being asked may come about still."""
        self._process.kill()
        with contextlib.suppress(OSError):
            self._process.__exit__(None, None, None)

    def ask(self, command: str, *, timeout: float, **arguments: Any) -> Any:
        """What the agent returns; `_` in names of arguments stands for `-`. `AgentFailed`, `AgentRefused`."""
        question: dict[str, Any] = {"execute": command}
        if arguments:
            question["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        seconds = max(1, math.ceil(timeout))
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([json.dumps(question), seconds]).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise _failed(f"libvirt is gone ({error})") from error
        return self._answer(f"the guest agent does not answer {command}", timeout + ITS_OWN)

    def _answer(self, silence: str, timeout: float) -> Any:
        try:
            told = json.loads(self._line(silence, timeout))
        except (ValueError, RecursionError) as error:
            raise _failed("libvirt answers for the guest agent with what is no JSON") from error
        if "error" in told:
            raise _failed(f"the guest agent does not do it: {str(told['error'])[:500]}")
        return told.get("return")

    def _line(self, silence: str, timeout: float) -> bytes:
        assert self._process.stdout is not None
        said, end = self._process.stdout.fileno(), self._env.boot_time() + int(timeout * _SECOND)
        while b"\n" not in self._rest:
            left = (end - self._env.boot_time()) / _SECOND
            if left <= 0 or not select.select([said], [], [], left)[0]:
                raise _failed(f"{silence} within {timeout:g} seconds")
            data = os.read(said, 1 << 20)
            if not data or len(self._rest) > _LONGEST:
                raise _failed("the guest agent's answer does not come: the program that asks libvirt has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _failed(said: str) -> AgentFailed:
    from keepstone.workloads.machines.stillness import AgentFailed, AgentRefused  # as a program it has them not

    return (AgentRefused if SAYS_NO in said else AgentFailed)(said)


class _Failed(Exception):
    """libvirt's own words."""


def _opened(uri: str, uuid: str) -> Callable[[str, int], bytes]:
    """What asks the agent of that machine."""
    try:
        libvirt, qemu = ctypes.CDLL("libvirt.so.0"), ctypes.CDLL("libvirt-qemu.so.0")
    except OSError as error:
        raise _Failed(f"libvirt's library is not here ({error}); install it (libvirt-clients)") from error
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    libvirt.virGetLastErrorMessage.restype = ctypes.c_char_p
    libvirt.virConnectOpen.argtypes = [ctypes.c_char_p]
    libvirt.virDomainLookupByUUIDString.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    qemu.virDomainQemuAgentCommand.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint]
    functions = (libvirt.virConnectOpen, libvirt.virDomainLookupByUUIDString, qemu.virDomainQemuAgentCommand)
    for function in functions:
        function.restype = ctypes.c_void_p

    def checked(pointer: int | None) -> int:
        if not pointer:
            raise _Failed((libvirt.virGetLastErrorMessage() or b"").decode("utf-8", "replace") or "it does not say why")
        return pointer

    connection = checked(libvirt.virConnectOpen(uri.encode()))
    domain = checked(libvirt.virDomainLookupByUUIDString(connection, uuid.encode()))

    def ask(command: str, seconds: int) -> bytes:
        said = checked(qemu.virDomainQemuAgentCommand(domain, command.encode(), seconds, 0))
        try:
            return ctypes.string_at(said)
        finally:
            free(said)

    return ask


def _main(uri: str, uuid: str) -> None:
    def tell(line: bytes) -> None:
        sys.stdout.buffer.write(line.replace(b"\n", b" ") + b"\n")
        sys.stdout.buffer.flush()

    try:
        ask = _opened(uri, uuid)
    except _Failed as error:
        tell(json.dumps({"error": str(error)}).encode())
        return
    tell(_READY)
    for line in sys.stdin.buffer:
        try:
            answer = ask(*json.loads(line))
        except _Failed as error:
            answer = json.dumps({"error": str(error)}).encode()
        tell(answer)


if __name__ == "__main__":
    _main(*sys.argv[1:])
