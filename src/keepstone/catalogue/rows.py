# SPDX-License-Identifier: Apache-2.0
"""Between the records of the domain and the rows of the tables. A record's fields are the columns of its table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa

from keepstone.catalogue.tables import (
    agents,
    assignments,
    containers,
    credentials,
    groups,
    items,
    locks,
    points,
    policies,
    principals,
    resources,
    vaults,
)
from keepstone.vault import (
    Agent,
    Container,
    Credential,
    Group,
    Identity,
    Item,
    Lock,
    RecoveryPoint,
    Resource,
    RoleAssignment,
    StoredPolicy,
    Vault,
    folded,
)

__all__ = ["RECORDS", "every", "first", "insert", "one", "read", "save", "values"]

Record = TypeVar("Record")

RECORDS: dict[type[Any], sa.Table] = {
    Agent: agents,
    Container: containers,
    Credential: credentials,
    Group: groups,
    Identity: principals,
    Item: items,
    Lock: locks,
    RecoveryPoint: points,
    Resource: resources,
    RoleAssignment: assignments,
    StoredPolicy: policies,
    Vault: vaults,
}


def values(record: Any) -> dict[str, Any]:
    """The row of a record. Folded names follow from the names; the key of what has no name is something else."""
    row = {name: getattr(record, name) for name in type(record).__slots__}
    if "group_key" in row:
        row["group_key"] = folded(row["group_name"])
    if "key" in row and "name" in row:
        row["key"] = folded(record.path if isinstance(record, Resource) else record.name)
    return row


def read(kind: type[Record], row: Mapping[str, Any]) -> Record:
    """The record of a row."""
    return kind(**row)


def first(connection: sa.Connection, kind: type[Record], *where: sa.ColumnElement[bool]) -> Record | None:
    """A record that all this is true of."""
    row = connection.execute(sa.select(RECORDS[kind]).where(*where).limit(1)).mappings().first()
    return None if row is None else kind(**row)


def one(connection: sa.Connection, kind: type[Record], **values: Any) -> Record | None:
    """The record whose columns have these values; None stands for no value. What `first` finds in four times the time,
    for what every request asks."""
    given = {name: value for name, value in values.items() if value is not None}
    row = connection.execute(_statement(RECORDS[kind], frozenset(given), frozenset(values)), given).first()
    return None if row is None else kind(**row._mapping)


@cache
def _statement(table: sa.Table, given: frozenset[str], asked: frozenset[str]) -> sa.Select[Any]:
    """Made once: putting a statement together takes longer than carrying it out."""
    where = [table.c[name] == sa.bindparam(name) if name in given else table.c[name].is_(None) for name in asked]
    return sa.select(table).where(*where).limit(1)


def every(
    connection: sa.Connection,
    kind: type[Record],
    *where: sa.ColumnElement[bool],
    order: Any = None,
    limit: int | None = None,
) -> list[Record]:
    """All records that all this is true of."""
    query = sa.select(RECORDS[kind]).where(*where)
    if order is not None:
        query = query.order_by(*order) if isinstance(order, tuple) else query.order_by(order)
    if limit is not None:
        query = query.limit(limit)
    found = connection.execute(query)
    names = tuple(found.keys())
    return [kind(**dict(zip(names, row, strict=True))) for row in found]


def insert(connection: sa.Connection, record: Any) -> None:
    """Write a record that is not there yet."""
    connection.execute(RECORDS[type(record)].insert().values(**values(record)))


def save(connection: sa.Connection, record: Any) -> None:
    """Write a record over the one with its primary key, or as a new one."""
    table, row = RECORDS[type(record)], values(record)
    key = [column == row[column.name] for column in table.primary_key]
    if not connection.execute(table.update().where(*key).values(**row)).rowcount:
        connection.execute(table.insert().values(**row))
