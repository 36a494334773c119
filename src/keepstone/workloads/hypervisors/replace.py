# SPDX-License-Identifier: Apache-2.0
"""The disks of a point back into a machine that is known by its address."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.workloads.hypervisors.address import LibvirtAddress, VmAddress
from keepstone.workloads.kvm import Qemu, check_disks, replace_disks, unfinished
from keepstone.workloads.libvirt import Virsh, check_domain, replace_domain, unfinished_domain, unread
from keepstone.workloads.machines import PointOfMachine, Replaced
from keepstone.workloads.progress import Progress

__all__ = ["check_vm", "check_whole", "has_half", "replace_vm"]


def has_half(env: Env, address: VmAddress) -> bool:
    """Whether a replacement of its disks was begun and has not come to its end: then what it is now is no state of it,
    and who goes on makes no point of that. Raises what its hypervisor does."""
    if isinstance(address, LibvirtAddress):
        return unfinished_domain(Virsh(address.connect), address.uuid)
    return unfinished(env, Qemu(address.monitor, address.agent))


def check_vm(
    env: Env,
    address: VmAddress,
    point: PointOfMachine,
    *,
    names: Collection[str] = (),
    allowed: Callable[[Path], object] = lambda path: None,
    readable: Callable[[Path], object] = unread,
) -> None:
    """What `replace_vm` would refuse, before anybody begins with it, or with a safety point; nothing of this machine is
    half done now."""
    allowed(Path(address.place))
    if isinstance(address, LibvirtAddress):
        check_domain(env, Virsh(address.connect), address.uuid, point, names=names, allowed=allowed, readable=readable)
    else:
        check_disks(env, Qemu(address.monitor, address.agent), point, names=names)


def replace_vm(
    env: Env,
    address: VmAddress,
    point: PointOfMachine,
    progress: Progress,
    *,
    names: Collection[str] = (),
    allowed: Callable[[Path], object] = lambda path: None,
    readable: Callable[[Path], object] = unread,
) -> Replaced:
    """Put these disks of a point back into it, or all. `allowed` is asked for the socket of its hypervisor and for each
    file that is written to, `readable` for each backing file of a machine of libvirt, of which by default none is read;
    they raise where that must not be. What else is raised as in `replace_disks` and `replace_domain`."""
    allowed(Path(address.place))
    if isinstance(address, LibvirtAddress):
        virsh = Virsh(address.connect)
        return replace_domain(
            env, virsh, address.uuid, point, progress, names=names, allowed=allowed, readable=readable
        )
    return replace_disks(env, Qemu(address.monitor, address.agent), point, progress, names=names)


def check_whole(report: Replaced) -> None:
    """`SourceFailed` where the store has lost something of the disks."""
    lost = [put.disk.name for put in report.disks if put.lost]
    if lost:
        raise SourceFailed(
            f"the store has lost parts of {', '.join(lost)}; the machine does not run, with what there is of them. "
            "Put another point back into it; `keepstone store verify --deep` shows the damage"
        )
