# SPDX-License-Identifier: Apache-2.0
"""A restore of a point to this machine, where its `agent.toml` allows it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.reading import nearest
from keepstone.agent.system import Folders
from keepstone.env import Env
from keepstone.files import make_folders
from keepstone.objects import write_private
from keepstone.workloads.restoring import going_on, new_places, refuse_occupied, restore_point, restored

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["restore"]

_BEGUN = "begun"  # folder of the agent's state: a file for each restore that found nothing at its target
_OLD = 30 * 86_400 * 10**9  # ns


def restore(env: Env, order: Order, configuration: Configuration, report: Report) -> tuple[Path, bool]:
    """Where it went to, and whether something was left out."""
    folders = order.folders
    paths = Paths(configuration, folders.configuration, folders)

    def allowed(target: Path) -> Path:
        found = paths.target(str(target))
        if target.is_relative_to(folders.restored):  # what is there is this agent's alone
            make_folders(env.fs, folders.restored)
        return found

    wanted = order.work.arguments
    report.step(f"reads the point, and writes to {wanted.get('target') or 'where it came from'}")
    note: Path | None = None
    with nearest(env, order, configuration, report) as whole, restored(env, whole, wanted) as reader:
        places = new_places(reader, wanted, allowed(Path(wanted["target"]))) if wanted.get("target") else []
        if places:
            note = _note(folders, order)
            if note.exists():
                report.step("goes on where the attempt before it ended")
                wanted = going_on(env, reader, wanted, places)
            else:
                refuse_occupied(env, reader, places)
                _begin(env, note)
        done = restore_point(env, reader, wanted, allowed, report)
    if note is not None:
        note.unlink(missing_ok=True)
    return done


def _note(folders: Folders, order: Order) -> Path:
    """What says that this job has begun at its target. The service, which names both, could give other targets to a job
    that has begun; and names are no part of a path."""
    told = f"{order.work.job}\0{order.work.arguments['target']}"
    return folders.state / _BEGUN / hashlib.sha256(os.fsencode(told)).hexdigest()


def _begin(env: Env, note: Path) -> None:
    """From now on what is at the target is this job's. What old jobs have left is forgotten: of those that failed,
    nobody comes again."""
    if note.parent.is_dir():
        for other in note.parent.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another job has just ended
                if env.wall_time() - other.stat().st_mtime_ns > _OLD:
                    other.unlink()
    write_private(env, note, b"")
