# SPDX-License-Identifier: Apache-2.0
"""All write sessions of this process: who has which, how many there may be, and when one is given up.

A session has a writer, with a lease in the store and buffers: so `MOST` are open at a time, and who comes later is told
to ask again. One that nobody has used for `IDLE` seconds is given up (`sweep`), for reclaim waits for its lease; its
job is then done from the beginning, and what had come is found again by its ids.

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
from keepstone.control.sessions.session import WriteSession, clocked
from keepstone.control.work.backup import enlist, own_date, remember
from keepstone.control.work.loading import subject
from keepstone.errors import Conflict, InvalidRequest, JobLost, KeepstoneError, NotFound
from keepstone.jobs import BACKUP, Context
from keepstone.remote.wire import Begin, Commit, Committed, Progress, Wanted, decode, encode
from keepstone.store import SEALED, PointRecord

__all__ = ["IDLE", "MOST", "Registry"]

_log = logging.getLogger(__name__)
MOST = 24
IDLE = 900.0


@dataclass(slots=True)
class _Open:
    machine: UUID
    job: str
    token: int
    session: WriteSession
    used: int
    busy: int = 0
    remembered: bool = False
    ending: threading.Lock = field(default_factory=threading.Lock)


class Registry:
    """Safe for several threads."""

    def __init__(self, plane: Plane, *, most: int = MOST) -> None:
        self._plane = plane
        self._most = most
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

    def ask(self, machine: UUID, verb: str, session: str, first: int, body: memoryview) -> bytes:
        """One call of a machine's agent; see `remote.writer.Session`. `first`: the number of the first record."""
        if verb == "begin":
            return self._begin(machine, decode(body, Begin))
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

    def _begin(self, machine: UUID, begin: Begin) -> bytes:
        mine = machines.held(self._plane, machine, begin.job, begin.token)
        if mine.operation != BACKUP and not machines.makes_safety_point(mine):
            raise InvalidRequest("a job of another kind makes no point")
        with self._lock:
            older = [one for one in self._open.values() if one.job == begin.job]
            for one in older:
                if one.token == begin.token and one.session.next == 0 and not one.session.over:
                    return encode(one.session.begun())  # asked again
        self._forget(older)
        if len(self._open) + len(self._beginning) >= self._most:
            self.sweep(over=True)
        with self._lock:
            if begin.job in self._beginning or len(self._open) + len(self._beginning) >= self._most:
                busy = Conflict("all sessions are taken; ask again in a few seconds")
                busy.code = "TooManySessions"
                raise busy
            self._beginning.add(begin.job)
        try:
            session = self._make(machine, begin, Context(self._plane.queue, mine))
            with self._lock:
                self._open[session.identity] = _Open(
                    machine, begin.job, begin.token, session, self._plane.env.boot_time()
                )
        finally:
            with self._lock:
                self._beginning.discard(begin.job)
        return encode(session.begun())

    def _make(self, machine: UUID, begin: Begin, context: Context) -> WriteSession:
        about = subject(self._plane, context)
        kind = made.kind(about.item)
        if begin.kind != kind:
            raise InvalidRequest(f"'{about.item.friendly}' is an item of {kind}, not of {begin.kind}")
        if context.claim.operation != BACKUP and machines.safety_point(self._plane, about, context.claim) is not None:
            raise InvalidRequest("the safety point of this job is made already; put the disks back")
        clientkeys.keep(self._plane, about.item, begin)
        writers.note(self._plane, about.vault.id, machine)
        store = self._plane.stores.open(about.vault.id)
        name = made.store_name(about.container.friendly, about.item)
        arguments = context.claim.arguments
        tags = made.tags(about.item.id, context.claim.id, arguments.get("part", "Full"), own_date(arguments))
        tags += clocked(begin.clock)
        writer = store.writer(name, SEALED + kind if begin.sealed else kind, tags=tags)
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

    def sweep(self, *, over: bool = False) -> None:
        """Give up what nobody has used for long; with `over` also what nobody can use."""
        until = self._plane.env.boot_time() - int(IDLE * 1e9)
        with self._lock:
            idle = [one for one in self._open.values() if not one.busy]
        self._forget([one for one in idle if one.used < until or (over and one.session.over)])

    def close(self) -> None:
        """Give up all sessions."""
        with self._lock:
            every = list(self._open.values())
        for one in every:
            try:
                self._forget([one])
            except KeepstoneError as error:
                _log.warning("a session could not be given up: %s", error)
        self._pool.shutdown(wait=True, cancel_futures=True)
