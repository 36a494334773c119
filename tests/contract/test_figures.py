# SPDX-License-Identifier: Apache-2.0
"""What is counted for those who watch, over every database."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from keepstone.catalogue import Database, containers, items, jobs, points, vaults
from keepstone.control.jobs import counts
from keepstone.control.points import Sizes, sizes
from keepstone.jobs import JobQueue

from .conftest import Clock

pytestmark = pytest.mark.service


def test_jobs_are_counted_by_what_they_do_and_how_they_are(database: Database, queue: JobQueue, clock: Clock) -> None:
    with database.look() as connection:
        assert counts(connection) == {}
    made = [("Backup", "Completed")] * 5 + [("Backup", "Failed")] * 2 + [("Restore", "Completed")] * 3
    made += [("Backup", "Queued"), ("Restore", "Cancelled"), ("Purge", "Completed")]
    with database.change() as connection:
        for number, (operation, status) in enumerate(made, 1):
            row = {"operation": operation, "status": status, "arguments": {}, "created": clock.utc()}
            connection.execute(jobs.insert().values(id=UUID(int=number), vault=UUID(int=1), due=clock.utc(), **row))
    with database.look() as connection:
        assert counts(connection) == Counter(made)
    with database.change() as connection:
        connection.execute(jobs.delete().where(jobs.c.operation == "Backup"))
    with database.look() as connection:
        assert ("Backup", "Completed") not in counts(connection)


def test_points_are_added_up_by_their_vaults(database: Database, clock: Clock) -> None:
    now, one, other = clock.utc(), UUID(int=1), UUID(int=2)
    named = {"name": "n", "properties": {}, "created": now}
    vault = named | {"subscription": "s", "location": "l", "group_key": "g", "group_name": "g", "tags": {}, "sku": {}}
    held = {"key": "c", "name": "c", "friendly": "c", "management": "MAB", "kind": "Windows", "properties": {}}
    item = named | {"friendly": "i", "management": "MAB", "workload": "FileFolder", "state": "Protected", "source": {}}
    point = {"made": now, "type": "Full", "consistency": "CrashConsistent", "commit_id": "c", "warnings": 0}
    with database.change() as connection:
        for home in (one, other):
            mine = {"id": home, "key": str(home), "settings": {}, "changed": now}
            connection.execute(vaults.insert().values(**(vault | mine)))
            connection.execute(containers.insert().values(**held, id=home, vault=home, registered=now))
            connection.execute(
                items.insert().values(**(item | {"id": home, "vault": home, "container": home, "key": "i"}))
            )
        for number, deleted in ((1, None), (2, None), (3, now)):
            size = {"logical": 2**40, "fresh": 20, "stored": 10}
            connection.execute(
                points.insert().values(item=one, vault=one, name=str(number), deleted=deleted, **point, **size)
            )
    with database.look() as connection:
        assert sizes(connection) == {one: Sizes(2, 2**41, 40, 20)}
