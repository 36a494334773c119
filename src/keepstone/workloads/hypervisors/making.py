# SPDX-License-Identifier: Apache-2.0
"""A point becomes a new domain of libvirt, described in our own words (`libvirt.building`).

Its description in the point is not believed: out of it come the values of `Hardware`, and nothing else. What the old
machine had and the new one has not is a warning.

Invariants
* What can be refused before anything is written, is: a taken name, a folder that is not empty, hardware or firmware
  that this host has not.
* The domain has the UUID that its job gives it. So there is one of a job, however often that is begun: whoever begins
  again finds it, or defines the same one.
* It is defined when all its files are whole and durable, and started after that. So whoever finds it starts it; whoever
  does not begins anew, and all that an earlier try has left in the folder goes.
* The folder belongs to one job, and to one process of it at a time (`Home`).
* A domain that cannot be started is taken away again, and its files stay. One that was found is not: somebody may have
  it in use since, and ask by the job of that time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import msgspec

from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, NotFound, SourceFailed, Unsupported
from keepstone.objects import failure
from keepstone.workloads.hypervisors.address import LibvirtAddress
from keepstone.workloads.libvirt import Virsh, check_free, define, destroy, let_through, start, undefine
from keepstone.workloads.libvirt.building import Image, NewDomain, built, lacking
from keepstone.workloads.libvirt.capabilities import offered
from keepstone.workloads.libvirt.definition import DOCUMENT
from keepstone.workloads.libvirt.domains import OFF
from keepstone.workloads.libvirt.virsh import Refused
from keepstone.workloads.machines import DESCRIPTION, PointOfMachine, Role, placed, restore_machine
from keepstone.workloads.progress import Progress
from keepstone.workloads.running import Network
from keepstone.workloads.running.definition import hardware_of
from keepstone.workloads.running.firmware import firmware
from keepstone.workloads.running.home import Home
from keepstone.workloads.running.kernels import check_kernel, copy_kernel
from keepstone.workloads.running.launch import Limits, fitting
from keepstone.workloads.running.program import runs
from keepstone.workloads.running.values import Hardware, Kernel

__all__ = ["Wanted", "make_domain"]

_FORMAT = "qcow2"
_PCS = ("x86_64", "i686", "i386")
_PROGRAM = "qemu-system-x86_64"
_KERNEL, _INITRD, _NVRAM = "kernel", "initrd", "nvram.fd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`folder`: for its files, empty or missing. `job`: names what asks for it, the same each time."""

    name: str
    job: str
    folder: Path
    network: Network

    @property
    def uuid(self) -> str:
        """Nobody can choose it, so it is never that of another domain."""
        told = msgspec.json.encode(["new machine", self.job, self.name, str(self.folder)])
        return str(UUID(bytes=hashlib.sha256(told).digest()[:16], version=4))


def make_domain(
    env: Env,
    machine: PointOfMachine,
    connect: str,
    wanted: Wanted,
    progress: Progress,
    readable: Callable[[Path], Path],
) -> LibvirtAddress:
    """Where it is reached; it runs. `readable`: where the path of a kernel leads that the point names; it raises where
    that must not be read.

    `TargetExists` for a name that is taken or a folder that has something, `Conflict` for one that another job has,
    `UsageError` and `Unsupported` where such a machine cannot be made here, `SourceFailed` where the store has lost
    something of it; what `check_kernel`, `restore_machine`, `define` and `start` raise.
    """
    virsh, uuid, folder = Virsh(connect), wanted.uuid, wanted.folder
    if uuid in virsh.uuids():
        try:
            _start(virsh, uuid)
        except KeepstoneError as error:
            error.args = (f"{error}. The new machine {wanted.name} is there, and does not run",)
            raise
        return LibvirtAddress(uuid, connect)
    plan = _planned(env, virsh, machine, wanted, readable)
    check_free(virsh, wanted.name)
    with Home(env, folder, f"job {wanted.job}") as home:
        if home.taken:
            raise Conflict(f"{folder} is being restored to by job {wanted.job} already; wait for the end of that")
        _begin_anew(env, machine, folder)
        for difference in plan.differences:
            progress.warn(b"", difference)
        if plan.kernel is not None and plan.own is not None:
            copy_kernel(env, plan.kernel, plan.own)
        done = restore_machine(env, machine, folder, progress, format=_FORMAT)
        if done.lost:
            raise SourceFailed(
                f"the store has lost parts of {', '.join(disk.name for disk, _ in done.lost)}; what there is of it is "
                f"in {folder}, and no machine was made of it"
            )
        try:
            define(virsh, plan.description)
            _start(virsh, uuid)
        except KeepstoneError as error:
            error.args = (f"{error}. {_taken_away(virsh, uuid)}; its files are in {folder}",)
            raise
    return LibvirtAddress(uuid, connect)


