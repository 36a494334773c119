# SPDX-License-Identifier: Apache-2.0
"""A restore: a point goes back to where it came from, or to another place on this machine. The disks of a machine that
runs go back by way of its hypervisor (`replace.py`), or it becomes a new one (`recover.py`); files out of them go to a
folder as any others, or into its guest (`into_guest.py`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keepstone.control import points
from keepstone.control.plane import Plane
from keepstone.control.sizes import octets
from keepstone.control.work.loading import ending, subject
from keepstone.control.work.near import nearest, taken
from keepstone.control.work.reporter import Reporter
from keepstone.env import Env
from keepstone.errors import GuardRefused, NotFound
from keepstone.jobs import Context, Status
from keepstone.remote.wire import CREATE, INTO_GUEST, REPLACE
from keepstone.store import Reader
from keepstone.workloads.files.tree import select
from keepstone.workloads.restoring import (
    FILES,
    going_on,
    new_places,
    paths_of,
    refuse_occupied,
    restore_point,
    restored,
)

__all__ = ["CREATE", "FILES", "INTO_GUEST", "REPLACE", "RESTORE", "named", "restore"]

RESTORE = "Restore"
_NAMED = 10  # paths that the log has by name


def restore(plane: Plane, context: Context) -> None:
    """The handler. Its arguments: `point`; `target`, a path of this machine, None for where it came from; for files
    `paths`, `conflict` and `delete`; for disks `format`; `mode`, where it is another restore than these."""
    about = subject(plane, context)
    wanted = context.claim.arguments
    with plane.look() as connection:
        point = points.find(connection, about.item, wanted["point"])
    if wanted.get("mode") == REPLACE:
        from keepstone.control.work.replace import replace

        replace(plane, context, about, point)
        return
    if wanted.get("mode") == CREATE:
        from keepstone.control.work.recover import recover

        recover(plane, context, about, point)
        return
    if wanted.get("mode") == INTO_GUEST:
        from keepstone.control.work.into_guest import into_guest

        into_guest(plane, context, about, point)
        return
    reporter = Reporter(context)
    with nearest(plane, about, point) as whole, restored(plane.env, whole, wanted) as reader:

        def allowed(target: Path) -> Path:
            plane.reach.check(target)
            if reader.point.kind == "files":
                _spare(plane, reader, target, wanted)
            return target

        origin = Path(about.item.source["path"])
        context.note(
            f"reads point {point.name} of {point.made:%Y-%m-%d %H:%M}, and writes to {wanted['target'] or origin}"
        )
        if wanted.get("mode") == FILES:
            context.note(f"of the files in its disks: {named(wanted['paths'])}")
        if wanted.get("target"):
            wanted = _begun(plane.env, context, reader, wanted, allowed(Path(wanted["target"])))
        target, lost = restore_point(plane.env, reader, wanted, allowed, reporter, origin=origin)
        near = taken(whole)
    context.note(f"{octets(reporter.done)} are restored to {target}")
    result = {"files": reporter.files, "warnings": reporter.warnings, "target": str(target), "near": near}
    context.result(result)
    with ending(plane, context, Status.WARNED if lost or reporter.count else Status.COMPLETED):
        pass


def _begun(env: Env, context: Context, reader: Reader, wanted: dict[str, Any], target: Path) -> dict[str, Any]:
    """The arguments for this attempt: the first one, or one that comes after a worker that died or was stopped."""
    places = new_places(reader, wanted, target)
    if not places:
        return wanted
    if context.state is None:
        refuse_occupied(env, reader, places)
        context.checkpoint({"begun": True})
        return wanted
    context.note("goes on where the worker before it ended")
    return going_on(env, reader, wanted, places)


def named(paths: list[str]) -> str:
    """Some of them, for the log of a job."""
    return ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else "")


def _spare(plane: Plane, reader: Reader, target: Path, wanted: Mapping[str, Any]) -> None:
    """`GuardRefused` where a restore to a folder around the service's own one would delete that, or write into it."""
    root, top = plane.reach.root, Path(os.path.realpath(target))
    if not root.is_relative_to(top):
        return
    own = root.relative_to(top)
    paths = [Path(os.path.normpath(os.fsdecode(path.lstrip(b"/")))) for path in paths_of(wanted)]
    if paths and not any(own.is_relative_to(path) or path.is_relative_to(own) for path in paths):
        return
    if wanted.get("delete"):
        raise GuardRefused(
            f"what the point does not have would be deleted in {target}, and the service's own folder {root} is in it; "
            "restore without deletion, or only paths beside it"
        )
    try:
        select(reader, [os.fsencode(own)])
    except NotFound:
        return
    raise GuardRefused(
        f"the point has a '{own}', and in {target} that is the service's own folder; restore to another folder, or "
        "only paths beside it"
    )
