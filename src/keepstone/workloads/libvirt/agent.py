# SPDX-License-Identifier: Apache-2.0
"""The agent in a guest, by way of libvirt, which has its channel and puts commands in order."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from keepstone.decoders import from_json
from keepstone.errors import KeepstoneError
from keepstone.workloads.libvirt.channel import ITS_OWN, SAYS_NO
from keepstone.workloads.libvirt.virsh import Refused, Virsh, command
from keepstone.workloads.machines.stillness import AgentFailed, AgentRefused
from keepstone.workloads.machines.watchdog import Watchdog

__all__ = ["Agent"]


class _Answer(msgspec.Struct):
    answer: Any = msgspec.field(name="return", default=None)


class Agent:
    """That of one domain. What freezes the guest holds the pipe of the watchdog, so that what thaws it comes later."""

    def __init__(self, virsh: Virsh, uuid: str) -> None:
        self._virsh = virsh
        self._uuid = uuid
        self._watchdog: Watchdog | None = None

    def ask(self, command: str, *, timeout: float) -> Any:
        holding = [] if self._watchdog is None or "freeze-freeze" not in command else [self._watchdog.pipe]
        try:
            told = self._virsh.ask(
                "qemu-agent-command",
                *_words(self._uuid, command, timeout),
                holding=holding,
                timeout=timeout + ITS_OWN,
            )
            return from_json(_Answer).decode(told).answer
        except Refused as error:
            kind = AgentRefused if SAYS_NO in str(error) else AgentFailed
            raise kind(f"the guest agent does not do {command}: {str(error).partition(': ')[2]}") from error
        except KeepstoneError as error:
            raise AgentFailed(str(error)) from error
        except msgspec.MsgspecError as error:
            raise AgentFailed(f"the guest agent answers {command} with what is no JSON") from error

    def watched(self, seconds: float) -> Watchdog:
        thaw = command(self._virsh.uri, "qemu-agent-command", *_words(self._uuid, "guest-fsfreeze-thaw", 5))
        self._watchdog = Watchdog(thaw, seconds)
        return self._watchdog


def _words(uuid: str, command: str, timeout: float) -> list[str]:
    question = msgspec.json.encode({"execute": command}).decode()
    return [uuid, question, "--timeout", str(max(1, math.ceil(timeout)))]
