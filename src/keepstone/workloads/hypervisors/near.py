# SPDX-License-Identifier: Apache-2.0
"""Snapshots that stay on a hypervisor of this host: a point read from there, and which of them there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keepstone.env import Env
from keepstone.store import Reader
from keepstone.workloads.hypervisors.address import LibvirtAddress, address_of
from keepstone.workloads.kvm import Qemu, kept_by, near_disks
from keepstone.workloads.kvm.monitor import Way
from keepstone.workloads.libvirt import Virsh
from keepstone.workloads.libvirt import monitor as domain
from keepstone.workloads.machines.near import NearReader
from keepstone.workloads.machines.root import read_machine, stamp_of

__all__ = ["near_vm", "still_kept", "way_of"]


@contextmanager
def near_vm(env: Env, source: Mapping[str, Any], owner: str, reader: Reader) -> Iterator[NearReader | None]:
    """A point of the machine of an item, read from the hypervisor as far as that has it, and from the store for the
    rest; None where it has nothing of it. `owner`: as its backups had it. What `read_machine` raises."""
    about, _ = read_machine(reader, reader.root())
    names = [disk.name for disk in about.disks]
    with near_disks(env, way_of(source), owner, stamp_of(reader.point), names) as disks:
        if not disks:
            yield None
            return
        with NearReader(env, reader, disks) as near:
            yield near


def still_kept(env: Env, source: Mapping[str, Any], owner: str, *, none: bool = False) -> list[int]:
    """When those snapshots of an item began that are still there and whole; those whose time is over, and all of them
    for `none`, go. `SourceMissing` where the machine's QEMU is gone, and they with it; `Gone`, `Refused` where it has
    no time."""
    return kept_by(env, way_of(source), owner, none=none)


def way_of(source: Mapping[str, Any]) -> Way:
    """How the monitor of a machine's QEMU is reached. `UsageError`."""
    address = address_of(source)
    if isinstance(address, LibvirtAddress):
        return domain.Way(Virsh(address.connect), address.uuid)
    return Qemu(address.monitor, address.agent)
