# SPDX-License-Identifier: Apache-2.0
"""A restore of a point to this machine, where its `agent.toml` allows it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.reading import nearest
from keepstone.agent.system import Folders
from keepstone.env import Env
from keepstone.objects import write_private
from keepstone.workloads.restoring import going_on, refuse_occupied, restore_point, restored, wants_vacant

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["restore"]

_BEGUN = "begun"  # folder of the agent's state: a file for each restore that found nothing at its target
_OLD = 30 * 86_400 * 10**9


def restore(env: Env, order: Order, configuration: Configuration, report: Report) -> tuple[Path, bool]:
    """Where it went to, and whether something was left out."""
    folders = order.folders
    paths = Paths(configuration, folders.configuration, folders)

    def allowed(target: Path) -> Path:
        found = paths.target(str(target))
        if target.is_relative_to(folders.restored):  # what is there is this agent's alone
            folders.restored.mkdir(mode=0o700, parents=True, exist_ok=True)
        return found

    wanted = order.work.arguments
    report.step(f"reads the point, and writes to {wanted.get('target') or 'where it came from'}")
    note: Path | None = None
    with nearest(env, order, configuration, report) as whole, restored(env, whole, wanted) as reader:
        if wants_vacant(reader, wanted):
            note = _note(folders, order)
            if _begin(env, note, allowed(Path(wanted["target"]))):
                report.step("goes on where the attempt before it ended")
                wanted = going_on(wanted)
        done = restore_point(env, reader, wanted, allowed, report)
    if note is not None:
        note.unlink(missing_ok=True)
    return done


def _note(folders: Folders, order: Order) -> Path:
    """What says that this job has begun. Its name is what the service says, and no part of a path."""
    return folders.state / _BEGUN / hashlib.sha256(order.work.job.encode()).hexdigest()


def _begin(env: Env, note: Path, target: Path) -> bool:
    """Whether an attempt of this job has begun before, by its `note`; else nothing may be at the target, and it does
    now. What old jobs have left is forgotten: of those that failed, nobody comes again."""
    if note.exists():
        return True
    refuse_occupied(target)
    if note.parent.is_dir():
        for other in note.parent.iterdir():
            if env.wall_time() - other.stat().st_mtime_ns > _OLD:
                other.unlink(missing_ok=True)
    write_private(env, note, str(target).encode())
    return False
