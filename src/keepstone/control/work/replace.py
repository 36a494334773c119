# SPDX-License-Identifier: Apache-2.0
"""The disks of a machine's point, back into the machine.

First there is a point of what is there now, unless somebody said not to: whoever chose the wrong point goes back to it.
A worker that takes the job over goes on where the one before it ended, without another such point (see
`workloads.kvm.replace`, which remembers in QEMU that it has begun).
"""

from __future__ import annotations

from keepstone.catalogue import first, points
from keepstone.control import points as made
from keepstone.control import virtual_machines
from keepstone.control.plane import Plane
from keepstone.control.work.loading import Subject, ending
from keepstone.control.work.reporter import Reporter
from keepstone.errors import SourceFailed, Unsupported
from keepstone.jobs import Context, Status
from keepstone.store import PointRecord, Store
from keepstone.vault import RecoveryPoint
from keepstone.workloads.hypervisors import QemuAddress, address_of
from keepstone.workloads.hypervisors.backup import backup_vm
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
        safety = _safety(plane, context, about, store, reporter)
    with made.opened(store, point) as reader:
        found = machine_of(reader)
        names = wanted_disks(found, context.claim.arguments.get("disks"))
        report = replace_disks(plane.env, machine, found, reporter, names=names)
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


def _safety(plane: Plane, context: Context, about: Subject, store: Store, reporter: Reporter) -> str:
    """Make a point of the machine as it is; its name. One that an earlier attempt of the job made does as well."""
    found = made.commit_of_job(store, context.claim.id) if context.claim.attempt > 1 else None
    if found is None:
        name = made.store_name(about.container.friendly, about.item)
        tags = made.tags(about.item.id, context.claim.id, "Full", None)
        with store.writer(name, made.MACHINE, tags=tags) as writer:
            owner = f"{store.descriptor.store}/{about.item.id}"
            commit = backup_vm(plane.env, writer, about.item.source, reporter, owner=owner).commit
        record = store.commits.get(commit)
        assert isinstance(record, PointRecord)
        found = commit, record
    point = made.of_record(about.item, *found)
    with plane.change() as change:
        mine = points.c.item == point.item, points.c.name == point.name
        if first(change.connection, RecoveryPoint, *mine) is None:
            made.add(change.connection, point)
    return point.name
