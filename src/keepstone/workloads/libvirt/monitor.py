# SPDX-License-Identifier: Apache-2.0
"""The monitor of a domain's QEMU, which libvirt has: it hands commands on, one process of `virsh` for each.

libvirt calls such a domain `tainted: custom-monitor` for as long as its QEMU runs. So one that keeps no snapshots is
asked nothing this way. One that does has a note in its description, of the machine that runs and as long as it does.

Invariants
* Who asks holds a name in the kernel, and so does each command until it ends: whoever comes after somebody who was
  killed comes after his commands, too.
* That libvirt is away says nothing about the domain's QEMU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, SourceMissing
from keepstone.workloads.kvm import monitor, nearby
from keepstone.workloads.kvm.monitor import Gone, Refused
from keepstone.workloads.kvm.sweep import TURN
from keepstone.workloads.libvirt import virsh as program
from keepstone.workloads.libvirt.alone import alone
from keepstone.workloads.libvirt.markup import parsed
from keepstone.workloads.libvirt.virsh import Unreachable, Virsh
from keepstone.workloads.machines.janitor import Janitor

__all__ = ["Monitor", "Way", "is_marked", "mark", "take_away"]

_URI, _NOTE = "urn:keepstone:kept:1", "keepstone:kept"
_PACE = 0.05
_SECOND = 10**9


class _Answer(msgspec.Struct):
    answer: Any = msgspec.field(name="return", default=None)
    error: dict[str, Any] | None = None


class Monitor(monitor.Monitor):
    """That of one domain. `timeout`: seconds until whoever has it must be done with it; `Gone`."""

    def __init__(self, env: Env, virsh: Virsh, uuid: str, *, timeout: float = 20) -> None:
        super().__init__(env, f"libvirt:{uuid}")
        self._virsh, self._uuid = virsh, uuid
        self._mine = contextlib.ExitStack()
        self._turn = self._taken(env.boot_time() + int(timeout * _SECOND))

    def _taken(self, end: int) -> int:
        while True:
            try:
                return self._mine.enter_context(alone(f"keepstone-monitor-{self._uuid}", "somebody has it"))
            except Conflict as error:
                if self._env.boot_time() > end:
                    raise Gone(f"QEMU of {self.place} is busy with another backup or restore of ours") from error
                self._env.sleep(_PACE)

    def close(self) -> None:
        self._mine.close()

    def execute(self, command: str, *, fd: int | None = None, **arguments: Any) -> Any:
        named = {name.replace("_", "-"): value for name, value in arguments.items() if value is not None}
        question = msgspec.json.encode({"execute": command, "arguments": named}).decode()
        passed = [] if fd is None else ["--pass-fds", str(fd)]
        holding = [self._turn] if fd is None else [self._turn, fd]
        told = _asked(self._virsh, "qemu-monitor-command", self._uuid, question, *passed, holding=holding)
        try:
            answer = from_json(_Answer).decode(told)
        except msgspec.MsgspecError as error:
            raise Gone(f"libvirt answers {command} for QEMU of {self.place} with what is no answer") from error
        if answer.error is not None:
            raise Refused(f"QEMU refuses {command}: {str(answer.error.get('desc'))[:500]}")
        return answer.answer


def mark(virsh: Virsh, uuid: str) -> None:
    """From now on its QEMU is asked, until it ends: the note is one of the machine that runs. `Refused`, `Gone`."""
    _asked(virsh, "metadata", uuid, "--live", "--uri", _URI, "--key", "keepstone", "--set", "<kept/>")


def is_marked(description: str) -> bool:
    """Whether this XML of a domain has that note."""
    notes = parsed(description, "the description of the machine").find("metadata")
    return notes is not None and any(note.tag == _NOTE for note in notes)


def _asked(virsh: Virsh, verb: str, *words: str, holding: Collection[int] = ()) -> str:
    try:
        return virsh.ask(verb, *words, holding=holding)
    except program.Refused as error:
        raise Refused(str(error)) from error
    except (program.Gone, Unreachable) as error:
        raise Gone(str(error)) from error


@dataclass(frozen=True, slots=True)
class Way:
    """See `kvm.monitor.Way`."""

    virsh: Virsh
    uuid: str

    def open(self, env: Env, timeout: float) -> Monitor:
        if not is_marked(_asked(self.virsh, "dumpxml", self.uuid)):
            raise SourceMissing(f"libvirt:{self.uuid} has no snapshots: none was made since it was started")
        return Monitor(env, self.virsh, self.uuid, timeout=timeout)

    def janitor(self, prefix: str) -> Janitor:
        return Janitor(__name__, self.virsh.uri, self.uuid, prefix)


def take_away(kept: bool, uri: str, uuid: str, prefix: str) -> None:
    """What the janitor of a `Way` does, once whoever has the monitor now is done with it."""
    with contextlib.suppress(KeepstoneError), Monitor(Env(), Virsh(uri), uuid, timeout=TURN) as opened:
        nearby.clear(Env(), opened, prefix)
