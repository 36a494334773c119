# SPDX-License-Identifier: Apache-2.0
"""How the agent of a guest is reached: at its socket in QEMU, or through its libvirt."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from keepstone.env import Env
from keepstone.errors import SourceFailed, UsageError
from keepstone.workloads.hypervisors import LibvirtAddress, VmAddress
from keepstone.workloads.kvm.agent import Agent
from keepstone.workloads.libvirt import Virsh, find
from keepstone.workloads.libvirt.channel import Channel

__all__ = ["Reached", "reach"]


class Reached(Protocol):
    """An agent that answers, until it is closed. `piece`: bytes of a file that one command carries at most."""

    @property
    def piece(self) -> int: ...

    def ask(self, command: str, *, timeout: float, **arguments: Any) -> Any:
        """What it returns within these seconds; `_` in names of arguments stands for `-`. `AgentFailed`,
        `AgentRefused`."""

    def close(self) -> None: ...


def reach(env: Env, address: VmAddress, *, timeout: float, holding: Collection[int] = ()) -> Reached:
    """The agent of this machine. `holding`: descriptors that whoever talks to it for us has until it ends.

    `UsageError` where nobody knows its socket, `AgentFailed` where it does not answer; of libvirt `NotFound` and
    `SourceFailed` where there is no such machine, it does not run, or has no agent.
    """
    if isinstance(address, LibvirtAddress):
        domain = find(Virsh(address.connect), address.uuid)
        if not domain.runs:
            raise SourceFailed(f"{domain.address} is off, and it is its guest that puts files back; start it")
        if not domain.agent:
            raise SourceFailed(
                f"{domain.address} has no channel org.qemu.guest_agent.0, by which its agent is reached; give it one "
                "(`virsh edit`), and install qemu-guest-agent in the guest"
            )
        return Channel(env, address.connect, domain.uuid, timeout=timeout, holding=holding)
    if address.agent is None:
        raise UsageError("files go into a guest through its agent; name its socket by --agent")
    return Agent(env, address.agent, timeout=timeout)
