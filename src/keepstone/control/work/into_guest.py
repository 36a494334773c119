# SPDX-License-Identifier: Apache-2.0
"""Files of a machine's point, back into its guest, which goes on meanwhile.

Where a worker dies, its restore has left whole files, and folders that are not finished
(`workloads/inside/restore.py`). The next one goes on there, if the first had got so far as to write.
"""

from __future__ import annotations

from keepstone.control.guest_restores import depth, guest
from keepstone.control.plane import Plane
from keepstone.control.points import opened
from keepstone.control.sizes import octets
from keepstone.control.work.loading import Subject, ending
from keepstone.control.work.reporter import Reporter
from keepstone.control.work.restore import named
from keepstone.jobs import Context, Status
from keepstone.vault import RecoveryPoint
from keepstone.workloads.escaping import unescaped
from keepstone.workloads.files import Conflict
from keepstone.workloads.guestfiles.tree import guest_reader
from keepstone.workloads.inside import files_back

__all__ = ["into_guest"]

_NOTED = 20  # files beside others that the log has by name


def into_guest(plane: Plane, context: Context, about: Subject, point: RecoveryPoint) -> None:
    """Do it. Arguments of the job: `paths`, as they are shown; `guest`, a folder of the guest, None for where they came
    from; `conflict`, None where nothing may be there."""
    wanted = context.claim.arguments
    with plane.look() as connection:
        address = guest(connection, about.item)
    for path in address.paths:
        plane.reach.check(path)
    where = wanted["guest"] or "to where they came from"
    conflict = None if wanted["conflict"] is None else Conflict(wanted["conflict"])
    reporter = Reporter(context)
    context.note(
        f"reads point {point.name} of {point.made:%Y-%m-%d %H:%M}, and writes into the guest of {about.item.friendly}, "
        f"{where}: {named(wanted['paths'])}"
    )
    again = context.state is not None
    if again:
        context.note("goes on where the worker before it ended")

    def begins() -> None:
        context.checkpoint({"begun": True})
        context.note("nothing is in the way that nobody decided about; begins to write")

    store = plane.stores.open(about.vault.id)
    with opened(store, point) as reader, guest_reader(plane.env, reader) as files:
        paths = [unescaped(path) for path in wanted["paths"]]
        report = files_back(
            plane.env, files, address, paths, depth(about.item), wanted["guest"], conflict, reporter,
            begins=begins, again=again,
        )  # fmt: skip
    for _, place in report.kept[:_NOTED]:
        context.note(f"{place} lies beside what was there")
    context.note(
        f"{report.files:,} files, {report.links:,} links and {report.folders:,} folders are in the guest, "
        f"{octets(report.bytes)}" + (f"; {report.skipped:,} that were there were left" if report.skipped else "")
    )
    context.result(
        {
            "files": reporter.files,
            "warnings": reporter.warnings,
            "target": f"the guest of {about.item.friendly}, {where}",
        }
    )
    with ending(plane, context, Status.WARNED if reporter.count else Status.COMPLETED):
        pass
