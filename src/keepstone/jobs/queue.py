# SPDX-License-Identifier: Apache-2.0
"""The queue of jobs in the server's own database: who runs what, and what becomes of a job whose worker is gone.

A job is a row. A worker claims it for a lease and renews the lease while it works; a claim raises the row's `token`,
and every later write names the token that it was claimed with. So a worker that was taken for dead and comes back
writes nothing (a fencing token: Kleppmann, "How to do distributed locking", 2016). Clocks of several machines decide
only when a job is taken over, never who may write.

Invariants
* At most one worker holds a job's newest token, and only that one changes the row; but for `cancel`, which asks.
* A final state is never left.
* A job of a machine is claimed by that machine's agent alone, and one of no machine by the server's workers alone.
* A job comes to an end however many workers die on it: after `ATTEMPTS` of them it has failed, for what kills every
  worker would go on killing them. One of a machine waits for it; `abandon` ends what nobody will come for.
* What `checkpoint` took is durable when it returns, and the next worker begins from it.
* What its log tells is written in the transaction in which it happens.
* Whoever ends a job may change other tables in the same transaction (`ending`): a point and the end of its job are one
  fact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import Database, jobs
from keepstone.env import Env
from keepstone.errors import JobLost, JobNotFound
from keepstone.jobs import log

__all__ = ["ATTEMPTS", "LEASE", "Claim", "JobQueue", "Status", "Wanted"]

ATTEMPTS = 5
"""How many workers may die on one job."""
LEASE = timedelta(seconds=30)
"""After so long without a sign of life a worker counts as dead."""


class Status(StrEnum):
    """Azure's states of a job, and `Queued`, which Azure shows as InProgress."""

    QUEUED = "Queued"
    RUNNING = "InProgress"
    CANCELLING = "Cancelling"
    COMPLETED = "Completed"
    WARNED = "CompletedWithWarnings"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


_HELD = (Status.RUNNING, Status.CANCELLING)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in the hands of a worker. `state`: the newest checkpoint, None at the beginning. `machine`: whose agent
    has it; None for a worker of the server."""

    id: UUID
    vault: UUID
    item: UUID | None
    operation: str
    arguments: dict[str, Any]
    token: int
    attempt: int
    state: dict[str, Any] | None
    machine: UUID | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job that is asked for. `due`: from when on it may run; None: at once. `machine`: whose agent is to do it; None:
    a worker of the server."""

    vault: UUID
    item: UUID | None
    arguments: dict[str, Any]
    due: datetime | None = None
    machine: UUID | None = None


Ended = Callable[[sa.Connection, Claim, Status, "dict[str, Any] | None"], None]
"""Told of a job's end in the transaction of it: the job, how it ended, and its error."""


