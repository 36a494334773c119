# SPDX-License-Identifier: Apache-2.0
"""What a libvirt can make a machine of (libvirt, formatdomaincaps.html)."""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.errors import Unsupported
from keepstone.workloads.libvirt.markup import parsed, text_of
from keepstone.workloads.libvirt.virsh import Refused, Virsh

__all__ = ["Offer", "offered"]


@dataclass(frozen=True, slots=True)
class Offer:
    """`machine`: the type, as it was asked for or the usual one of its family. `kvm`: whether it has KVM, as far as it
    knows. `cpus`: how many such a machine can have."""

    machine: str
    kvm: bool
    cpus: int


def offered(virsh: Virsh, machine: str) -> Offer:
    """For a PC of this type; where its QEMU does not know that version, for `q35` or `pc`. `Unsupported` where it knows
    neither; `SourceMissing`, `Gone`."""
    for kind in (machine, "q35" if "q35" in machine else "pc"):
        try:
            told = virsh.ask("domcapabilities", "--arch", "x86_64", "--machine", kind)
        except Refused as error:
            reason = error
            continue
        root = parsed(told, f"what libvirt at {virsh.uri} can do")
        most = root.find("vcpu")
        cpus = "" if most is None else most.get("max", "")
        return Offer(kind, text_of(root, "domain") == "kvm", int(cpus) if cpus.isdecimal() else 1)
    raise Unsupported(f"libvirt at {virsh.uri} makes no PC of the type {machine}: {reason}") from reason
