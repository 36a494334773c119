# SPDX-License-Identifier: Apache-2.0
"""From when on the points of an item have to be judged again. A verdict depends on the policy, the points and whether
the vault is immutable, and on no clock: so it is worth nothing to judge again before one of them has changed, or the
time of a point is over.

Invariants
* Whoever changes what verdicts depend on says so (`outdate`) in the same transaction.
* `settle` writes nothing for an item that was outdated since its version was read: so its points and its policy are
  read after its version, and what was judged of an older state never counts for a newer one.
* An item without a row was never judged, and is due.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue.database import upsert
from keepstone.catalogue.tables import items, judgements

__all__ = ["Judgement", "due", "outdate", "settle", "versions"]

_JUDGED = (items.c.policy.is_not(None), items.c.deleted.is_(None))


class Judgement(NamedTuple):
    """An item was judged as it was at `version`; `due`: when that is to be done again, None for at once."""

    item: UUID
    version: int
    due: datetime | None


def outdate(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> None:
    """The items that all this is true of have to be judged again."""
    chosen = sa.select(items.c.id, sa.literal(1)).where(*where).order_by(items.c.id)
    insert = upsert(connection, judgements).from_select(["item", "version"], chosen)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["item"], set_={"version": judgements.c.version + 1, "due": sa.null()}
        )
    )


def due(connection: sa.Connection, vault: UUID, now: datetime) -> Sequence[UUID]:
    """The items of a vault whose points are to be judged: those that are not deleted and have a policy."""
    query = (
        sa.select(items.c.id)
        .outerjoin(judgements, judgements.c.item == items.c.id)
        .where(items.c.vault == vault, *_JUDGED)
        .where(sa.or_(judgements.c.due.is_(None), judgements.c.due <= now))
    )
    return connection.execute(query).scalars().all()


def versions(connection: sa.Connection, of: Sequence[UUID]) -> dict[UUID, tuple[UUID, int]]:
    """The policies of those of these items that are not deleted and have one; and how often each was outdated so
    far."""
    query = (
        sa.select(items.c.id, items.c.policy, sa.func.coalesce(judgements.c.version, 0))
        .outerjoin(judgements, judgements.c.item == items.c.id)
        .where(items.c.id.in_(of), *_JUDGED)
    )
    return {item: (policy, version) for item, policy, version in connection.execute(query)}


def settle(connection: sa.Connection, judged: Iterable[Judgement]) -> None:
    """Write down what was judged, but for items that are gone or were outdated meanwhile."""
    columns = judgements.c
    given = [sa.bindparam(f"{name}_", type_=columns[name].type) for name in Judgement._fields]
    there = sa.select(*given).where(items.c.id == given[0])
    insert = upsert(connection, judgements).from_select(Judgement._fields, there)
    written = insert.on_conflict_do_update(
        index_elements=["item"], set_={"due": insert.excluded.due}, where=columns.version == insert.excluded.version
    )
    in_order = sorted(judged)  # as everybody has them: so nobody waits for one another
    rows = [{f"{name}_": value for name, value in one._asdict().items()} for one in in_order]
    if rows:
        connection.execute(written, rows)
