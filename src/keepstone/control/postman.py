# SPDX-License-Identifier: Apache-2.0
"""Tells targets what they were not told yet.

Invariants
* A notice goes from the database when its target has taken it: it is sent at least once, and once but for a death
  between the two.
* A target gets its notices in order: the next ones go when those before were taken. Several that wait go as one
  message.
* One that fails is tried again ever later, up to an hour; one that hangs is given up on after a while. Neither keeps
  the others waiting: each is sent to by a thread of its own.
* One sender at a time sends to a target, in this process and in others: who begins moves its `due` on.
* What could not be sent for a week is not sent any more; the alert itself is there to be seen.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import alerts, notices, targets, vaults
from keepstone.control import courier
from keepstone.control.courier import Message
from keepstone.control.plane import Plane
from keepstone.control.targets import Target, address
from keepstone.errors import CorruptObject
from keepstone.vault.alerts import RULES, Condition, Kind, Severity

__all__ = ["Postman", "try_out"]

_log = logging.getLogger(__name__)
_LIMIT = 30.0  # seconds after which a target hangs
_TRIAL = 10.0  # the same while somebody waits for the answer
_PATIENCE = 2.0  # seconds that a round waits for those that it sent to
_MOST = 16  # targets that are sent to at once, without those that hang
_BATCH = 10  # notices in a message
_FIRST, _LATEST = timedelta(seconds=10), timedelta(hours=1)
_GIVEN_UP = timedelta(days=7)
_HANGS = "it does not answer within {:.0f} seconds"


@dataclass(slots=True)
class _Errand:
    """A message on its way. `notices`: what it tells. `late`: nobody waits for it any more."""

    target: UUID
    notices: list[int]
    begun: int = 0
    late: bool = field(default=False)


class Postman:
    """One for each process, for one thread. `limit`: seconds after which a target hangs."""

    def __init__(self, plane: Plane, *, limit: float = _LIMIT) -> None:
        self._plane = plane
        self._limit = limit
        self._away: dict[UUID, _Errand] = {}
        self._back: SimpleQueue[tuple[_Errand, str | None]] = SimpleQueue()

    def run(self, patience: float = _PATIENCE) -> int:
        """Send what can be sent now; how many messages arrived. What is not back within `patience` seconds is looked
        for in the next round."""
        arrived = 0
        end = self._now() + int(patience * 1e9)
        self._send()
        while any(not errand.late for errand in self._away.values()) or not self._back.empty():
            try:
                errand, error = self._back.get(timeout=max(0.0, (end - self._now()) / 1e9))
            except Empty:
                break
            self._settle(errand, error)
            if error is None:
                arrived += 1
                if self._now() < end:
                    self._send()  # there may be more for it
        self._give_up_waiting()
        return arrived

    def _now(self) -> int:
        return self._plane.env.boot_time()

    def _send(self) -> None:
        """Begin with all that is due."""
        for target, message, told in self._claim():
            errand = _Errand(target.id, told, self._now())
            self._away[target.id] = errand
            try:
                where = address(self._plane, target)
            except CorruptObject as error:
                self._back.put((errand, str(error)))
                continue
            threading.Thread(
                target=_carry, args=(errand, where, message, self._back), name=f"to {target.name}", daemon=True
            ).start()

    def _claim(self) -> list[tuple[Target, Message, list[int]]]:
        """Targets that are due, what to tell each, and the notices that it is told by that."""
        free = _MOST - sum(not errand.late for errand in self._away.values())
        with self._plane.database.change() as connection:
            now = self._plane.env.utc()
            connection.execute(notices.delete().where(notices.c.made < now - _GIVEN_UP))
            some = sa.exists().where(notices.c.target == targets.c.id)
            # One that is due later than anybody puts it off was told by a clock that was wrong.
            ready = sa.or_(targets.c.due <= now, targets.c.due > now + 2 * _LATEST)
            due = ready, targets.c.id.not_in(list(self._away)), some
            query = sa.select(*(targets.c[name] for name in Target.__slots__)).where(*due)
            query = query.order_by(targets.c.due).limit(max(0, free)).with_for_update(skip_locked=True)
            found = [Target(**row) for row in connection.execute(query).mappings()]
            claimed = targets.c.id.in_([target.id for target in found])
            later = now + timedelta(seconds=2 * self._limit)
            connection.execute(targets.update().where(claimed).values(due=later))
            return [(target, *letter) for target in found if (letter := _letter(connection, target)) is not None]

    def _settle(self, errand: _Errand, error: str | None) -> None:
        """What became of a message."""
        self._away.pop(errand.target, None)
        if error is not None:
            if not errand.late:
                self._failed(errand, error)
            return
        with self._plane.database.change() as connection:
            now = self._plane.env.utc()
            connection.execute(notices.delete().where(notices.c.sequence.in_(errand.notices)))
            well = {"failures": 0, "error": None, "failed": None, "delivered": now, "due": now}
            connection.execute(targets.update().where(targets.c.id == errand.target).values(**well))

    def _failed(self, errand: _Errand, error: str) -> None:
        with self._plane.database.change() as connection:
            now = self._plane.env.utc()
            mine = targets.c.id == errand.target
            failures = connection.execute(sa.select(targets.c.failures).where(mine)).scalar()
            if failures is None:  # it was removed meanwhile
                return
            later = now + min(_LATEST, _FIRST * 2 ** min(failures, 20))
            values = {"failures": failures + 1, "error": error[:512], "failed": now, "due": later}
            connection.execute(targets.update().where(mine).values(**values))
        _log.warning("a notification target could not be told, %d times in a row: %s", failures + 1, error)

    def _give_up_waiting(self) -> None:
        """Those that hang count as failed; should one of them answer after all, that is as good."""
        for errand in self._away.values():
            if not errand.late and self._now() - errand.begun > self._limit * 1e9:
                errand.late = True
                self._failed(errand, _HANGS.format(self._limit))


def try_out(plane: Plane, target: Target, vault: str, limit: float = _TRIAL) -> str | None:
    """Send a message at once; why it did not arrive within `limit` seconds, None where it did."""
    message = Message(
        f"Test of target '{target.name}' of vault '{vault}'", "Alerts of this vault are told to this target.", "info"
    )
    try:
        where = address(plane, target)
    except CorruptObject as error:
        return str(error)
    back: SimpleQueue[tuple[_Errand, str | None]] = SimpleQueue()
    errand = _Errand(target.id, [])
    threading.Thread(target=_carry, args=(errand, where, message, back), name="test", daemon=True).start()
    try:
        return back.get(timeout=limit)[1]
    except Empty:
        return _HANGS.format(limit)


def _carry(errand: _Errand, where: str, message: Message, back: SimpleQueue[tuple[_Errand, str | None]]) -> None:
    back.put((errand, courier.deliver(where, message)))


def _letter(connection: sa.Connection, target: Target) -> tuple[Message, list[int]] | None:
    """What to tell a target, and the notices that it is told by that."""
    columns = notices.c.sequence, notices.c.event, *(alerts.c[name] for name in _TOLD)
    query = sa.select(*columns).join(alerts, alerts.c.id == notices.c.alert).where(notices.c.target == target.id)
    rows = connection.execute(query.order_by(notices.c.sequence).limit(_BATCH)).mappings().all()
    if not rows:
        return None
    vault = connection.execute(sa.select(vaults.c.name).where(vaults.c.id == target.vault)).scalar()
    where = f"vault '{vault}'" if vault is not None else "a vault that is gone"
    fired = [RULES[Kind(row["kind"])].severity for row in rows if row["event"] == Condition.FIRED]
    level = _LEVELS.get(min(fired), "info") if fired else "success"
    told = [row["sequence"] for row in rows]
    if len(rows) > 1:
        body = "\n\n".join(f"{_heading(row)}\n{_text(row)}" for row in rows)
        return Message(f"{len(rows)} alerts of {where}", body, level), told
    (row,) = rows
    return Message(_heading(row) + (f" ({where})" if row["vault"] is not None else ""), _text(row), level), told


_TOLD = ("id", "vault", "kind", "entity", "message", "count", "raised", "last", "resolved")
_LEVELS = {Severity.CRITICAL: "failure", Severity.ERROR: "failure", Severity.WARNING: "warning"}
_LONGEST = 500  # characters of what happened


def _heading(row: sa.RowMapping) -> str:
    rule = RULES[Kind(row["kind"])]
    word = "Resolved" if row["event"] == Condition.RESOLVED else str(rule.severity)
    return f"[{word}] {rule.name}: {row['entity']}"


def _text(row: sa.RowMapping) -> str:
    what = row["message"][:_LONGEST]
    begun = f"{row['raised']:%Y-%m-%d %H:%M} UTC"
    if row["event"] == Condition.RESOLVED:
        return f"{row['resolved']:%Y-%m-%d %H:%M} UTC: this is over. It began at {begun}: {what}"
    often = f" It happened {row['count']} times, first at {begun}." if row["count"] > 1 else ""
    todo = RULES[Kind(row["kind"])].todo
    return f"{row['last']:%Y-%m-%d %H:%M} UTC: {what}.{often}\nWhat to do: {todo}.\nAlert {row['id']}"
