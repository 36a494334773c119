# SPDX-License-Identifier: Apache-2.0
"""All write sessions of this process: who has which, how many there may be, and when one is given up.

A session has a writer, with a lease in the store and buffers: so `MOST` are open at a time. Who comes later waits for a
place for `PATIENCE` seconds, and is then told to ask again. A session that is over has no place any more; it stays as
long as nobody needs the room, for whoever lost the answer to its commit. One that nobody has used for `IDLE` seconds is
given up (`sweep`), for reclaim waits for its lease; its job is then done from the beginning, and what had come is found
again by its ids.

The lock is held for a look only: what a session does, and be it its own end, keeps no other one waiting.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from keepstone.control import clientkeys, writers
from keepstone.control import points as made
from keepstone.control.plane import Plane
from keepstone.control.sessions import machine as machines
from keepstone.control.sessions.places import Places
from keepstone.control.sessions.session import WriteSession, clocked
from keepstone.control.work.backup import enlist, own_date, remember
from keepstone.control.work.loading import subject
from keepstone.errors import Conflict, InvalidRequest, JobLost, KeepstoneError, NotFound
from keepstone.jobs import BACKUP, Claim, Context
from keepstone.remote.wire import Begin, Commit, Committed, Progress, Wanted, decode, encode
from keepstone.store import SEALED, PointRecord

__all__ = ["IDLE", "MOST", "PATIENCE", "Registry"]

_log = logging.getLogger(__name__)
MOST = 24
IDLE = 900.0
PATIENCE = 25.0  # an agent waits for an answer for longer than that (`remote/calls.py`)


@dataclass(slots=True)
class _Open:
    machine: UUID
    job: str
    token: int
    session: WriteSession
    used: int
    busy: int = 0
    placed: bool = True
    remembered: bool = False
    ending: threading.Lock = field(default_factory=threading.Lock)


class Registry:
    """Safe for several threads."""

    def __init__(self, plane: Plane, *, most: int = MOST, patience: float = PATIENCE) -> None:
        self._plane = plane
        self._most = most
        self._patience = patience
        self._places = Places(most)
        self._pool = plane.env.pool()
        self._open: dict[str, _Open] = {}
        self._beginning: set[str] = set()
        self._lock = threading.Lock()
        self._calls: dict[str, Callable[[_Open, int, memoryview], bytes]] = {
            "state": lambda one, first, body: encode(Progress(one.session.next)),
            "records": lambda one, first, body: encode(Progress(one.session.receive(first, body))),
            "nodes": lambda one, first, body: encode(one.session.nodes(decode(body, Wanted))),
            "ids": lambda one, first, body: one.session.ids(decode(body, list[int])),
            "known": lambda one, first, body: encode(one.session.known(bytes(body))),
            "commit": lambda one, first, body: self._commit(one, decode(body, Commit)),
            "abort": lambda one, first, body: self._abort(one),
        }

    def ask(
        self,
        machine: UUID,
        verb: str,
        session: str,
        first: int,
        body: memoryview,
        listens: Callable[[], bool] = lambda: True,
    ) -> bytes:
        """One call of a machine's agent; see `remote.writer.Session`. `first`: the number of the first record.
        `listens`: whether it is still there to hear the answer."""
        if verb == "begin":
            return self._begin(machine, decode(body, Begin), listens)
        call = self._calls.get(verb)
        with self._lock:
            one = self._open.get(session)
            if one is None or one.machine != machine or call is None:
                error = NotFound("there is no such session; begin another one")
                error.code = "SessionLost"
                raise error
            one.busy += 1
        try:
            return call(one, first, body)
        finally:
            with self._lock:
                one.busy -= 1
                one.used = self._plane.env.boot_time()
            if one.session.over:
                self._leave(one)

    def _begin(self, machine: UUID, begin: Begin, listens: Callable[[], bool]) -> bytes:
        self._held(machine, begin)
        one = self._asked_again(begin)
        if one is None:
            if not self._places.take(begin.job, self._patience):
                raise _busy()
            try:
                one = self._placed(machine, begin, listens)
            finally:
                if one is None:
                    self._places.give()
        return encode(one.session.begun())

    def _asked_again(self, begin: Begin) -> _Open | None:
        """The session that this job has, where nothing has come for it yet; any other one of it is given up."""
        with self._lock:
            older = [one for one in self._open.values() if one.job == begin.job]
            for one in older:
                if one.token == begin.token and one.session.next == 0 and not one.session.over:
                    return one
        self._forget(older)
        return None

    def _placed(self, machine: UUID, begin: Begin, listens: Callable[[], bool]) -> _Open:
        """The session of a job that has a place. It may have waited: whoever is gone meanwhile needs none, and his job
        may be somebody else's."""
        if not listens():
            raise _busy()
        mine = self._held(machine, begin)
        if len(self._open) >= self._most:
            self.sweep(over=True)
        with self._lock:
            if begin.job in self._beginning or any(one.job == begin.job for one in self._open.values()):
                raise _busy()  # he has asked twice at once
            self._beginning.add(begin.job)
        try:
            session = self._make(machine, begin, Context(self._plane.queue, mine))
            one = _Open(machine, begin.job, begin.token, session, self._plane.env.boot_time())
            with self._lock:
                self._open[session.identity] = one
        finally:
            with self._lock:
                self._beginning.discard(begin.job)
        return one

    def _held(self, machine: UUID, begin: Begin) -> Claim:
        """The job that a session is begun for."""
        mine = machines.held(self._plane, machine, begin.job, begin.token)
        if mine.operation != BACKUP and not machines.makes_safety_point(mine):
            raise InvalidRequest("a job of another kind makes no point")
        return mine

    def _make(self, machine: UUID, begin: Begin, context: Context) -> WriteSession:
        about = subject(self._plane, context)
        kind = made.kind(about.item)
        if begin.kind != kind:
            raise InvalidRequest(f"'{about.item.friendly}' is an item of {kind}, not of {begin.kind}")
        if context.claim.operation != BACKUP and machines.safety_point(self._plane, about, context.claim) is not None:
            raise _made_already()
        clientkeys.keep(self._plane, about.item, begin)
        writers.note(self._plane, about.vault.id, machine)
        store = self._plane.stores.open(about.vault.id)
        name = made.store_name(about.container.friendly, about.item)
        arguments = context.claim.arguments
        tags = made.tags(about.item.id, context.claim.id, arguments.get("part", "Full"), own_date(arguments))
        tags += clocked(begin.clock)
        writer = store.writer(name, SEALED + kind if begin.sealed else kind, tags=tags)
        parent = writer.parent
        if parent is not None and made.job_of(parent) == context.claim.id:  # nobody came to say so
            writer.abort()
            remember(self._plane, context, about, writer.parent_id, parent, [])
            raise _made_already()
        try:
            return WriteSession(self._plane.env.random(16).hex(), store, str(about.item.id), writer, self._pool, kind)
        except BaseException:
            writer.abort()  # its lease would be there for ever
            raise

    def _commit(self, one: _Open, commit: Commit) -> bytes:
        """The point, then the end of its job, unless that goes on after its safety point. Asked again after a lost
        answer or half of it, the same."""
        with one.ending:
            if not one.remembered:
                try:
                    context = Context(self._plane.queue, machines.held(self._plane, one.machine, one.job, one.token))
                    about = subject(self._plane, context)
                    point = one.session.commit(commit)
                    record = self._plane.stores.open(about.vault.id).commits.get(point)
                    assert isinstance(record, PointRecord)
                    if context.claim.operation == BACKUP:
                        remember(self._plane, context, about, point, record, machines.kept(commit.messages))
                    else:
                        with self._plane.change() as change:
                            enlist(change, made.of_record(about.item, point, record))
                except JobLost:
                    if not one.session.point:
                        raise  # else whoever has the job now finds the point
                one.remembered = True
            return encode(Committed(one.session.point))

    def _abort(self, one: _Open) -> bytes:
        self._forget([one])
        return b""

    def _forget(self, those: list[_Open]) -> None:
        with self._lock:
            for one in those:
                self._open.pop(one.session.identity, None)
        for one in those:
            one.session.abort()
            self._leave(one)

    def _leave(self, one: _Open) -> None:
        """Its place is free, once."""
        with self._lock:
            placed, one.placed = one.placed, False
        if placed:
            self._places.give()

    def sweep(self, *, over: bool = False) -> None:
        """Give up what nobody has used for long; with `over` also what nobody can use."""
        until = self._plane.env.boot_time() - int(IDLE * 1e9)
        with self._lock:
            idle = [one for one in self._open.values() if not one.busy]
        self._forget([one for one in idle if one.used < until or (over and one.session.over)])

    def close(self) -> None:
        """Give up all sessions; there are no more."""
        self._places.close()
        with self._lock:
            every = list(self._open.values())
        for one in every:
            try:
                self._forget([one])
            except KeepstoneError as error:
                _log.warning("a session could not be given up: %s", error)
        self._pool.shutdown(wait=True, cancel_futures=True)


def _busy() -> Conflict:
    error = Conflict("all sessions are taken; ask again in a few seconds")
    error.code = "TooManySessions"
    return error


def _made_already() -> Conflict:
    """For an agent whose upload was cut off between its point and the answer: it has nothing more to send."""
    error = Conflict("the point of this job is made already; go on after it")
    error.code = "PointMade"
    return error
