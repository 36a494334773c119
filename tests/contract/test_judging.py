# SPDX-License-Identifier: Apache-2.0
"""When items are judged again, over every database."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from keepstone.catalogue import Database, containers, items, judgements, vaults
from keepstone.catalogue.judging import Judgement, due, outdate, settle, versions

from .conftest import Clock

pytestmark = pytest.mark.service

VAULT, OTHER = UUID(int=1), UUID(int=2)
FIRST, SECOND, THIRD, DELETED, STOPPED = (UUID(int=number) for number in range(11, 16))
POLICY = UUID(int=21)


@pytest.fixture
def filled(database: Database, clock: Clock) -> Database:
    """Three items that retention looks at, one of them of another vault, and two that it does not."""
    now = clock.utc()
    named = {"name": "name", "key": "name", "properties": {}, "created": now}
    vault = named | {"subscription": "s", "location": "l", "group_key": "g", "group_name": "g", "tags": {}, "sku": {}}
    held = {"key": "c", "name": "c", "friendly": "c", "management": "MAB", "kind": "Windows", "properties": {}}
    item = named | {"friendly": "i", "management": "MAB", "workload": "FileFolder", "state": "Protected", "source": {}}
    policies = vaults.metadata.tables["policies"]
    with database.change() as connection:
        for number, one in enumerate((VAULT, OTHER)):
            mine = {"id": one, "key": f"vault-{number}", "settings": {}, "changed": now}
            connection.execute(vaults.insert().values(**(vault | mine)))
            connection.execute(containers.insert().values(**held, id=one, vault=one, registered=now))
        connection.execute(
            policies.insert().values(
                id=POLICY, vault=VAULT, key="p", name="p", management="MAB", properties={}, changed=now
            )
        )
        for one in (FIRST, SECOND, THIRD, DELETED, STOPPED):
            home = OTHER if one == THIRD else VAULT
            state = {"policy": None if one == STOPPED else POLICY, "deleted": now if one == DELETED else None}
            mine = {"id": one, "vault": home, "container": home, "key": str(one)} | state
            connection.execute(items.insert().values(**(item | mine)))
    return database


def found(database: Database, clock: Clock) -> set[UUID]:
    with database.look() as connection:
        return set(due(connection, VAULT, clock.utc()))


def known(database: Database) -> dict[UUID, int]:
    with database.look() as connection:
        known = versions(connection, [FIRST, SECOND, DELETED, STOPPED])
    assert {policy for policy, _ in known.values()} == {POLICY}
    return {item: version for item, (_, version) in known.items()}


def test_what_was_never_judged_is_due(filled: Database, clock: Clock) -> None:
    assert found(filled, clock) == {FIRST, SECOND}
    assert known(filled) == {FIRST: 0, SECOND: 0}


def test_an_item_is_due_when_its_time_comes(filled: Database, clock: Clock) -> None:
    with filled.change() as connection:
        settle(connection, [Judgement(SECOND, 0, clock.utc() + timedelta(hours=1)), Judgement(FIRST, 0, None)])
    assert found(filled, clock) == {FIRST}
    clock.now += timedelta(hours=1)
    assert found(filled, clock) == {FIRST, SECOND}


def test_what_changes_is_due_at_once(filled: Database, clock: Clock) -> None:
    later = clock.utc() + timedelta(days=1)
    with filled.change() as connection:
        settle(connection, [Judgement(one, 0, later) for one in (FIRST, SECOND)])
    assert found(filled, clock) == set()
    with filled.change() as connection:
        outdate(connection, items.c.id == SECOND)
    assert found(filled, clock) == {SECOND}
    assert known(filled) == {FIRST: 0, SECOND: 1}
    with filled.change() as connection:
        outdate(connection, items.c.policy == POLICY)
    assert found(filled, clock) == {FIRST, SECOND}
    assert known(filled) == {FIRST: 1, SECOND: 2}


@pytest.mark.parametrize("version", [0, 1])
def test_what_changed_meanwhile_counts(version: int, filled: Database, clock: Clock) -> None:
    """Whether the item was ever judged before or not."""
    for _ in range(version):
        with filled.change() as connection:
            outdate(connection, items.c.id == FIRST)
    seen = known(filled)[FIRST]
    with filled.change() as connection:
        outdate(connection, items.c.id == FIRST)
    with filled.change() as connection:
        settle(connection, [Judgement(FIRST, seen, clock.utc() + timedelta(days=1))])
    assert found(filled, clock) == {FIRST, SECOND}
    with filled.change() as connection:
        settle(connection, [Judgement(FIRST, seen + 1, clock.utc() + timedelta(days=1))])
    assert found(filled, clock) == {SECOND}


def test_an_item_that_is_gone_is_forgotten(filled: Database, clock: Clock) -> None:
    with filled.change() as connection:
        settle(connection, [Judgement(one, 0, None) for one in (FIRST, SECOND)])
        connection.execute(items.delete().where(items.c.id == FIRST))
    with filled.change() as connection:
        settle(connection, [Judgement(FIRST, 0, None)])
        outdate(connection, items.c.id == FIRST)
        assert connection.execute(sa.select(judgements.c.item)).scalars().all() == [SECOND]
