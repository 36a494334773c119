# SPDX-License-Identifier: Apache-2.0
"""The disks of a machine's point, back into the machine.

First there is a point of what is there now, unless somebody said not to: whoever chose the wrong point goes back to it.
A worker that takes the job over goes on where the one before it ended, without another such point (see
`workloads.kvm.replace`, which remembers in QEMU that it has begun).
"""

from __future__ import annotations

from keepstone.control import snapshots, virtual_machines
from keepstone.control.plane import Plane
from keepstone.control.points import of_record, opened
from keepstone.control.work.backup import enlist, make
from keepstone.control.work.loading import Subject, ending
from keepstone.control.work.reporter import Reporter
from keepstone.errors import SourceFailed, Unsupported
from keepstone.jobs import Context, Status
from keepstone.vault import RecoveryPoint
from keepstone.workloads.hypervisors import QemuAddress, address_of
from keepstone.workloads.kvm import Qemu, replace_disks, unfinished
from keepstone.workloads.machines import machine_of, wanted_disks

__all__ = ["replace"]


def replace(plane: Plane, context: Context, about: Subject, point: RecoveryPoint) -> None:
    """Do it. Arguments of the job: `disks`, as in `restore_point`, and `safety`. `Unsupported` for libvirt's."""
    for path in virtual_machines.paths(about.item.source):
        plane.reach.check(path)
    address = address_of(about.item.source)
    if not isinstance(address, QemuAddress):
        raise Unsupported(
            f"'{about.item.friendly}' is a machine of libvirt, whose disks are not put back in place in this version; "
            "restore them into a folder, and give them to it"
        )
    machine = Qemu(address.monitor, address.agent)
    reporter = Reporter(context)
    store = plane.stores.open(about.vault.id)
    safety = ""
    if context.claim.arguments.get("safety") and not unfinished(plane.env, machine):
        before = of_record(about.item, *make(plane, context, about, store, reporter))
        with plane.change() as change:
            enlist(change, before)
        safety = before.name
    with opened(store, point) as reader:
        found = machine_of(reader)
        names = wanted_disks(found, context.claim.arguments.get("disks"))
        try:
            report = replace_disks(plane.env, machine, found, reporter, names=names)
        finally:
            snapshots.look(plane, about.item)  # they went first
    lost = [put.disk.name for put in report.disks if put.lost]
    context.result(
        {
            "files": len(report.disks),
            "fresh": sum(put.changed for put in report.disks),
            "warnings": reporter.warnings,
            "target": address.place,
            "point": safety or None,
        }
    )
    if lost:
        raise SourceFailed(
            f"the store has lost parts of {', '.join(lost)}; the machine stays stopped, with what there is of them. "
            "Put another point back into it; `keepstone store verify --deep` shows the damage"
        )
    with ending(plane, context, Status.WARNED if reporter.count else Status.COMPLETED):
        pass
