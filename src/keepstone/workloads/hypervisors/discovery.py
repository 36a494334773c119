# SPDX-License-Identifier: Apache-2.0
"""Which machines a host has: those of a libvirt, or each monitor of QEMU in a folder, `NAME.qmp`, with `NAME.qga`
beside it for its agent.

A monitor talks to one client at a time, so one that a backup holds does not answer here, and neither does one of a
machine that is off: both are known by their sockets alone then, without disks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from keepstone.env import Env
from keepstone.errors import KeepstoneError, NotFound, UsageError
from keepstone.workloads.hypervisors.address import LibvirtAddress, QemuAddress, VmAddress, address_of
from keepstone.workloads.kvm.definition import name_of
from keepstone.workloads.kvm.drives import drives
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.libvirt import Domain, Virsh, domains, find
from keepstone.workloads.machines import Role
from keepstone.workloads.machines.root import is_name

__all__ = [
    "Found",
    "FoundDisk",
    "discover_domains",
    "discover_monitors",
    "disks_of",
    "document_of",
    "inspect",
    "read_found",
]

_MONITOR, _AGENT = ".qmp", ".qga"
_MOST = 10_000  # machines of a folder
_ANSWER = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class FoundDisk:
    """A disk, not counting what firmware keeps: the first one is that of the system."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """A machine. `disks`: none where it did not answer."""

    name: str
    address: VmAddress
    disks: tuple[FoundDisk, ...]


def discover_monitors(env: Env, folder: Path, warn: Callable[[str], None]) -> Iterator[Found]:
    """The machines of a folder, by their sockets' names. `NotFound` where there is no such folder."""
    try:
        names = sorted(env.fs.listdir(str(folder)))
    except OSError as error:
        raise NotFound(f"the folder {folder} of the hypervisor's sockets cannot be read: {error.strerror}") from error
    monitors = [name for name in names if name.endswith(_MONITOR)]
    for name in monitors[:_MOST]:
        agent = name.removesuffix(_MONITOR) + _AGENT
        yield inspect(env, QemuAddress(folder / name, folder / agent if agent in names else None), warn)


def discover_domains(connect: str) -> Iterator[Found]:
    """The domains of a libvirt, by name. `SourceMissing`, `Refused`, `Gone`; `Unsupported`."""
    for domain in domains(Virsh(connect)):
        yield Found(domain.name, LibvirtAddress(domain.uuid, connect), _of_domain(domain))


def inspect(env: Env, address: VmAddress, warn: Callable[[str], None]) -> Found:
    """One machine, as far as it tells."""
    try:
        if isinstance(address, LibvirtAddress):
            domain = find(Virsh(address.connect), address.uuid)
            return Found(domain.name, address, _of_domain(domain))
        with Monitor(env, address.monitor, timeout=_ANSWER) as monitor:
            return Found(name_of(monitor), address, _of_monitor(monitor))
    except KeepstoneError as error:
        warn(str(error))
        name = address.monitor.stem if isinstance(address, QemuAddress) else address.uuid
        return Found(name, address, ())


def disks_of(env: Env, address: VmAddress) -> tuple[FoundDisk, ...]:
    """The disks that a machine has now. Raises what its hypervisor does."""
    if isinstance(address, LibvirtAddress):
        return _of_domain(find(Virsh(address.connect), address.uuid))
    with Monitor(env, address.monitor) as monitor:
        return _of_monitor(monitor)


def _of_monitor(monitor: Monitor) -> tuple[FoundDisk, ...]:
    found = (drive.disk for drive in drives(monitor))
    return tuple(FoundDisk(disk.name, disk.size) for disk in found if disk.role is Role.DISK)


def _of_domain(domain: Domain) -> tuple[FoundDisk, ...]:
    return tuple(FoundDisk(disk.target, disk.size or 0) for disk in domain.disks)


def document_of(found: Found) -> dict[str, Any]:
    """What an agent tells its service of a machine."""
    disks = [{"name": disk.name, "size": disk.size} for disk in found.disks]
    return {"name": found.name, "address": found.address.document, "disks": disks}


def read_found(document: Mapping[str, Any]) -> Found:
    """The same back, from somebody who may tell anything. `UsageError`."""
    try:
        told = msgspec.convert(document, _Told)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error
    if not all(is_name(disk.name) for disk in told.disks):
        raise UsageError(f"the machine {told.name[:100]!r} has a disk without a fit name")
    return Found(told.name, address_of(told.address), tuple(told.disks))


class _Told(msgspec.Struct, frozen=True):
    name: Annotated[str, msgspec.Meta(max_length=200)]
    address: dict[str, Annotated[str, msgspec.Meta(max_length=4096)]]
    disks: Annotated[list[FoundDisk], msgspec.Meta(max_length=1000)]
