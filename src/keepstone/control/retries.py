# SPDX-License-Identifier: Apache-2.0
"""A job once more: the same work with what its job was asked for, as it is allowed now.

It is a new job. What was asked for is checked again as far as things may have changed since: the item and the point are
there, its machine has an agent, nothing of the same kind goes on.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from keepstone.catalogue import containers as known
from keepstone.catalogue import first
from keepstone.control import agents, drills, footprint, hypervisors, items, points
from keepstone.control.jobs import Job
from keepstone.control.plane import Change
from keepstone.control.work.footprint import COUNT
from keepstone.control.work.restore import RESTORE
from keepstone.errors import Conflict, InvalidRequest, NotFound
from keepstone.jobs import BACKUP, Status
from keepstone.vault import Container, Vault

__all__ = ["RETRIED", "is_retried", "retry"]

RETRIED = (BACKUP, RESTORE, drills.DRILL, hypervisors.DISCOVER, COUNT)
"""What can be asked for again. What the service asks for by itself comes again by itself."""
_UNDONE = (Status.FAILED, Status.CANCELLED, Status.WARNED)


def is_retried(job: Job) -> bool:
    """Whether it can be."""
    return job.operation in RETRIED and job.status in _UNDONE


def retry(change: Change, vault: Vault, job: Job, activity: str) -> UUID:
    """Ask for it; the new job. `InvalidRequest` for one that goes on, went well or is of a kind that nobody asks for;
    `NotFound`, `Conflict` where it cannot be done any more, or not now."""
    if not is_retried(job):
        raise InvalidRequest(
            f"job {job.id} ({job.operation}) is {job.status}; jobs of {', '.join(RETRIED)} can be done once more when "
            "they have failed, were cancelled or have warnings",
            code="UserErrorJobNotRetriable",
        )
    if job.operation == COUNT:
        return footprint.ask(change, vault, activity)
    if job.operation == hypervisors.DISCOVER:
        asked = hypervisors.ask(change, vault, activity)
        if not asked:
            raise Conflict("no hypervisor of the vault can be looked at now: the agents of their hosts do not answer")
        return asked[0]
    assert job.item is not None
    item = items.get(change.connection, job.item)
    held = first(change.connection, Container, known.c.id == item.container)
    if held is None:
        raise NotFound(f"what '{item.friendly}' is on was removed meanwhile")
    if job.operation == BACKUP:
        until = job.arguments.get("until")
        return items.back_up(change, vault, held, item, datetime.fromisoformat(until) if until else None, activity)
    point = points.find(change.connection, item, str(job.arguments.get("point")))
    if job.operation == drills.DRILL:
        return drills.ask(change, vault, held, item, point, activity)
    agent = None
    if job.machine is not None:
        host = first(change.connection, Container, known.c.id == job.machine)
        if host is None:
            raise NotFound("the machine that was to restore is not registered any more; begin a new restore")
        agent = agents.serving(change.connection, host)
    return change.plane.queue.enqueue(
        change.connection, RESTORE, job.arguments, vault=vault.id, item=item.id, machine=agent, activity=activity
    )
