# SPDX-License-Identifier: Apache-2.0
"""What can be done in a running guest through its agent: programs, and writing a file (QEMU, docs/interop/qemu-ga-ref).

Invariants
* No shell: a program gets a list of arguments, and what the guest's files are called is an argument.
* Whatever the agent answers is checked, and nothing waits for ever.
* After a failure or an interrupt in the middle of a command nothing is asked over that connection any more, but over a
  new one: answers carry no number, so the next one might be the last one's.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Collection, Iterable
from typing import Any

from keepstone.env import Env
from keepstone.errors import AccessDenied, Unsupported
from keepstone.workloads.hypervisors import VmAddress
from keepstone.workloads.inside.reach import reach
from keepstone.workloads.machines.stillness import AgentFailed, AgentRefused

__all__ = ["Inside"]

_ANSWER = 30.0
_PROGRAM = 120.0
_SECOND = 10**9
_NEEDED = (
    *("guest-exec", "guest-exec-status"),
    *("guest-file-open", "guest-file-write", "guest-file-flush", "guest-file-close"),
)


class Inside:
    """A connection to the agent of a Linux guest. `holding`: descriptors that go on where we are killed while somebody
    talks to the agent for us, until that is over.

    `AgentFailed` where it does not answer or is gone, here and from every function; `AccessDenied` where it does not
    allow what is needed, `Unsupported` where the guest is another system; what `reach` raises.
    """

    def __init__(self, env: Env, address: VmAddress, *, holding: Collection[int] = ()) -> None:
        self._env = env
        self._address, self._holding = address, holding
        self._waiting = False  # for an answer that nobody took yet
        self._agent = reach(env, address, timeout=_ANSWER, holding=holding)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._agent.close()

    def _check(self) -> None:
        told = self._ask("guest-info")
        commands = told.get("supported_commands") if isinstance(told, dict) else None
        allowed = {one.get("name") for one in commands or () if isinstance(one, dict) and one.get("enabled")}
        missing = [name for name in _NEEDED if name not in allowed]
        if missing:
            raise AccessDenied(
                f"the guest agent does not allow {', '.join(missing)}; allow that in the guest (its option "
                "--block-rpcs, BLACKLIST_RPC in /etc/sysconfig/qemu-ga), or restore into a folder"
            )
        system: Any = {}
        with contextlib.suppress(AgentRefused):  # one that has no /etc/os-release
            system = self._ask("guest-get-osinfo")
        if isinstance(system, dict) and system.get("id") == "mswindows":
            raise Unsupported("files go back into Linux guests only; restore them into a folder, and copy them")

    def _ask(self, command: str, **arguments: Any) -> Any:
        if self._waiting:
            self._agent.close()
            self._agent = reach(self._env, self._address, timeout=_ANSWER, holding=self._holding)
        self._waiting = True
        try:
            answer = self._agent.ask(command, timeout=_ANSWER, **arguments)
        except AgentRefused:
            self._waiting = False
            raise
        self._waiting = False
        return answer

    @property
    def piece(self) -> int:
        """How many bytes of a file one command carries at most."""
        return self._agent.piece

    def filesystems(self) -> list[dict[str, Any]]:
        """What is mounted, as the agent tells."""
        told = self._ask("guest-get-fsinfo")
        return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []

    def run(self, *command: str) -> tuple[int, str]:
        """Run a program to its end: (exit code, what it said). One that a signal ended has another code than 0."""
        told = self._ask("guest-exec", path=command[0], arg=list(command[1:]), capture_output=True)
        process = told.get("pid") if isinstance(told, dict) else None
        end, pause = self._env.boot_time() + int(_PROGRAM * _SECOND), 0.001
        while True:
            state = self._ask("guest-exec-status", pid=process)
            if not isinstance(state, dict):
                raise AgentFailed(f"the guest agent does not say what became of {command[0]}")
            if state.get("exited"):
                code = state.get("exitcode")
                said = _decoded(state.get("out-data")) + _decoded(state.get("err-data"))
                return code if isinstance(code, int) else 255, said
            if self._env.boot_time() > end:
                raise AgentFailed(f"{command[0]} does not come to an end in the guest")
            self._env.sleep(pause)
            pause = min(2 * pause, 0.2)

    def write(self, path: str, pieces: Iterable[memoryview]) -> None:
        """Make a file of these pieces, of at most `piece` bytes each. `AgentRefused` where the guest cannot."""
        handle = self._ask("guest-file-open", path=path, mode="wb")
        try:
            for piece in pieces:
                while piece:
                    data = base64.b64encode(piece).decode()
                    told = self._ask("guest-file-write", handle=handle, buf_b64=data)
                    count = told.get("count") if isinstance(told, dict) else None
                    if not isinstance(count, int) or not 0 < count <= len(piece):
                        raise AgentFailed("the guest agent does not say how much it wrote")
                    piece = piece[count:]
            self._ask("guest-file-flush", handle=handle)
        except BaseException:
            with contextlib.suppress(AgentFailed):
                self._ask("guest-file-close", handle=handle)
            raise
        self._ask("guest-file-close", handle=handle)


def _decoded(data: object) -> str:
    if not isinstance(data, str):
        return ""
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""
