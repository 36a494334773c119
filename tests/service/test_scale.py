# SPDX-License-Identifier: Apache-2.0
"""A vault with much in it: what is asked of it is found by indexes, and never by going through everything.

Nothing here looks at a clock. `python -m bench service` does, with ten and twenty times as much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import sqlalchemy as sa

from bench.service.estate import GROUP, VAULT, Estate, Size, fill
from bench.service.pages import FILTERS
from keepstone.catalogue import assignments, containers, items, jobs, points, policies, schedules
from keepstone.catalogue import vaults as stored
from keepstone.control import people, retention
from keepstone.control.plane import Plane
from keepstone.control.schedules import ItemPlans
from keepstone.identity import Principal
from keepstone.jobs import BACKUP, Scheduler, Status
from keepstone.vault import judge, read_policy, zone

from .client import Client

pytestmark = pytest.mark.service

SIZE = Size("test", vaults=1, items=1000, points=50, jobs=10_000)
LARGE = ("containers", "items", "jobs", "operations", "points", "schedules")


@dataclass
class Heard:
    """What a database was asked: statements with what was given to them. `plans`: how SQLite finds what each of them
    wants, step by step."""

    asked: list[tuple[str, Any]] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)

    @property
    def statements(self) -> list[str]:
        """Without what was given to them."""
        return [statement for statement, _ in self.asked]

    @property
    def scans(self) -> list[str]:
        """Steps that go through a whole table, or a whole index, of which there may be much."""
        return [step for step in self.plans if re.match(rf"SCAN ({'|'.join(LARGE)})\b", step)]


@contextmanager
def heard(plane: Plane) -> Iterator[Heard]:
    """Listen to a database."""
    found = Heard()

    def listen(
        connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        found.asked.append((statement, parameters))
        if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            once = parameters[0] if many else parameters
            found.plans += [row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", once)]

    engine = plane.database.engine
    sa.event.listen(engine, "before_cursor_execute", listen)
    try:
        yield found
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)


@pytest.fixture(scope="module")
def estate(client: Client, plane: Plane) -> Estate:
    client.group(GROUP)
    client.vault(GROUP, VAULT)
    return fill(plane, SIZE, ("", ""))


def rows(plane: Plane, table: sa.Table, **having: Any) -> list[Any]:
    query = sa.select(table).where(*(table.c[name] == value for name, value in having.items()))
    with plane.look() as connection:
        return list(connection.execute(query).mappings())


ASKED = {
    "vault": "{vault}",
    "vaults": "/subscriptions/{subscription}/providers/Microsoft.RecoveryServices/vaults",
    "policies": "{vault}/backupPolicies",
    "policy": "{vault}/backupPolicies/bench-MAB",
    "operation": "{vault}/backupOperations/{operation}",
    "job": "{vault}/backupJobs/{job}",
    "item": "{vault}{item}",
    "points": "{vault}{item}/recoveryPoints",
    "items": "{vault}/backupProtectedItems",
    "items of a kind": "{vault}/backupProtectedItems?$filter=backupManagementType eq 'AzureIaasVM'",
    "items of a policy": "{vault}/backupProtectedItems?$filter=policyName eq 'bench-MAB'",
    "an item by its name": "{vault}/backupProtectedItems?$filter=friendlyName eq 'vm-00617'",
} | {f"jobs, {name}": "{vault}/backupJobs" + (f"?$filter={each}" if each else "") for name, each in FILTERS.items()}


@pytest.mark.parametrize("what", ASKED)
def test_nothing_goes_through_everything(what: str, estate: Estate, client: Client, plane: Plane) -> None:
    names = {
        "vault": estate.vault,
        "subscription": estate.subscription,
        "operation": estate.operations[0],
        "job": estate.jobs[0],
        "item": estate.items[0],
    }
    with heard(plane) as found:
        client.arm("GET", ASKED[what].format(**names))
    assert len(found.statements) <= 8
    assert found.plans
    assert found.scans == []


@pytest.mark.parametrize(
    ("name", "index"),
    {
        "all": "ix_jobs_vault_created",
        "failed": "ix_jobs_unusual",
        "in progress": "ix_jobs_unusual",
        "restores": "ix_jobs_no_backup",
        "never asked for": "ix_jobs_no_backup",
        "of folders": "ix_jobs_vault_management_created",
        "of databases": "ix_jobs_vault_management_created",
        "failed restores of machines": "ix_jobs_no_backup",
    }.items(),
)
def test_jobs_are_found_by_what_is_rare_about_them(
    name: str, index: str, estate: Estate, client: Client, plane: Plane
) -> None:
    with heard(plane) as found:
        client.arm("GET", f"{estate.vault}/backupJobs", params={"$filter": FILTERS[name]} if FILTERS[name] else {})
    used = [
        match[1] for step in found.plans if (match := re.match(r"SEARCH jobs USING (?:COVERING )?INDEX (\w+)", step))
    ]
    assert used[-1] == index  # before it words are looked for
    sorting = [step for step in found.plans if "TEMP B-TREE FOR ORDER BY" in step]
    assert sorting == []  # which would read all of them for a page; of those of one moment it may


def test_a_filter_finds_what_it_says_whatever_its_case(estate: Estate, client: Client, plane: Plane) -> None:
    every = rows(plane, jobs)
    open_ = (Status.QUEUED, Status.RUNNING)
    cases: list[tuple[str, Callable[[Any], bool]]] = [
        ("status eq 'INPROGRESS'", lambda job: job["status"] in open_),
        ("operation eq 'restore'", lambda job: job["operation"] == "Restore"),
        ("operation eq 'BACKUP' and status eq 'failed'",
         lambda job: (job["operation"], job["status"]) == (BACKUP, "Failed")),
        ("operation eq 'Restore' and status eq 'Completed' and backupManagementType eq 'mab'",
         lambda job: (job["operation"], job["status"], job["management"]) == ("Restore", "Completed", "MAB")),
        ("operation eq 'Undelete'", lambda job: False),
        ("backupManagementType eq 'AzureWorkload'", lambda job: False),
    ]  # fmt: skip
    for text, wanted in cases:
        matching = sorted(
            (job for job in every if wanted(job)), key=lambda job: (job["created"], job["id"]), reverse=True
        )
        assert paged(client, f"{estate.vault}/backupJobs", text) == [str(job["id"]) for job in matching], text


def paged(client: Client, path: str, text: str) -> list[str]:
    """The names on all pages of a list."""
    page = client.arm("GET", path, params={"$filter": text} if text else {})
    names = [one["name"] for one in page["value"]]
    while "nextLink" in page:
        assert len(page["value"]) == 200
        page = client.arm("GET", path, params=dict(parse_qsl(urlsplit(page["nextLink"]).query)))
        names += [one["name"] for one in page["value"]]
    return names


def test_a_page_of_items_reads_the_containers_and_policies_on_it(estate: Estate, client: Client, plane: Plane) -> None:
    with heard(plane) as found:
        names = paged(client, f"{estate.vault}/backupProtectedItems", "")
    assert len(names) == len(set(names)) == SIZE.items
    for table in ("containers", "policies"):
        read = [(statement, given) for statement, given in found.asked if f"FROM {table}" in statement]
        assert len(read) == SIZE.items / 200
        assert all(f"{table}.id IN (" in statement and len(given) <= 201 for statement, given in read)


def test_retention_of_all_items_looks_at_many_at_once(estate: Estate, plane: Plane) -> None:
    with heard(plane) as first:
        assert retention.sweep(plane) == 0
    with heard(plane) as again:
        assert retention.sweep(plane) == 0
    assert len(first.statements) < SIZE.items / 3
    assert first.scans == []
    assert [one for one in first.statements if one.startswith("UPDATE points")]
    assert len(again.statements) == 2  # what vaults there are, and what there is to judge
    assert again.scans == []

    known = {row["id"]: read_policy(row["name"], row["properties"]) for row in rows(plane, policies)}
    for item in rows(plane, items)[:20]:
        policy, found = known[item["policy"]], rows(plane, points, item=item["id"])
        made = {point["name"]: point["made"] for point in found}
        own = {point["name"]: point["own"] for point in found if point["own"] is not None}
        kept = judge(policy.parts[0].retention, made, zone(policy.zone), own=own)
        assert {point["name"]: point["until"] for point in found} == {name: one.until for name, one in kept.items()}


def test_a_thousand_schedules_that_are_due_are_a_few_statements(estate: Estate, plane: Plane) -> None:
    now = plane.env.utc()
    (vault,) = rows(plane, stored)
    found = {item["id"]: item for item in rows(plane, items)}
    with plane.database.change() as connection:
        due = [{"item": item, "part": "Full", "vault": vault["id"], "due": now} for item in found]
        connection.execute(schedules.insert(), due)
        going_on = jobs.c.status == Status.RUNNING
        connection.execute(jobs.update().where(going_on).values(status=Status.COMPLETED))
    scheduler = Scheduler(plane.database, plane.queue, plane.env, ItemPlans())

    with heard(plane) as said:
        assert scheduler.tick() == SIZE.items
    assert scheduler.tick() == 0

    assert len(said.statements) <= 30
    assert said.scans == []
    asked = rows(plane, jobs, status=Status.QUEUED)
    assert {job["item"] for job in asked} == set(found)
    for job in asked:
        item = found[job["item"]]
        assert job["management"] == item["management"]
        assert job["arguments"]["entity"] == item["friendly"]
        assert job["arguments"]["part"] == "Full"
    assert all(row["due"] > now for row in rows(plane, schedules))


def test_a_role_counts_from_the_next_request_on(
    estate: Estate, plane: Plane, principal: Callable[..., Principal], client_of: Callable[..., Client]
) -> None:
    who = principal("Backup Reader")
    asker = client_of(who)
    asker.arm("GET", estate.vault)
    asker.arm("GET", estate.vault)
    with plane.change() as change:
        (given,) = people.listing(change.connection, "/", principal=who.id)
        people.unassign(change, given)
    asker.refused("GET", estate.vault, status=403)
    again = {"id": given.id, "principal": who.id, "role": given.role, "scope": "/", "created": plane.env.utc()}
    with plane.database.change() as connection:  # by whomever
        connection.execute(assignments.insert(), again)
    asker.arm("GET", estate.vault)


def test_containers_come_page_by_page(estate: Estate, client: Client, plane: Plane) -> None:
    """500 virtual machines and the machine of the folders, each once and by name, with the items of each."""
    found: list[Any] = []
    path, pages = f"{estate.vault}/backupProtectionContainers", 0
    while path:
        with heard(plane) as said:
            answered = client.arm("GET", path)
        assert said.scans == []
        found += answered["value"]
        parts = urlsplit(answered.get("nextLink", ""))
        path, pages = f"{parts.path}?{parts.query}" if parts.path else "", pages + 1
    assert pages == 3
    every = rows(plane, containers)
    assert len(every) == 501
    names = [one["name"] for one in found]
    assert names == sorted((row["name"] for row in every), key=str.casefold)
    (machine,) = [one for one in found if one["properties"]["backupManagementType"] == "MAB"]
    assert machine["properties"]["protectedItemCount"] == 500

    asked = {"$filter": "backupManagementType eq 'azureiaasvm' and friendlyName eq 'VM-00617'"}
    (one,) = client.arm("GET", f"{estate.vault}/backupProtectionContainers", params=asked)["value"]
    assert one["properties"]["friendlyName"] == "vm-00617"
    for nothing in ("status eq 'NotRegistered'", "backupEngineName eq 'x'", "backupManagementType eq 'AzureSql'"):
        asked = {"$filter": nothing}
        assert client.arm("GET", f"{estate.vault}/backupProtectionContainers", params=asked) == {"value": []}
