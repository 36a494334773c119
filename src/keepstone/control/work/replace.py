# SPDX-License-Identifier: Apache-2.0
"""The disks of a machine's point, back into the machine.

First there is a point of what is there now, unless somebody said not to: whoever chose the wrong point goes back to it.
A worker that takes the job over goes on where the one before it ended, without another such point (see
`workloads.kvm.replace` and `workloads.libvirt.replace`, which remember with the machine that they have begun).

On another host its agent does the same (`agent/replacing.py`).
"""

from __future__ import annotations

from keepstone.control import snapshots, virtual_machines
from keepstone.control.plane import Plane
from keepstone.control.points import of_record, opened
from keepstone.control.sizes import octets
from keepstone.control.work.backup import enlist, make
from keepstone.control.work.loading import Subject, ending
from keepstone.control.work.reporter import Reporter
from keepstone.errors import JobCancelled
from keepstone.jobs import Context, Status
from keepstone.vault import RecoveryPoint
from keepstone.workloads.hypervisors import address_of
from keepstone.workloads.hypervisors.replace import check_vm, check_whole, has_half, replace_vm
from keepstone.workloads.machines import machine_of, wanted_disks

__all__ = ["replace"]


def replace(plane: Plane, context: Context, about: Subject, point: RecoveryPoint) -> None:
    """Do it. Arguments of the job: `disks`, as in `restore_point`, and `safety`."""
    for path in virtual_machines.paths(about.item.source):
        plane.reach.check(path)
    address, reach = address_of(about.item.source), plane.reach.check
    reporter = Reporter(context)
    store = plane.stores.open(about.vault.id)
    safety = ""
    with opened(store, point) as reader:
        found = machine_of(reader)
        names = wanted_disks(found, context.claim.arguments.get("disks"))
        if not has_half(plane.env, address):
            check_vm(plane.env, address, found, names=names, allowed=reach, readable=reach)
            if context.claim.arguments.get("safety"):
                context.note("makes a point of what is there first")
                before = of_record(about.item, *make(plane, context, about, store, reporter))
                with plane.change() as change:
                    enlist(change, before)
                safety = before.name
                context.note(f"point {safety} has what was there")
        context.note(f"writes over the disks what differs from point {point.name}")
        try:
            report = replace_vm(plane.env, address, found, reporter, names=names, allowed=reach, readable=reach)
        except JobCancelled as error:
            if not has_half(plane.env, address):
                raise
            # Whoever cancelled it has to hear how the machine is.
            with plane.queue.ending(context.claim, Status.CANCELLED, {"code": error.code, "message": str(error)}):
                return
        finally:
            snapshots.look(plane, about.item)  # they went first
    for put in report.disks:
        context.note(f"{put.disk.name}: {octets(put.changed)} were written")
    context.result(
        {
            "files": len(report.disks),
            "fresh": sum(put.changed for put in report.disks),
            "warnings": reporter.warnings,
            "target": address.place,
            "point": safety or None,
        }
    )
    check_whole(report)
    with ending(plane, context, Status.WARNED if reporter.count else Status.COMPLETED):
        pass
