# SPDX-License-Identifier: Apache-2.0
"""A restore of a point to this machine, where its `agent.toml` allows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.reading import nearest
from keepstone.env import Env
from keepstone.workloads.restoring import restore_point, restored

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["restore"]


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
    with nearest(env, order, configuration, report) as whole, restored(env, whole, wanted) as reader:
        return restore_point(env, reader, wanted, allowed, report)
