# SPDX-License-Identifier: Apache-2.0
"""The disks of a machine's point, back into the machine.

First there is a point of what is there now, unless somebody said not to: whoever chose the wrong point goes back to it.
A worker that takes the job over goes on where the one before it ended, without another such point (see
`workloads.kvm.replace` and `workloads.libvirt.replace`, which remember with the machine that they have begun).
"""

from __future__ import annotations

from keepstone.control import snapshots, virtual_machines
from keepstone.control.plane import Plane
from keepstone.control.points import of_record, opened
from keepstone.control.work.backup import enlist, make
from keepstone.control.work.loading import Subject, ending
from keepstone.control.work.reporter import Reporter
from keepstone.errors import SourceFailed
from keepstone.jobs import Context, Status
from keepstone.vault import RecoveryPoint
from keepstone.workloads.hypervisors import address_of
from keepstone.workloads.hypervisors.replace import has_half, replace_vm
from keepstone.workloads.machines import machine_of, wanted_disks

__all__ = ["replace"]


def replace(plane: Plane, context: Context, about: Subject, point: RecoveryPoint) -> None:
    """Do it. Arguments of the job: `disks`, as in `restore_point`, and `safety`."""
    for path in virtual_machines.paths(about.item.source):
        plane.reach.check(path)
    address = address_of(about.item.source)
    reporter = Reporter(context)
    store = plane.stores.open(about.vault.id)
    safety = ""
    if context.claim.arguments.get("safety") and not has_half(plane.env, address):
        before = of_record(about.item, *make(plane, context, about, store, reporter))
        with plane.change() as change:
            enlist(change, before)
        safety = before.name
    with opened(store, point) as reader:
        found = machine_of(reader)
        names = wanted_disks(found, context.claim.arguments.get("disks"))
        try:
            report = replace_vm(plane.env, address, found, reporter, names=names, allowed=plane.reach.check)
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
            f"the store has lost parts of {', '.join(lost)}; the machine does not run, with what there is of them. "
            "Put another point back into it; `keepstone store verify --deep` shows the damage"
        )
    with ending(plane, context, Status.WARNED if reporter.count else Status.COMPLETED):
        pass
