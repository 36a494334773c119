# SPDX-License-Identifier: Apache-2.0
"""Moving a machine that runs from a point to its own images, while it runs.

QEMU itself copies what an overlay lacks into it (`block-stream`), disk after disk, and then opens the point no more.
Whatever ends that early, what was copied stays, and the machine goes on as before; the next move copies the rest.
Everything is asked of QEMU, so that any process can do it that reaches the monitor.
"""

from __future__ import annotations

import contextlib
from typing import Any

from keepstone.env import Env
from keepstone.errors import Conflict, SourceFailed
from keepstone.workloads.kvm.qmp import Monitor, Refused
from keepstone.workloads.progress import Progress
from keepstone.workloads.running.command import base_of, node_of

__all__ = ["move"]

_JOB = "keepstone-move"
_PACE = 0.1
_DISKS = 1000


def move(env: Env, monitor: Monitor, progress: Progress) -> None:
    """On return the machine needs its point no more. `SourceFailed` where the point cannot be read or the images not
    be written, `Conflict` where somebody moves it already, `Gone`."""
    nodes = {str(node["node-name"]): node for node in monitor.execute("query-named-block-nodes", flat=True)}
    left = [number for number in range(_DISKS) if base_of(number) in nodes]
    progress.expect(sum(int(nodes[node_of(number)]["image"]["virtual-size"]) for number in left))
    for number in left:
        try:
            monitor.execute(
                "block-stream",
                job_id=_JOB,
                device=node_of(number),
                auto_dismiss=False,
            )
        except Refused as error:
            if any(job["id"] == _JOB for job in monitor.execute("query-jobs")):
                raise Conflict("the machine is being moved already; wait for its end") from error
            raise
        _follow(env, monitor, progress)
        monitor.execute("blockdev-del", node_name=base_of(number))


def _follow(env: Env, monitor: Monitor, progress: Progress) -> None:
    """Until the job is over; whatever stops us stops it."""
    done = 0
    try:
        while True:
            job = _job(monitor)
            if job is None:
                raise SourceFailed("somebody else ended the move of the machine; it runs from its point as before")
            current = int(job["current-progress"])
            progress.advance(max(0, current - done))
            done = max(done, current)
            if job["status"] == "concluded":
                break
            env.sleep(_PACE)
    except BaseException:
        with contextlib.suppress(Refused):
            monitor.execute("job-cancel", id=_JOB)
        monitor.wait(lambda: (job := _job(monitor)) is None or job["status"] == "concluded", "the end of the move")
        _dismiss(monitor)
        raise
    _dismiss(monitor)
    if "error" in job:
        raise SourceFailed(f"the machine cannot be moved: {str(job['error'])[:500]}; it runs from its point as before")


def _dismiss(monitor: Monitor) -> None:
    with contextlib.suppress(Refused):
        monitor.execute("job-dismiss", id=_JOB)


def _job(monitor: Monitor) -> dict[str, Any] | None:
    return next((job for job in monitor.execute("query-jobs") if job["id"] == _JOB), None)
