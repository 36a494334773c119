# SPDX-License-Identifier: Apache-2.0
"""A point in the tree of this machine, read-only, until its job is cancelled, somebody unmounts it, or the agent ends.

What is looked at is read from the service then. Where that cannot be reached for `PATIENCE` seconds, whoever looks gets
an error, and may look again: nobody waits for ever in the kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.reading import reading
from keepstone.env import Env
from keepstone.errors import AccessDenied, KeepstoneError, NotFound
from keepstone.mount import Mount, mount_point, sweep
from keepstone.objects import failure
from keepstone.store import Reader

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["PATIENCE", "mount"]

PATIENCE = 30.0
"""Seconds; a try that is under way then may take as long again."""
_LOOK = 0.25  # seconds between two looks whether the job goes on


def mount(env: Env, order: Order, configuration: Configuration, report: Report) -> None:
    """Mount, and come back when it is unmounted. `JobCancelled`; what `Paths.target`, `reading` and `mount_point`
    raise."""
    work, folders = order.work, order.folders
    where = Paths(configuration, folders.configuration, folders).target(str(work.arguments["target"]))
    sweep(where)
    with reading(env, order, configuration, report, patience=PATIENCE) as reader, _directory(folders.restored, where):
        mounted = _mounted(env, reader, where, report, shared=bool(work.arguments.get("shared")))
        with mounted:
            report.holds(mounted.close)
            report.mounted(where)
            while not mounted.wait(_LOOK):
                report.check()


def _mounted(env: Env, reader: Reader, where: Path, report: Report, *, shared: bool) -> Mount:
    def lose(path: bytes, error: KeepstoneError) -> None:
        report.warn(path, f"cannot be read: {error}")

    try:
        return mount_point(env, reader, where, shared=shared, lost=lose)
    except AccessDenied as error:
        raise AccessDenied(
            f"{error}. The unit keepstone-agent.service may not mount unless a drop-in says so: see docs/AGENTS.md"
        ) from error


@contextlib.contextmanager
def _directory(own: Path, where: Path) -> Iterator[None]:
    """A directory to mount at: one that was made for that goes with the mount."""
    made = False
    try:
        if where.is_relative_to(own):  # what is there is this agent's alone
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            where.mkdir(mode=0o700)
            made = True
        except FileExistsError:
            pass
    except OSError as error:
        raise failure(error, f"the directory {where}", missing=NotFound) from error
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # somebody is in it still, or has put something there
                where.rmdir()
