# SPDX-License-Identifier: Apache-2.0
"""A machine's point becomes a new machine.

One of QEMU, or a disk image, starts at once from the vault and is moved to its own images while it runs: that is
instant recovery. Until it is moved it ends with the job, however that ends; then it runs on by itself. For libvirt the
images come first, and then the domain is made of them.

In either case it becomes a resource, so that it can be protected in its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepstone.control import resources, virtual_machines
from keepstone.control.plane import Plane
from keepstone.control.work.loading import Subject, ending
from keepstone.control.work.near import nearest
from keepstone.control.work.reporter import Reporter
from keepstone.errors import SourceFailed
from keepstone.jobs import Context, Status
from keepstone.store import Reader
from keepstone.vault import RecoveryPoint
from keepstone.workloads.hypervisors import LibvirtAddress, QemuAddress, VmAddress, address_of
from keepstone.workloads.hypervisors.discovery import inspect
from keepstone.workloads.hypervisors.recover import network_of, recover_vm
from keepstone.workloads.libvirt import Virsh, check_free, define, let_through, renamed, start
from keepstone.workloads.libvirt.definition import DOCUMENT
from keepstone.workloads.machines import Role, machine_of, restore_machine

__all__ = ["recover"]

_LIBVIRT_FORMAT = "qcow2"


def recover(plane: Plane, context: Context, about: Subject, point: RecoveryPoint) -> None:
    """Do it. Arguments of the job: `target`, a folder; `name`, of the new machine, and `group`, which it is in;
    `network`, as `Network` has it, without for none."""
    wanted = context.claim.arguments
    folder = Path(wanted["target"])
    plane.reach.check(folder)
    reporter = Reporter(context)
    old = address_of(about.item.source) if virtual_machines.is_running(about.item) else None
    with nearest(plane, about, point) as reader:
        if isinstance(old, LibvirtAddress):
            address: VmAddress = _defined(plane, context, old, reader, folder, reporter)
        else:
            address = _booted(plane, context, reader, folder, point.commit_id, reporter)
    with plane.change() as change:
        made, _ = resources.put(
            change, about.vault.subscription, wanted["group"], resources.MACHINE, wanted["name"],
            about.vault.location, {virtual_machines.BEHIND: address.document}, {},
        )  # fmt: skip
        virtual_machines.noted(change, made, inspect(plane.env, address, _warner(reporter)))
    context.note(f"the machine is {made.path}; its images are in {folder}")
    context.result({"files": 1, "warnings": reporter.warnings, "target": str(folder), "machine": made.path})
    with ending(plane, context, Status.WARNED if reporter.count else Status.COMPLETED):
        pass


def _booted(
    plane: Plane,
    context: Context,
    reader: Reader,
    folder: Path,
    point: str,
    reporter: Reporter,
) -> QemuAddress:
    def runs(monitor: Path) -> None:
        context.progress(0, 0, "the machine runs", target=str(monitor))
        context.note(
            f"the machine runs from the vault, and is moved to its own images meanwhile; its monitor: {monitor}"
        )
        context.beat()  # people wait for that

    network = network_of(context.claim.arguments.get("network"))
    return recover_vm(plane.env, reader, folder, reporter, point=point, network=network, runs=runs, check=context.check)


def _defined(
    plane: Plane, context: Context, old: LibvirtAddress, reader: Reader, folder: Path, reporter: Reporter
) -> LibvirtAddress:
    machine, wanted = machine_of(reader), context.claim.arguments
    virsh, name, network = Virsh(old.connect), wanted["name"], network_of(wanted.get("network"))
    check_free(virsh, name)  # before anything is written
    done = restore_machine(plane.env, machine, folder, reporter, format=_LIBVIRT_FORMAT)
    if done.lost:
        raise SourceFailed(
            f"the store has lost parts of {', '.join(disk.name for disk, _ in done.lost)}; what there is of it is in "
            f"{folder}, and no machine was made of it"
        )
    let_through(plane.env, folder.resolve())
    roles = {disk.name: disk.role for disk in machine.about.disks}
    images = {disk: (path, _LIBVIRT_FORMAT) for disk, path in done.files.items() if roles[disk] is Role.DISK}
    nvram = next((path for disk, path in done.files.items() if roles[disk] is Role.NVRAM), None)
    uuid = define(virsh, renamed(machine.about.definition[DOCUMENT], name, images, network, nvram=nvram))
    start(virsh, uuid)
    return LibvirtAddress(uuid, old.connect)


def _warner(reporter: Reporter) -> Callable[[str], None]:
    return lambda message: reporter.warn(b"", message)
