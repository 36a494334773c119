# SPDX-License-Identifier: Apache-2.0
"""Alerts: raised and resolved in the transaction of what they tell of, and told to the vault's targets by another one
(`control/postman.py`).

Invariants
* One alert of a subject goes on at a time: the database itself says so, whoever raises it at once.
* A target's notice is written with the alert. So whoever is to be told is told, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from keepstone.catalogue import alerts, notices, targets, vaults
from keepstone.control.plane import Change
from keepstone.env import Env
from keepstone.errors import NotFound
from keepstone.vault import Item, Vault
from keepstone.vault.alerts import RULES, Alert, Category, Condition, Kind, State, Subject, changed, wanted

__all__ = [
    "find",
    "fire",
    "forget",
    "listing",
    "missing",
    "of_change",
    "resolve",
    "resources",
    "security",
    "set_state",
    "settle",
    "undeleted",
]

_KEPT = timedelta(days=30)
_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def fire(
    connection: sa.Connection,
    env: Env,
    subject: Subject,
    message: str,
    *,
    resource: str,
    entity: str,
    job: UUID | None = None,
    tell: Sequence[UUID] | None = None,
) -> None:
    """Something is wrong: a new alert, or one more occurrence of the one that goes on. `message`: what happened, in a
    sentence. `resource`: the id of the vault or of the subscription. `tell`: targets; default: those of the vault."""
    now = env.utc()
    row = {
        "id": UUID(bytes=env.random(16), version=4),
        "vault": subject.vault,
        "item": subject.item,
        "kind": subject.kind,
        "subject": subject.key,
        "resource": resource,
        "entity": entity,
        "message": message,
        "state": State.NEW,
        "condition": Condition.FIRED,
        "count": 1,
        "raised": now,
        "last": now,
        "changed": now,
        "job": job,
    }
    number = alerts.c.count.label("number")
    new = _INSERT[connection.dialect.name](alerts).values(**row).returning(alerts.c.id, number)
    mine: dict[str, Any] = {"index_elements": [alerts.c.subject], "index_where": alerts.c.ended.is_(None)}
    if RULES[subject.kind].lasting:
        raised = connection.execute(new.on_conflict_do_nothing(**mine)).first()
    else:
        latest = {name: new.excluded[name] for name in ("message", "last", "changed", "job")}
        again = {**latest, "count": alerts.c.count + 1}
        raised = connection.execute(new.on_conflict_do_update(**mine, set_=again)).first()
    if raised is not None and raised.number == 1:
        _tell(connection, subject.vault, [raised.id], Condition.FIRED, now, tell)


def resolve(
    connection: sa.Connection, env: Env, *where: sa.ColumnElement[bool], tell: Sequence[UUID] | None = None
) -> int:
    """What all of this is true of is well again; how many alerts end by that. People are told but of those that they
    have closed."""
    now = env.utc()
    mine = alerts.c.condition == Condition.FIRED, *where
    ended = sa.func.coalesce(alerts.c.ended, sa.literal(now, alerts.c.ended.type))
    values = {"condition": Condition.RESOLVED, "resolved": now, "ended": ended, "changed": now}
    columns = alerts.c.id, alerts.c.vault, alerts.c.state
    over = connection.execute(alerts.update().where(*mine).values(**values).returning(*columns)).all()
    for row in over:
        if row.state != State.CLOSED:
            _tell(connection, row.vault, [row.id], Condition.RESOLVED, now, tell)
    return len(over)


def security(change: Change, vault: Vault, kind: Kind, message: str, item: Item | None = None) -> None:
    """Somebody has done something that people should know of, where the vault's settings want it."""
    if wanted(kind, vault.properties):
        subject = Subject(kind=kind, vault=vault.id, item=None if item is None else item.id)
        entity = vault.name if item is None else item.friendly
        fire(change.connection, change.plane.env, subject, message, resource=vault.path, entity=entity)


def settle(change: Change, about: Vault | Item, *kinds: Kind) -> None:
    """What these kinds say of a vault or an item is not so any more."""
    vault, item = (about.vault, about.id) if isinstance(about, Item) else (about.id, None)
    mine = alerts.c.vault == vault, alerts.c.item == item, alerts.c.kind.in_(kinds)
    resolve(change.connection, change.plane.env, *mine)


