# SPDX-License-Identifier: Apache-2.0
"""Which machines a host has: each monitor in a folder is one, `NAME.qmp`, with `NAME.qga` beside it for its agent.

A monitor talks to one client at a time, so one that a backup holds does not answer here, and neither does one of a
machine that is off: both are known by their sockets alone then, without disks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError, NotFound
from keepstone.workloads.hypervisors.address import Address
from keepstone.workloads.kvm.definition import name_of
from keepstone.workloads.kvm.drives import drives
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.machines import Role

__all__ = ["Found", "FoundDisk", "discover", "disks_of", "inspect"]

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
    address: Address
    disks: tuple[FoundDisk, ...]


def discover(env: Env, folder: Path, warn: Callable[[str], None]) -> Iterator[Found]:
    """The machines of a folder, by their sockets' names. `NotFound` where there is no such folder."""
    try:
        names = sorted(env.fs.listdir(str(folder)))
    except OSError as error:
        raise NotFound(f"the folder {folder} of the hypervisor's sockets cannot be read: {error.strerror}") from error
    monitors = [name for name in names if name.endswith(_MONITOR)]
    for name in monitors[:_MOST]:
        agent = name.removesuffix(_MONITOR) + _AGENT
        yield inspect(env, Address(folder / name, folder / agent if agent in names else None), warn)


def inspect(env: Env, address: Address, warn: Callable[[str], None]) -> Found:
    """One machine, as far as it tells."""
    try:
        with Monitor(env, address.monitor, timeout=_ANSWER) as monitor:
            return Found(name_of(monitor), address, _disks(monitor))
    except KeepstoneError as error:
        warn(str(error))
        return Found(address.monitor.stem, address, ())


def disks_of(env: Env, address: Address) -> tuple[FoundDisk, ...]:
    """The disks that a machine has now. Raises what its monitor does."""
    with Monitor(env, address.monitor) as monitor:
        return _disks(monitor)


def _disks(monitor: Monitor) -> tuple[FoundDisk, ...]:
    found = (drive.disk for drive in drives(monitor))
    return tuple(FoundDisk(disk.name, disk.size) for disk in found if disk.role is Role.DISK)
