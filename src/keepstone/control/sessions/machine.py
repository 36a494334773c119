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
from keepstone.control import clientkeys, hypervisors, looks, snapshots, virtual_machines
from keepstone.control import items as protected
from keepstone.control import points as made
from keepstone.control.hypervisors import DISCOVER
from keepstone.control.looks import LOOK
from keepstone.control.mounting import MOUNT
from keepstone.control.plane import Plane
from keepstone.control.work.backup import enlist, failed, remember
from keepstone.control.work.loading import Subject, ending, subject
from keepstone.control.work.restore import CREATE, REPLACE, RESTORE
from keepstone.errors import InvalidRequest, JobLost, KeepstoneError, NotFound
from keepstone.jobs import BACKUP, Claim, Context, Status, log
from keepstone.remote.wire import KEPT_DAYS, NEAR, STEPS, Beat, End, Plan, Step, Told, Work
from keepstone.store import PointRecord
from keepstone.vault import Container, RecoveryPoint, folded

__all__ = ["OPERATIONS", "beat", "claim", "end", "held", "kept", "makes_safety_point", "plan", "safety_point"]

OPERATIONS = (BACKUP, RESTORE, MOUNT, DISCOVER, LOOK)
"""What an agent does."""
_HELD = (Status.RUNNING, Status.CANCELLING)
_KEPT = 20  # warnings that are kept with a job, and snapshots of which an agent tells
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
        if taken.operation == LOOK:
            asked = looks.wanted(plane, taken)
            if asked:
                return _plain(taken, str(taken.arguments.get("machine")), {}, {"items": asked})
            with plane.queue.ending(taken, Status.COMPLETED):
                pass
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
        work = _work(plane, machine, about, taken)
        if makes_safety_point(taken) and taken.attempt > 1 and safety_point(plane, about, taken) is not None:
            work = msgspec.structs.replace(work, arguments=work.arguments | {"safety": False})
        return work


def _work(plane: Plane, machine: UUID, about: Subject, taken: Claim) -> Work:
    source = about.item.source
    told = {key: taken.arguments[key] for key in _TOLD if key in taken.arguments}
    if virtual_machines.is_running(about.item):
        if taken.operation == BACKUP:
            told[KEPT_DAYS] = snapshots.days_of(plane, about.item)
        elif taken.operation == RESTORE:
            told[NEAR] = snapshots.has(plane, about.container, about.item, str(taken.arguments["point"]), machine)
    return Work(
        job=str(taken.id),
        token=taken.token,
        operation=taken.operation,
        attempt=taken.attempt,
        item=str(about.item.id),
        name=about.item.friendly,
        source=source,
        workload=about.item.workload,
        arguments=told,
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
    return _plain(taken, hypervisor.friendly, dict(hypervisors.endpoints(hypervisor)), {})


def _plain(taken: Claim, name: str, source: dict[str, Any], arguments: dict[str, Any]) -> Work:
    """A job of no item."""
    return Work(
        job=str(taken.id),
        token=taken.token,
        operation=taken.operation,
        attempt=taken.attempt,
        item="",
        name=name,
        source=source,
        workload="",
        arguments=arguments,
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
    What it says of a backup that is over are the snapshots that there are. Asked again, nothing changes."""
    status = Status(said.status) if said.status in set(_ENDS) else Status.FAILED
    try:
        mine, known = _held(plane, machine, said.job, said.token)
    except JobLost:
        if said.kept is not None:
            _note_kept(plane, machine, said, said.kept)
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
    if mine.operation == RESTORE:
        result |= {"near": said.near}
        if mine.arguments.get("mode") == REPLACE and said.kept is not None and mine.item is not None:
            with plane.change() as change:
                snapshots.only(change.connection, mine.item, said.kept[:_KEPT])
    if mine.operation == MOUNT:
        result |= {"files": None, "point": mine.arguments.get("point")}
    context.result(result)
    if status in (Status.COMPLETED, Status.WARNED):
        if mine.operation == DISCOVER:
            with plane.change() as change:
                wrong = hypervisors.told(change, mine.vault, str(mine.arguments.get("hypervisor")), said.found)
            context.result(result | {"files": len(said.found), "warnings": kept([*said.warnings, *wrong])})
            status = Status.WARNED if wrong else status
        if mine.operation == LOOK:
            with plane.change() as change:
                looks.told(change, mine, said.found)
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


def _note_kept(plane: Plane, machine: UUID, said: End, stamps: Sequence[int]) -> None:
    """What an agent says of the snapshots of an item whose backup it has brought to its end. Of another one, or of one
    whose point is gone by now, nothing is kept."""
    mine = jobs.c.id == UUID(said.job), jobs.c.machine == machine, jobs.c.token == said.token
    over = jobs.c.operation == BACKUP, jobs.c.status.in_((Status.COMPLETED, Status.WARNED))
    with plane.look() as connection:
        row = connection.execute(sa.select(jobs.c.item, jobs.c.progress).where(*mine, *over)).first()
        if row is None:
            return
        try:
            item = protected.get(connection, row.item)
            point = made.find(connection, item, str(row.progress["result"]["point"]))
        except NotFound:
            return
    record = plane.stores.open(point.vault).commits.get(point.commit_id)
    if isinstance(record, PointRecord):
        with plane.change() as change:
            snapshots.note(change, point, record, snapshots.days_of(plane, item), stamps[:_KEPT])