def of_change(change: Change, before: Vault, after: Vault) -> None:
    """The properties of a vault were changed."""
    for kind, wrong in changed(before.properties, after.properties).items():
        if wrong:
            security(change, before, kind, f"{RULES[kind].name}: the settings of vault '{after.name}' were changed")
        else:
            settle(change, after, kind)


def undeleted(change: Change, vault: Vault) -> None:
    """A vault was taken back, maybe into another group."""
    change.connection.execute(alerts.update().where(alerts.c.vault == vault.id).values(resource=vault.path))
    settle(change, vault, Kind.VAULT_DELETED)


def find(connection: sa.Connection, name: str) -> Alert:
    """`NotFound`."""
    try:
        mine = alerts.c.id == UUID(name)
    except ValueError:
        mine = sa.false()
    row = connection.execute(sa.select(alerts).where(mine)).mappings().first()
    if row is None:
        raise missing(name)
    return _alert(row)


def missing(name: str) -> NotFound:
    """What to raise where there is no alert of this name, or none that somebody may see."""
    return NotFound(f"There is no alert '{name}' here; `keepstone alert list` shows those that there are")


def listing(
    connection: sa.Connection,
    where: Iterable[sa.ColumnElement[bool]] = (),
    *,
    by: str = "changed",
    descending: bool = True,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[Alert]:
    """The alerts that all of this is true of, in order of the moments that `by` names; `after`: the moment and the id
    of the last one that was seen."""
    order = alerts.c[by], alerts.c.id
    query = sa.select(alerts).where(*where).limit(limit)
    query = query.order_by(*(column.desc() for column in order) if descending else order)
    if after is not None:
        here = sa.tuple_(*order)
        seen = sa.tuple_(sa.literal(after[0], alerts.c[by].type), sa.literal(after[1], alerts.c.id.type))
        query = query.where(here < seen if descending else here > seen)
    return [_alert(row) for row in connection.execute(query).mappings()]


def resources(connection: sa.Connection) -> list[str]:
    """The ids of what there are alerts of: vaults, and the subscription."""
    return list(connection.execute(sa.select(alerts.c.resource).distinct()).scalars())


def set_state(change: Change, alert: Alert, state: State, by: str) -> Alert:
    """What people did about it. One that they close takes in nothing more: the same again is another alert. What is
    found by looking is known until it is found no more, closed or not (`control/watch.py`)."""
    values: dict[str, Any] = {"state": state, "changed": change.now, "by": by}
    if state is State.CLOSED and alert.ended is None:
        values["ended"] = change.now
    mine = alerts.c.id == alert.id
    row = change.connection.execute(alerts.update().where(mine).values(**values).returning(alerts)).mappings().one()
    return _alert(row)


def forget(change: Change) -> None:
    """Drop alerts that did not change for 30 days, as Azure does: but for those that something is still wrong by. And
    the targets of vaults that are gone, when they were told everything."""
    connection = change.connection
    security_kinds = [kind for kind, rule in RULES.items() if rule.category is Category.SECURITY]
    past = sa.or_(alerts.c.ended.is_not(None), alerts.c.kind.in_(security_kinds), _gone(alerts.c.vault))
    connection.execute(alerts.delete().where(alerts.c.changed < change.now - _KEPT, past))
    told = targets.c.id.not_in(sa.select(notices.c.target))
    connection.execute(targets.delete().where(_gone(targets.c.vault), told))


def _gone(vault: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """It is no vault any more, not even a deleted one."""
    return sa.and_(vault.is_not(None), vault.not_in(sa.select(vaults.c.id)))


def _tell(
    connection: sa.Connection,
    vault: UUID | None,
    ids: Sequence[UUID],
    event: Condition,
    now: datetime,
    tell: Sequence[UUID] | None,
) -> None:
    whom = targets.c.vault == vault if tell is None else targets.c.id.in_(tell)
    for alert in ids:
        said = sa.literal(alert, notices.c.alert.type), sa.literal(event), sa.literal(now, notices.c.made.type)
        query = sa.select(targets.c.id, *said).where(whom)
        connection.execute(notices.insert().from_select(["target", "alert", "event", "made"], query))


def _alert(row: sa.RowMapping) -> Alert:
    fields = {name: row[name] for name in Alert.__slots__}
    fields |= {"kind": Kind(row["kind"]), "state": State(row["state"]), "condition": Condition(row["condition"])}
    return Alert(**fields)
