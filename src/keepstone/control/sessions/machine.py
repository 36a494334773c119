# SPDX-License-Identifier: Apache-2.0
"""The jobs that a machine does itself: what its agent is told of them, and what it may say.

An agent is believed in what it says of its own progress. Which job it holds, of which item, and what became of it in
the store is the service's to know: everything here asks for the job's row, its machine and its token first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from keepstone.catalogue import containers, first, items, jobs, schedules
from keepstone.control import clientkeys, hypervisors, virtual_machines
from keepstone.control import points as made
from keepstone.control.hypervisors import DISCOVER
from keepstone.control.mounting import MOUNT
from keepstone.control.plane import Plane
from keepstone.control.work.backup import enlist, failed, remember
from keepstone.control.work.loading import Subject, ending, subject
from keepstone.control.work.restore import CREATE, REPLACE, RESTORE
from keepstone.errors import InvalidRequest, JobLost, KeepstoneError
from keepstone.jobs import BACKUP, Claim, Context, Status, log
from keepstone.remote.wire import STEPS, Beat, End, Plan, Step, Told, Work
from keepstone.vault import Container, RecoveryPoint, folded

__all__ = ["OPERATIONS", "beat", "claim", "end", "held", "kept", "makes_safety_point", "plan", "safety_point"]

OPERATIONS = (BACKUP, RESTORE, MOUNT, DISCOVER)
"""What an agent does."""
_HELD = (Status.RUNNING, Status.CANCELLING)
_KEPT = 20  # warnings that are kept with a job
_BEATS = 64  # jobs of which a machine tells at a time
_PLANNED = 1000  # items whose next times are told
_LONGEST = 2000  # characters of what an agent says of its job
_AGO = 7 * 86_400_000  # milliseconds that a step may be back
_UNMOUNTED = {"code": "AgentStopped", "message": "the mount ended with the agent that had it; mount the point again"}
_ENDS = (Status.COMPLETED, Status.WARNED, Status.FAILED, Status.CANCELLED)


def owner(machine: UUID) -> str:
    """What the agent of a machine is called in the jobs that it holds."""
    return f"agent/{machine}"


def claim(plane: Plane, machine: UUID) -> Work | None:
    """The next job of this machine; None while there is none. A job whose point was made before its agent died is
    brought to its end here, and a mount, which ended with its agent."""
    while True:
        taken = plane.queue.claim(owner(machine), OPERATIONS, machine)
        if taken is None:
            return None
        context = Context(plane.queue, taken)
        if taken.operation == DISCOVER:
            work = _look(plane, taken)
            if work is not None:
                return work
            continue
        try:
            about = subject(plane, context)
        except KeepstoneError as error:  # such as an item that is gone: no agent can do anything about it
            with plane.queue.ending(taken, Status.FAILED, {"code": error.code, "message": str(error)}):
                pass
            continue
        if taken.operation == MOUNT and taken.attempt > 1:
            with plane.queue.ending(taken, Status.CANCELLED, _UNMOUNTED):
                pass
            continue
        if taken.operation == BACKUP and taken.attempt > 1:
            found = made.commit_of_job(plane.stores.open(about.vault.id), taken.id)
            if found is not None:
                remember(plane, context, about, *found, [])
                continue
        work = _work(about, taken)
        if makes_safety_point(taken) and taken.attempt > 1 and safety_point(plane, about, taken) is not None:
            work = msgspec.structs.replace(work, arguments=work.arguments | {"safety": False})
        return work


def _work(about: Subject, taken: Claim) -> Work:
    source = about.item.source
    return Work(
        job=str(taken.id),
        token=taken.token,
        operation=taken.operation,
        attempt=taken.attempt,
        item=str(about.item.id),
        name=about.item.friendly,
        source=source,
        workload=about.item.workload,
        arguments={key: taken.arguments[key] for key in _TOLD if key in taken.arguments},
        keys=clientkeys.of(about.item),
    )


def _look(plane: Plane, taken: Claim) -> Work | None:
    """To look at what a hypervisor has; None where that was unregistered meanwhile, and the job has ended so."""
    name = str(taken.arguments.get("hypervisor"))
    with plane.look() as connection:
        mine = containers.c.vault == taken.vault, containers.c.key == folded(name)
        hypervisor = first(connection, Container, *mine)
    if hypervisor is None:
        with plane.queue.ending(taken, Status.CANCELLED):
            pass
        return None
    return Work(
        job=str(taken.id),
        token=taken.token,
        operation=taken.operation,
        attempt=taken.attempt,
        item="",
        name=hypervisor.friendly,
        source=dict(hypervisors.endpoints(hypervisor)),
        workload="",
        arguments={},
    )


def makes_safety_point(mine: Claim) -> bool:
    """Whether this restore makes a point of the machine as it is, before it puts disks back into it."""
    return mine.operation == RESTORE and mine.arguments.get("mode") == REPLACE and bool(mine.arguments.get("safety"))


def safety_point(plane: Plane, about: Subject, mine: Claim) -> RecoveryPoint | None:
    """The one that this job has made, which is listed from now on; None where it has none yet."""
    found = made.commit_of_job(plane.stores.open(about.vault.id), mine.id)
    if found is None:
        return None
    point = made.of_record(about.item, *found)
    with plane.change() as change:
        enlist(change, point)
    return point


_TOLD = (
    "mode",
    "address",
    "guest",
    "safety",
    "name",
    "network",
    "point",
    "target",
    "paths",
    "conflict",
    "delete",
    "format",
    "part",
    "shared",
    "disks",
    "folder",
)


def held(plane: Plane, machine: UUID, job: str, token: int) -> Claim:
    """A job that this machine holds. `JobLost` where it does not, or not any more."""
    return _held(plane, machine, job, token)[0]


def _held(plane: Plane, machine: UUID, job: str, token: int) -> tuple[Claim, int]:
    """And how many of its steps are in its log."""
    try:
        identity = UUID(job)
    except ValueError as error:
        raise InvalidRequest(f"{job!r} is no job") from error
    mine = jobs.c.id == identity, jobs.c.machine == machine, jobs.c.token == token, jobs.c.status.in_(_HELD)
    with plane.look() as connection:
        row = connection.execute(sa.select(jobs).where(*mine)).mappings().first()
    if row is None:
        raise JobLost(f"job {job} is over, or somebody else's; this agent stops it")
    of, count = (row["progress"] or {}).get("steps") or (0, 0)
    return Claim(*(row[name] for name in Claim.__slots__)), count if of == token else 0


def _lines(plane: Plane, steps: Sequence[Step], known: int) -> list[list[str]]:
    """Of the log, for those steps that are not there yet. Moments are told by how long ago: a machine's clock may be
    wrong."""
    now = plane.env.utc()
    return [log.line(now - timedelta(milliseconds=min(one.ago, _AGO)), one.text) for one in steps[known:STEPS]]


def beat(plane: Plane, machine: UUID, beats: Sequence[Beat]) -> list[Told]:
    """Signs of life of jobs, with how far they are; what their agent is told."""
    told = []
    for one in beats[:_BEATS]:
        try:
            mine, known = _held(plane, machine, one.job, one.token)
            progress: dict[str, Any] = {"done": one.done, "expected": one.expected, "line": one.line[:_LONGEST]}
            progress["steps"] = one.token, max(known, len(one.steps))
            if one.target:
                progress["result"] = {"target": one.target[:_LONGEST], "point": mine.arguments.get("point")}
            cancelled = plane.queue.renew(mine, progress=progress, lines=_lines(plane, one.steps, known))
        except JobLost:
            told.append(Told(one.job, lost=True))
        else:
            if cancelled:
                told.append(Told(one.job, cancelled=True))
    return told


def plan(plane: Plane, machine: UUID) -> list[Plan]:
    """When the items of this machine are due next."""
    due = sa.select(items.c.id, items.c.friendly, sa.func.min(schedules.c.due))
    mine = due.join(schedules, schedules.c.item == items.c.id).where(items.c.container == machine)
    with plane.look() as connection:
        rows = connection.execute(mine.group_by(items.c.id, items.c.friendly).limit(_PLANNED)).all()
    return [Plan(str(item), name, moment.timestamp()) for item, name, moment in rows]


def kept(warnings: Sequence[str]) -> list[str]:
    """As many of them as are kept with a job, and so much of each."""
    return [text[:_LONGEST] for text in warnings[:_KEPT]]


def end(plane: Plane, machine: UUID, said: End) -> None:
    """What became of a job. A backup is completed by its point alone (`registry`): a machine only tells of its failure.
    Asked again, nothing changes."""
    status = Status(said.status) if said.status in set(_ENDS) else Status.FAILED
    try:
        mine, known = _held(plane, machine, said.job, said.token)
    except JobLost:
        return
    if mine.operation == BACKUP and status in (Status.COMPLETED, Status.WARNED):
        raise InvalidRequest("a backup is completed by committing its point; commit it, or say that it failed")
    context = Context(plane.queue, mine, _lines(plane, said.steps, known))
    context.progress(said.done, said.expected)
    for warning in kept(said.warnings):
        context.note(warning)
    result = {"files": said.files, "warnings": kept(said.warnings), "target": said.target[:_LONGEST]}
    if makes_safety_point(mine):
        point = safety_point(plane, subject(plane, context), mine)
        result |= {"point": point and point.name}
    if mine.operation == MOUNT:
        result |= {"files": None, "point": mine.arguments.get("point")}
    context.result(result)
    if status in (Status.COMPLETED, Status.WARNED):
        if mine.operation == DISCOVER:
            with plane.change() as change:
                wrong = hypervisors.told(change, mine.vault, str(mine.arguments.get("hypervisor")), said.found)
            context.result(result | {"files": len(said.found), "warnings": kept([*said.warnings, *wrong])})
            status = Status.WARNED if wrong else status
        if mine.operation == RESTORE and mine.arguments.get("mode") == CREATE:
            about = subject(plane, context)
            with plane.change() as change:
                path, wrong = virtual_machines.made(change, about.vault, about.container, mine.arguments, said.found)
            context.result(result | {"machine": path or None, "warnings": kept([*said.warnings, *wrong])})
            status = Status.WARNED if wrong else status
        with ending(plane, context, status):
            pass
        return
    if mine.operation == BACKUP and status == Status.FAILED:
        failed(plane, subject(plane, context))
    error = None
    if status == Status.FAILED or said.code:
        error = {"code": said.code[:64] or "AgentFailed", "message": said.message[:_LONGEST]}
    with plane.queue.ending(mine, status, error, progress=context.final, lines=context.lines()):
        pass
