# SPDX-License-Identifier: Apache-2.0
"""One alert of a subject goes on at a time, over every database, whoever raises it at once."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from keepstone.catalogue import Database, alerts, notices, targets
from keepstone.control import groups, vaults
from keepstone.control.alerts import fire, forget, listing, resolve
from keepstone.control.courier import shown
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.postman import Postman
from keepstone.control.targets import put
from keepstone.control.watch import Watch
from keepstone.env import Env
from keepstone.jobs import Status
from keepstone.vault.alerts import Condition, Kind, State, Subject
from tests.service.mailbox import Mailbox

from .conftest import Clock

pytestmark = pytest.mark.service

VAULT, ITEM = UUID(int=1), UUID(int=2)
FAILURE = Subject(kind=Kind.BACKUP_FAILURE, vault=VAULT, item=ITEM, part="Full")
UNHEALTHY = Subject(kind=Kind.ITEM_UNHEALTHY, vault=VAULT, item=ITEM)


def raise_it(database: Database, clock: Clock, subject: Subject = FAILURE, message: str = "it failed") -> None:
    with database.change() as connection:
        fire(connection, clock, subject, message, resource="/v", entity="data")


def target(database: Database, clock: Clock, vault: UUID = VAULT) -> UUID:
    identity = uuid4()
    row = {"id": identity, "vault": vault, "key": identity.hex, "name": identity.hex, "sealed": b"", "shown": ""}
    with database.change() as connection:
        connection.execute(targets.insert().values(**row, created=clock.now, due=clock.now, failures=0))
    return identity


def waiting(database: Database, whom: UUID) -> list[str]:
    with database.look() as connection:
        query = sa.select(notices.c.event).where(notices.c.target == whom).order_by(notices.c.sequence)
        return list(connection.execute(query).scalars())


def test_it_is_counted_until_it_is_resolved(database: Database, clock: Clock) -> None:
    whom, other = target(database, clock), target(database, clock, UUID(int=9))
    raise_it(database, clock, message="first")
    clock.now += timedelta(minutes=1)
    raise_it(database, clock, message="second")

    with database.look() as connection:
        (alert,) = listing(connection, limit=9)
    assert (alert.count, alert.message, alert.condition, alert.state) == (2, "second", Condition.FIRED, State.NEW)
    assert alert.last - alert.raised == timedelta(minutes=1)
    assert (alert.ended, alert.resolved) == (None, None)

    clock.now += timedelta(minutes=1)
    with database.change() as connection:
        assert resolve(connection, clock, alerts.c.item == ITEM) == 1
        assert resolve(connection, clock, alerts.c.item == ITEM) == 0
    raise_it(database, clock, message="third")

    with database.look() as connection:
        new, old = listing(connection, limit=9, by="raised")
    assert (new.count, new.message, new.condition) == (1, "third", Condition.FIRED)
    assert (old.id, old.count, old.condition, old.resolved) == (alert.id, 2, Condition.RESOLVED, clock.now)
    assert waiting(database, whom) == ["Fired", "Resolved", "Fired"]
    assert waiting(database, other) == []


def test_what_is_found_by_looking_is_not_counted(database: Database, clock: Clock) -> None:
    whom = target(database, clock)
    for _ in range(3):
        raise_it(database, clock, UNHEALTHY)
    with database.look() as connection:
        (alert,) = listing(connection, limit=9)
    assert alert.count == 1
    assert waiting(database, whom) == ["Fired"]


def test_what_people_closed_is_over_without_a_word(database: Database, clock: Clock) -> None:
    """By itself it is still so, and a new one of it is another alert: the success ends both."""
    whom = target(database, clock)
    raise_it(database, clock)
    with database.change() as connection:
        connection.execute(alerts.update().values(state=State.CLOSED, ended=clock.now))
    raise_it(database, clock)
    clock.now += timedelta(minutes=1)
    with database.change() as connection:
        assert resolve(connection, clock, alerts.c.item == ITEM) == 2

    with database.look() as connection:
        found = {(one.state, one.condition, one.ended) for one in listing(connection, limit=9)}
    before = clock.now - timedelta(minutes=1)
    assert found == {(State.CLOSED, Condition.RESOLVED, before), (State.NEW, Condition.RESOLVED, clock.now)}
    assert waiting(database, whom) == ["Fired", "Fired", "Resolved"]


def test_what_was_rolled_back_did_not_happen(database: Database, clock: Clock) -> None:
    whom = target(database, clock)
    with pytest.raises(LookupError), database.change() as connection:
        fire(connection, clock, FAILURE, "it failed", resource="/v", entity="data")
        raise LookupError
    assert waiting(database, whom) == []
    with database.look() as connection:
        assert listing(connection, limit=9) == []


@pytest.mark.parametrize("subject", [FAILURE, UNHEALTHY], ids=lambda subject: str(subject.kind))
def test_many_at_once(database: Database, clock: Clock, subject: Subject) -> None:
    whom = target(database, clock)
    barrier = threading.Barrier(8)
    failed: list[Exception] = []

    def run() -> None:
        barrier.wait(30)
        try:
            raise_it(database, clock, subject)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failed == []
    with database.look() as connection:
        (alert,) = listing(connection, limit=9)
    assert alert.count == (8 if subject is FAILURE else 1)
    assert waiting(database, whom) == ["Fired"]


def test_pages(database: Database, clock: Clock) -> None:
    for number in range(5):
        raise_it(database, clock, Subject(kind=Kind.BACKUP_FAILURE, vault=VAULT, item=UUID(int=number + 10)))
    with database.look() as connection:
        for descending in (True, False):
            whole = [one.id for one in listing(connection, limit=9, descending=descending)]
            seen: list[UUID] = []
            last = None
            while page := listing(connection, limit=2, descending=descending, after=last):
                seen += [one.id for one in page]
                last = page[-1].changed, page[-1].id
            assert seen == whole
            assert len(whole) == 5


def test_the_whole_way(url: str, tmp_path: Path) -> None:
    """From what happened to the target, with the installation's own parts."""
    installation = Installation(Env(), tmp_path / "service", None if url.startswith("sqlite") else url)
    installation.begin("onprem1")
    plane = installation.plane()
    mailbox = Mailbox()
    try:
        subscription = plane.place.subscription
        with plane.change() as change:
            groups.put(change, subscription, "group", "onprem1", {})
        vault = vaults.create(plane, subscription, "group", "vault1", "onprem1", {}, sku={}, tags={})
        with plane.change() as change:
            put(change, vault, "hook", mailbox.url(), shown(mailbox.url()))
        off = {"securitySettings": {"softDeleteSettings": {"softDeleteState": "Disabled"}}}
        with plane.change() as change:
            vaults.update(change, vault, properties=off)
        job = ask(plane, vault.id)
        claim = plane.queue.claim("test", ["Verify"])
        assert claim is not None
        assert claim.id == job
        with plane.queue.ending(claim, Status.FAILED, {"code": "CorruptObject", "message": "damage"}):
            pass
        Watch(plane).look()
        assert Postman(plane).run() == 1
        with plane.change() as change:
            forget(change)
    finally:
        mailbox.close()
        plane.database.close()
    assert mailbox.titles == ["3 alerts of vault 'vault1'"]
    lines = [line for line in mailbox.messages[0]["message"].splitlines() if line.startswith("[")]
    assert lines == [
        "[Sev0] Soft Delete Disabled for Vault: vault1",
        "[Sev1] Job Failure: vault1",
        "[Sev0] Store Damaged: vault1",
    ]


def ask(plane: Plane, vault: UUID) -> UUID:
    with plane.database.change() as connection:
        return plane.queue.enqueue(connection, "Verify", {}, vault=vault)
