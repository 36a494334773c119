# SPDX-License-Identifier: Apache-2.0
"""A restore: a point goes back to where it came from, or to another place on this machine."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from keepstone.control import points
from keepstone.control.plane import Plane
from keepstone.control.work.loading import ending, subject
from keepstone.control.work.reporter import Reporter
from keepstone.errors import GuardRefused, NotFound, TargetExists
from keepstone.jobs import Context, Status
from keepstone.store import LocalReader
from keepstone.workloads.files import Conflict, RestoreOptions, folder_of, restore_files

__all__ = ["RESTORE", "restore"]

RESTORE = "Restore"


def restore(plane: Plane, context: Context) -> None:
    """The handler. Its arguments: `point`; `target`, a path of this machine, None for where it came from; for files
    `paths`, `conflict` and `delete`."""
    about = subject(plane, context)
    wanted = context.claim.arguments
    store = plane.stores.open(about.vault.id)
    with plane.look() as connection:
        commit = points.find(connection, about.item, wanted["point"]).commit_id
    reader = store.reader(store.points.find(commit))
    reporter = Reporter(context)
    if reader.point.kind == "files":
        target = Path(wanted["target"]) if wanted["target"] else folder_of(reader)
        _check(plane, target)
        lost = _files(plane, reader, target, wanted, reporter)
    else:
        target = Path(wanted["target"] or about.item.source["path"])
        _check(plane, target)
        lost = _image(plane, reader, target, reporter, overwrite=not wanted["target"])
    context.result({"files": reporter.files, "warnings": reporter.warnings, "target": str(target)})
    with ending(plane, context, Status.WARNED if lost or reporter.count else Status.COMPLETED):
        pass


def _files(plane: Plane, reader: LocalReader, target: Path, wanted: dict[str, Any], reporter: Reporter) -> bool:
    """Whether something was left out."""
    in_place = not wanted["target"] or bool(wanted.get("conflict"))
    options = RestoreOptions(
        paths=tuple(os.fsencode(path) for path in wanted.get("paths") or ()),
        in_place=in_place,
        conflict=Conflict(wanted.get("conflict") or Conflict.OVERWRITE),
        delete=bool(wanted.get("delete")) and in_place,
    )
    report = restore_files(plane.env, reader, target, options, reporter)
    return bool(report.failed)


def _image(plane: Plane, reader: LocalReader, target: Path, reporter: Reporter, *, overwrite: bool) -> bool:
    """Whether something was lost."""
    from keepstone.disks import RawSink, RawSource
    from keepstone.workloads.images import image_size, restore_image

    if not target.parent.is_dir():
        raise NotFound(f"the folder of {target} does not exist; make it, or choose another target")
    there = target.exists()
    if there and not overwrite:
        raise TargetExists(f"{target} is there already; choose another target, or restore to the original location")
    with ExitStack() as stack:
        sink = stack.enter_context(RawSink(plane.env, target, image_size(reader), overwrite=there))
        existing = stack.enter_context(RawSource(plane.env, target)) if there else None
        return bool(restore_image(plane.env, reader, sink, reporter, existing=existing))


def _check(plane: Plane, target: Path) -> None:
    """`GuardRefused` for what would write over the service itself."""
    root = plane.root.resolve()
    if target.resolve().is_relative_to(root):
        raise GuardRefused(f"{target} is in the service's own folder; choose another target")