@dataclass(frozen=True, slots=True)
class _Plan:
    """`description`: the domain's XML. `kernel`: what it is started by, where that is one; `own`: where that goes.
    `differences`: what people are told of it."""

    description: str
    kernel: Kernel | None
    own: Kernel | None
    differences: list[str]


def _planned(
    env: Env, virsh: Virsh, machine: PointOfMachine, wanted: Wanted, readable: Callable[[Path], Path]
) -> _Plan:
    """Nothing is written here."""
    about, told, folder = machine.about, hardware_of(machine.about), wanted.folder
    if told.architecture not in _PCS:
        raise Unsupported(
            f"the machine has the architecture {told.architecture!a:.40}, and new ones are PCs ({', '.join(_PCS)}). "
            "Restore its disks, and make it by hand"
        )
    kernel = own = None
    if told.kernel is not None:
        initrd = told.kernel.initrd
        kernel = replace(
            told.kernel, kernel=readable(told.kernel.kernel), initrd=None if initrd is None else readable(initrd)
        )
        check_kernel(env, kernel)
        own = replace(kernel, kernel=folder / _KERNEL, initrd=None if initrd is None else folder / _INITRD)
    nvram = next((disk for disk in about.disks if disk.role is Role.NVRAM), None)
    size = None if nvram is None else nvram.size
    code = firmware(env, _PCS[0], secure=told.secure, nvram=size) if told.uefi else None
    offer = offered(virsh, "q35" if code is not None and code.smm and "q35" not in told.machine else told.machine)
    hardware = replace(fitting(told, Limits(most=_memory(), cpus=offer.cpus)), kernel=own)
    files = placed(machine, folder, _FORMAT)
    new = NewDomain(
        name=wanted.name,
        uuid=wanted.uuid,
        machine=offer.machine,
        kvm=offer.kvm and _has_kvm(),
        disks=[Image(disk.name, disk.bus, files[disk.name]) for disk in about.disks if disk.role is Role.DISK],
        network=wanted.network,
        firmware=code,
        nvram=folder / _NVRAM if nvram is None else files[nvram.name],
    )
    differences = list(_differences(told, hardware, offer.machine))
    if told.uefi and nvram is None:
        differences.append("the new machine's firmware begins anew, for the point has no NVRAM")
    if about.excluded:
        differences.append(f"the new machine lacks disks that the point leaves out ({len(about.excluded)})")
    if lacks := lacking(about.definition.get(DOCUMENT, b""), wanted.network):
        differences.append(f"the new machine lacks what the old one had: {lacks}; `virsh edit` gives it what it needs")
    return _Plan(built(hardware, new), kernel, own, differences)


def _differences(told: Hardware, made: Hardware, machine: str) -> Iterator[str]:
    if made.memory < told.memory:
        yield f"the new machine has {made.memory >> 20:,} MiB of memory, the old one {told.memory >> 20:,}"
    if made.cpus < told.cpus:
        yield f"the new machine has {made.cpus} processors, the old one {told.cpus}"
    if machine != told.machine:
        yield f"the new machine is of the type {machine}, the old one of the type {told.machine}"


def _memory() -> int:
    """Bytes that this host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _has_kvm() -> bool:
    """Whether KVM works, as far as that can be tried here; libvirt only knows whether it is there. No program that
    libvirt names is run: a libvirt may be one user's."""
    program = shutil.which(_PROGRAM)
    return program is None or runs(program)


def _begin_anew(env: Env, machine: PointOfMachine, folder: Path) -> None:
    """Take away what an earlier try of the same job left half written."""
    names = [path.name for path in placed(machine, folder, _FORMAT).values()]
    let_through(env, folder)
    try:
        for name in (*names, DESCRIPTION, _KERNEL, _INITRD, _NVRAM):
            with contextlib.suppress(FileNotFoundError):
                env.fs.unlink(folder / name)
    except OSError as error:
        raise failure(error, str(folder)) from error


def _start(virsh: Virsh, uuid: str) -> None:
    """Unless it runs. An earlier try may have asked for that, and have it done only now."""
    if _runs(virsh, uuid):
        return
    try:
        start(virsh, uuid)
    except Refused:
        if not _runs(virsh, uuid):
            raise


def _runs(virsh: Virsh, uuid: str) -> bool:
    return virsh.ask("domstate", uuid).strip() != OFF


def _taken_away(virsh: Virsh, uuid: str) -> str:
    """What is left of it."""
    try:
        with contextlib.suppress(Refused):  # it does not run
            destroy(virsh, uuid)
        undefine(virsh, uuid)
    except NotFound:
        pass
    except KeepstoneError as error:
        return f"Libvirt may have the new machine still ({error}): take it away by `virsh undefine {uuid}`"
    return "No machine was made of it"