class JobQueue:
    """Safe for several threads and processes. `ended` is told of every end that a worker makes of a job."""

    def __init__(
        self, database: Database, env: Env, *, lease: timedelta = LEASE, ended: Ended = lambda *_: None
    ) -> None:
        self._database = database
        self._env = env
        self.lease = lease
        self._ended = ended

    def now(self) -> datetime:
        """What its clock says."""
        return self._env.utc()

    def enqueue(
        self,
        connection: sa.Connection,
        operation: str,
        arguments: dict[str, Any],
        *,
        vault: UUID,
        item: UUID | None = None,
        due: datetime | None = None,
        machine: UUID | None = None,
        priority: int = 0,
        activity: str | None = None,
    ) -> UUID:
        """Ask for a job, within the caller's transaction; its id."""
        wanted = Wanted(vault, item, arguments, due, machine)
        row = self._row(operation, wanted) | {"priority": priority, "activity": activity}
        connection.execute(jobs.insert(), row)
        identity: UUID = row["id"]
        return identity

    def enqueue_all(self, connection: sa.Connection, operation: str, wanted: Collection[Wanted]) -> None:
        """Ask for many jobs, within the caller's transaction."""
        if wanted:
            connection.execute(jobs.insert(), [self._row(operation, one) for one in wanted])

    def _row(self, operation: str, wanted: Wanted) -> dict[str, Any]:
        now = self._env.utc()
        return {
            "id": UUID(bytes=self._env.random(16), version=4),
            "vault": wanted.vault,
            "item": wanted.item,
            "machine": wanted.machine,
            "operation": operation,
            "arguments": wanted.arguments,
            "management": wanted.arguments.get("management"),
            "status": Status.QUEUED,
            "priority": 0,
            "created": now,
            "due": wanted.due or now,
            "token": 0,
            "attempt": 0,
        }

    def record(
        self,
        connection: sa.Connection,
        operation: str,
        arguments: dict[str, Any],
        *,
        vault: UUID,
        item: UUID | None = None,
        activity: str | None = None,
    ) -> UUID:
        """A job that the request itself has done, for those who look at jobs; its id."""
        row = self._row(operation, Wanted(vault, item, arguments, None))
        row |= {"status": Status.COMPLETED, "started": row["created"], "ended": row["created"], "activity": activity}
        connection.execute(jobs.insert(), row)
        identity: UUID = row["id"]
        return identity

    def is_open(self, connection: sa.Connection, item: UUID, operation: str, part: str) -> bool:
        """Whether a job of this kind waits or goes on for this item and part of its policy."""
        mine = jobs.c.item == item, jobs.c.operation == operation, jobs.c.status.in_((Status.QUEUED, *_HELD))
        rows = connection.execute(sa.select(jobs.c.arguments).where(*mine)).scalars()
        return any(arguments.get("part") == part for arguments in rows)

    def open_parts(self, connection: sa.Connection, operation: str) -> set[tuple[UUID | None, str]]:
        """All items, and the parts of their policies, for which a job of this kind waits or goes on."""
        mine = jobs.c.operation == operation, jobs.c.status.in_((Status.QUEUED, *_HELD))
        rows = connection.execute(sa.select(jobs.c.item, jobs.c.arguments).where(*mine))
        return {(item, arguments.get("part", "")) for item, arguments in rows}

    def waiting(self, operations: Collection[str], machine: UUID | None = None) -> bool:
        """Whether `claim` would find one: only a read, for those who look often."""
        wanted = sa.select(jobs.c.id).where(*_of(operations, machine), _claimable(self._env.utc())).limit(1)
        with self._database.look() as connection:
            return connection.execute(wanted).first() is not None

    def machines_waiting(self, connection: sa.Connection) -> set[UUID]:
        """The machines for which `claim` would find one, of whatever operation: one look for all of them."""
        # The function of the status keeps the database from the index of it, by which it would look up every row.
        status = sa.func.coalesce(jobs.c.status, "")
        mine = _IS_OPEN, jobs.c.machine.is_not(None), _claimable(self._env.utc(), status)
        return set(connection.execute(sa.select(jobs.c.machine).distinct().where(*mine)).scalars())

    def claim(self, owner: str, operations: Collection[str], machine: UUID | None = None) -> Claim | None:
        """The next of these that may run, or that a dead worker held; None while there is none. `machine`: whose jobs;
        None for those of no machine."""
        while True:
            with self._database.change() as connection:
                row = self._take(connection, owner, operations, machine)
                if row is None:
                    return None
                claim = Claim(*(row[name] for name in Claim.__slots__))
                before = "" if claim.attempt == 1 else f", attempt {claim.attempt}: whoever had it before is gone"
                self._note(connection, claim.id, row["log"], f"taken by {owner}{before}")
                if row["status"] == Status.CANCELLING:  # its worker died on the way to the end that was asked for
                    self._end(connection, claim, Status.CANCELLED, None)
                elif claim.attempt > ATTEMPTS:
                    message = (
                        f"{ATTEMPTS} workers died while they ran this job; see what they have in common, then retry"
                    )
                    self._end(connection, claim, Status.FAILED, {"code": "WorkersDied", "message": message})
                else:
                    return claim

    def _take(
        self, connection: sa.Connection, owner: str, operations: Collection[str], machine: UUID | None
    ) -> sa.RowMapping | None:
        """Give the next job a new owner and a new token; its row then."""
        now = self._env.utc()
        next_one = (
            sa.select(jobs.c.id)
            .where(*_of(operations, machine), _claimable(now))
            .order_by(jobs.c.priority.desc(), jobs.c.due, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        taken = (
            jobs.update()
            .where(jobs.c.id == next_one.scalar_subquery())
            .values(
                status=sa.case((jobs.c.status == Status.QUEUED, Status.RUNNING), else_=jobs.c.status),
                owner=owner,
                lease_until=now + self.lease,
                token=jobs.c.token + 1,
                attempt=jobs.c.attempt + 1,
                started=sa.func.coalesce(jobs.c.started, sa.literal(now, jobs.c.started.type)),
            )
            .returning(jobs)
        )
        return connection.execute(taken).mappings().first()

    def renew(self, claim: Claim, *, progress: dict[str, Any] | None = None, lines: Sequence[list[str]] = ()) -> bool:
        """Give a sign of life; whether the job is to be cancelled. `lines`: of its log, see `jobs.log`. `JobLost` where
        it is somebody else's by now."""
        values: dict[str, Any] = {"lease_until": self._env.utc() + self.lease}
        if progress is not None:
            values["progress"] = progress
        with self._database.change() as connection:
            return self._write(connection, claim, values, lines) == Status.CANCELLING

    def checkpoint(self, claim: Claim, state: dict[str, Any]) -> bool:
        """Note from where to go on; whether the job is to be cancelled. `JobLost`."""
        values = {"lease_until": self._env.utc() + self.lease, "state": state}
        with self._database.change() as connection:
            return self._write(connection, claim, values) == Status.CANCELLING

    def hand_back(self, claim: Claim) -> None:
        """Leave the job to whoever claims it next, as if this claim had not been, but for what `checkpoint` took. One
        that is to be cancelled comes to its end with the next claim. `JobLost`."""
        now = self._env.utc()
        running = jobs.c.status == Status.RUNNING
        values: dict[str, Any] = {
            "status": sa.case((running, Status.QUEUED), else_=jobs.c.status),
            "owner": None,
            "lease_until": sa.case((running, sa.null()), else_=sa.literal(now, jobs.c.lease_until.type)),
            "token": jobs.c.token + 1,  # whoever handed it back writes nothing any more
            "attempt": jobs.c.attempt - 1,
        }
        with self._database.change() as connection:
            self._write(connection, claim, values, [log.line(now, "handed back by its worker, which stops")])

    def bury(self, owner: str) -> int:
        """The worker of this name is dead, says who saw it end: its jobs need not wait for their leases; how many."""
        mine = jobs.c.owner == owner, jobs.c.status.in_(_HELD)
        with self._database.change() as connection:
            return connection.execute(jobs.update().where(*mine).values(lease_until=self._env.utc())).rowcount

    @contextmanager
    def ending(
        self,
        claim: Claim,
        status: Status,
        error: dict[str, Any] | None = None,
        *,
        progress: dict[str, Any] | None = None,
        lines: Sequence[list[str]] = (),
    ) -> Iterator[sa.Connection]:
        """The transaction in which the job ends, with whatever else the block changes; nothing of it where the block
        fails. `progress`: how far it came in the end. `lines`: the last ones of its log. `JobLost`."""
        with self._database.change() as connection:
            # First: who lost the job changes nothing else either.
            self._end(connection, claim, status, error, progress, lines)
            yield connection

    def cancel(self, connection: sa.Connection, identity: UUID) -> Status:
        """Ask for the end of a job; its state then. One that is over stays as it is. `JobNotFound`."""
        now = self._env.utc()
        mine = jobs.c.id == identity
        waiting = mine & (jobs.c.status == Status.QUEUED)
        asked = connection.execute(jobs.update().where(waiting).values(status=Status.CANCELLED, ended=now)).rowcount
        silent = jobs.c.machine.is_not(None), jobs.c.status.in_(_HELD), jobs.c.lease_until < now
        asked += self._abandon(connection, mine, *silent)  # its machine may not come back for days
        running = mine & (jobs.c.status == Status.RUNNING)
        asked += connection.execute(jobs.update().where(running).values(status=Status.CANCELLING)).rowcount
        row = connection.execute(sa.select(jobs.c.status, jobs.c.log).where(mine)).first()
        if row is None:
            raise JobNotFound(f"there is no job {identity}; `keepstone job list` shows those that there are")
        if asked:
            self._note(connection, identity, row.log, "its end was asked for")
        return Status(row.status)

    def abandon(self, connection: sa.Connection, machine: UUID, message: str) -> int:
        """Nobody will come for the jobs of this machine: those that are not over are cancelled, for the reason that
        `message` tells people; how many."""
        error = {"code": "MachineGone", "message": message}
        return self._abandon(connection, _IS_OPEN, jobs.c.machine == machine, error=error)

    def _abandon(
        self, connection: sa.Connection, *where: sa.ColumnElement[bool], error: dict[str, Any] | None = None
    ) -> int:
        values = {"status": Status.CANCELLED, "ended": self._env.utc(), "owner": None, "lease_until": None}
        return connection.execute(jobs.update().where(*where).values(**values, error=error)).rowcount

    def _end(
        self,
        connection: sa.Connection,
        claim: Claim,
        status: Status,
        error: dict[str, Any] | None,
        progress: dict[str, Any] | None = None,
        lines: Sequence[list[str]] = (),
    ) -> None:
        now = self._env.utc()
        values: dict[str, Any] = {"status": status, "ended": now, "owner": None, "lease_until": None}
        values["error"] = error
        if progress is not None:
            values["progress"] = progress
        said = "" if error is None else f": {error['message']}"
        self._write(connection, claim, values, [*lines, log.line(now, f"ended as {status}{said}")])
        self._ended(connection, claim, status, error)

    def _note(self, connection: sa.Connection, identity: UUID, known: Any, text: str) -> None:
        lines = log.appended(known, [log.line(self._env.utc(), text)])
        connection.execute(jobs.update().where(jobs.c.id == identity).values(log=lines))

    def _write(
        self, connection: sa.Connection, claim: Claim, values: dict[str, Any], lines: Sequence[list[str]] = ()
    ) -> Status:
        held = jobs.c.id == claim.id, jobs.c.token == claim.token, jobs.c.status.in_(_HELD)
        if lines:
            known = connection.execute(sa.select(jobs.c.log).where(*held)).scalar()
            values = {**values, "log": log.appended(known, lines)}
        row = connection.execute(jobs.update().where(*held).values(**values).returning(jobs.c.status)).first()
        if row is None:
            raise JobLost(f"job {claim.id} was taken over by another worker, or is over; this one stops")
        return Status(row[0])


_IS_OPEN = jobs.c.ended.is_(None)  # the words of the index of open jobs


def _of(operations: Collection[str], machine: UUID | None) -> tuple[sa.ColumnElement[bool], ...]:
    """What is true of the open jobs of a machine, or of none."""
    mine = jobs.c.machine.is_(None) if machine is None else jobs.c.machine == machine
    return _IS_OPEN, mine, jobs.c.operation.in_(operations)


def _claimable(now: datetime, status: sa.ColumnElement[str] = jobs.c.status) -> sa.ColumnElement[bool]:
    """What is true of a job that may run, or that a dead worker held."""
    ready = sa.and_(status == Status.QUEUED, jobs.c.due <= now)
    orphaned = sa.and_(status.in_(_HELD), jobs.c.lease_until < now)
    return sa.or_(ready, orphaned)
