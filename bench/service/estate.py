# SPDX-License-Identifier: Apache-2.0
"""An installation with 20 vaults, of which one has everything: every point and every job of every item.

That is the worst case for whatever looks at a vault. Half of the items are folders of one machine, in one container;
half are virtual machines, each a container by itself. Rows are written into the tables as the service would have
written them over a year; there is nothing in the store, so nothing here is for a restore. Policies keep every point for
longer than the year, so that a judgement removes none.

It is made once for each size and recipe, and kept; what measures takes a copy.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from bench.setup import bench_dir
from keepstone.catalogue import containers, items, jobs, metadata, operations, points
from keepstone.control import groups, people, policies, vaults
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.sources import item_name
from keepstone.env import Env
from keepstone.jobs import Status
from keepstone.vault import Vault, folded

__all__ = ["FULL", "GROUP", "SMALL", "VAULT", "Estate", "Size", "copied", "fill"]

RECIPE = 1
GROUP, VAULT, LOCATION = "bench", "vault-01", "onprem1"
_YEAR = timedelta(days=365)
_ROWS = 10_000  # of one insert


@dataclass(frozen=True, slots=True)
class Size:
    """How many. `points`: of each item."""

    name: str
    vaults: int
    items: int
    points: int
    jobs: int


FULL = Size("full", 20, 10_000, 100, 1_000_000)
SMALL = Size("small", 20, 1_000, 50, 50_000)


@dataclass(frozen=True, slots=True)
class Estate:
    """What those who ask have to know. `who`: the object id and the login of a Backup Operator. `items`: some paths
    beneath the vault; `jobs` and `operations`: some names."""

    subscription: str
    tenant: str
    who: tuple[str, str]
    items: list[str]
    jobs: list[str]
    operations: list[str]

    @property
    def vault(self) -> str:
        """The path of the vault that has everything."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{GROUP}"
        return f"{group}/providers/Microsoft.RecoveryServices/vaults/{VAULT}"


def copied(size: Size, target: Path) -> Estate:
    """A copy in a folder that is not there yet; made first, where there is none of this size."""
    made = bench_dir() / f"service-{size.name}-{_shape()}"
    if not (made / "estate.json").exists():
        for older in made.parent.glob(f"service-{size.name}-*"):
            shutil.rmtree(older)
        _make(size, made)
    shutil.copytree(made, target)
    return Estate(**json.loads((target / "estate.json").read_text()))


def _shape() -> str:
    """Another one for other tables and another recipe."""
    dialect = sqlite.dialect()
    parts = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]
    parts += [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in metadata.sorted_tables
        for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]
    return hashlib.sha256("\n".join([str(RECIPE), *parts]).encode()).hexdigest()[:12]


def _make(size: Size, root: Path) -> None:
    installation = Installation(Env(), root)
    installation.begin(LOCATION)
    plane = installation.plane()
    try:
        with plane.change() as change:
            groups.put(change, plane.place.subscription, GROUP, LOCATION, {})
            who = people.add(change, "app", "bench", "bench")
            people.assign(change, "/", who.id, "Owner")
        for number in range(size.vaults):
            vaults.create(
                plane, plane.place.subscription, GROUP, f"vault-{number + 1:02}", LOCATION, {}, sku={}, tags={}
            )
        estate = fill(plane, size, (who.id, who.login))
        with plane.database.engine.connect() as connection:
            connection.connection.execute("pragma wal_checkpoint(truncate)")
    finally:
        plane.database.close()
    (root / "estate.json").write_text(json.dumps(asdict(estate)))


def fill(plane: Plane, size: Size, who: tuple[str, str]) -> Estate:
    """Write the rows of a vault that there is; always the same ones, but for the time."""
    chance = random.Random(RECIPE)
    now = plane.env.utc().replace(microsecond=0)
    with plane.change() as change:
        vault = vaults.find(change.connection, plane.place.subscription, GROUP, VAULT)
        chosen = {kind: _policy(change, vault, kind, now) for kind in ("MAB", "AzureIaasVM")}
    made = [_Item(vault, number, chance, chosen) for number in range(size.items)]
    held = {item.container["id"]: item.container for item in made}
    done = [_operation(vault, chance, now) for _ in range(1000)]
    tasks = list(_jobs(size, made, chance, now))
    rows: dict[sa.Table, Iterator[dict[str, Any]]] = {
        containers: iter(held.values()),
        items: (item.row(now) for item in made),
        points: (row for item in made for row in item.points(size.points, now)),
        jobs: iter(tasks),
        operations: iter(done),
    }
    for table, each in rows.items():
        with plane.database.change() as connection:
            indexes = sorted(table.indexes, key=lambda index: str(index.name))
            for index in indexes:
                index.drop(connection)
            while some := list(islice(each, _ROWS)):
                connection.execute(table.insert(), some)
            for index in indexes:  # at the end, which is faster
                index.create(connection)
    return Estate(
        plane.place.subscription,
        plane.place.tenant,
        who,
        [item.path for item in chance.sample(made, min(500, len(made)))],
        [str(row["id"]) for row in chance.sample(tasks, 500)],
        [str(row["id"]) for row in done[:500]],
    )


def _policy(change: Any, vault: Vault, management: str, now: datetime) -> UUID:
    """One with rules of every kind, that keeps everything for two years at least."""
    at = f"{now:%Y-%m-%d}T16:00:00Z"

    def kept(count: int, **more: Any) -> dict[str, Any]:
        return {
            "retentionTimes": [at],
            "retentionDuration": {"count": count, "durationType": "Months"},
            **more,
        }

    last = {"daysOfTheMonth": [{"date": 0, "isLast": True}]}
    sunday = {"daysOfTheWeek": ["Sunday"], "weeksOfTheMonth": ["First"]}
    properties = {
        "backupManagementType": management,
        "timeZone": "W. Europe Standard Time",
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Daily",
            "scheduleRunTimes": [at],
        },
        "retentionPolicy": {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "dailySchedule": kept(24),
            "weeklySchedule": kept(36, daysOfTheWeek=["Sunday"]),
            "monthlySchedule": kept(60, retentionScheduleFormatType="Weekly", retentionScheduleWeekly=sunday),
            "yearlySchedule": kept(
                120, retentionScheduleFormatType="Daily", retentionScheduleDaily=last, monthsOfYear=["December"]
            ),
        },
    }
    return policies.put(change, vault, f"bench-{management}", properties)[0].id


class _Item:
    """A folder, or a virtual machine."""

    def __init__(self, vault: Vault, number: int, chance: random.Random, chosen: dict[str, UUID]) -> None:
        self.vault, self.number, self.chance = vault, number, chance
        self.id = _id(chance)
        self.is_machine = number % 2 == 1
        self.management = "AzureIaasVM" if self.is_machine else "MAB"
        self.policy = chosen[self.management]
        if self.is_machine:
            self.source = f"/var/lib/machines/vm-{number:05}.img"
            self.friendly = f"vm-{number:05}"
            ending = f"iaasvmcontainerv2;{GROUP};{self.friendly}"
            self.name, held, kind = f"VM;{ending}", f"IaasVMContainer;{ending}", "Microsoft.Compute/virtualMachines"
        else:
            self.source = self.friendly = f"/srv/projects/{number:05}"
            self.name, held, kind = item_name(self.source), "Windows;host.example", "Windows"
        group = f"/subscriptions/{vault.subscription}/resourceGroups/{GROUP}"
        machine = f"{group}/providers/Microsoft.Compute/virtualMachines/{self.friendly}"
        self.properties = {"sourceResourceId": machine} if self.is_machine else {}
        self.container = {
            "id": _id(chance) if self.is_machine else UUID(int=1),
            "vault": vault.id,
            "key": folded(held),
            "name": held,
            "friendly": self.friendly if self.is_machine else "host.example",
            "management": self.management,
            "kind": kind,
            "properties": self.properties,
            "registered": vault.created,
        }
        self.path = f"/backupFabrics/Azure/protectionContainers/{held}/protectedItems/{self.name}"

    def row(self, now: datetime) -> dict[str, Any]:
        return {
            "id": self.id,
            "vault": self.vault.id,
            "container": self.container["id"],
            "key": folded(self.name),
            "name": self.name,
            "friendly": self.friendly,
            "management": self.management,
            "workload": "VM" if self.is_machine else "FileFolder",
            "policy": self.policy,
            "state": "Protected",
            "source": {"path": self.source},
            "properties": self.properties,
            "created": now - _YEAR,
            "backed_up": now - timedelta(hours=3),
            "outcome": "Completed",
            "newest": now - timedelta(hours=4),
        }

    def points(self, count: int, now: datetime) -> Iterator[dict[str, Any]]:
        """Over a year; one of fifty was made by hand, with a date of its own."""
        for place in range(count):
            made = now - timedelta(hours=4) - place * _YEAR / count
            number = self.chance.getrandbits(60)
            yield {
                "item": self.id,
                "name": str(number),
                "vault": self.vault.id,
                "commit_id": f"{int(made.timestamp() * 1e6):020}-{number:015x}",
                "made": made,
                "type": "Full",
                "consistency": "CrashConsistent" if self.is_machine else "FileSystemConsistent",
                "own": made + 3 * _YEAR if place % 50 == 7 else None,
                "logical": 1 << 30,
                "fresh": 1 << 24,
                "stored": 1 << 23,
                "warnings": 0,
            }

    @property
    def about(self) -> dict[str, Any]:
        """What a job says of it."""
        return {
            "entity": self.friendly,
            "management": self.management,
            "workload": "VM" if self.is_machine else "FileFolder",
            "container": self.container["name"],
            "machine": self.container["friendly"],
        }


def _jobs(size: Size, made: list[_Item], chance: random.Random, now: datetime) -> Iterator[dict[str, Any]]:
    """Over a year, newest first. Few are not backups, few did not go well, and very few go on."""
    states = {Status.COMPLETED: 940, Status.WARNED: 30, Status.FAILED: 20, Status.CANCELLED: 10}
    names, weights = list(states), list(states.values())
    kinds = ("Backup", "ConfigureBackup", "Restore", "DisableBackup")
    for number in range(size.jobs):
        item = made[chance.randrange(len(made))]
        created = now - number * _YEAR / size.jobs
        goes_on = number % (size.jobs // 20) == 0
        status = Status.RUNNING if goes_on else chance.choices(names, weights)[0]
        failed = {"code": "SourceMissing", "message": f"{item.source} is not there; check that it is mounted"}
        yield {
            "id": _id(chance),
            "vault": item.vault.id,
            "item": item.id,
            "operation": chance.choices(kinds, (970, 20, 5, 5))[0],
            "arguments": {"part": "Full"} | item.about,
            "management": item.management,
            "status": status,
            "created": created,
            "due": created,
            "started": created + timedelta(seconds=2),
            "ended": None if goes_on else created + timedelta(minutes=5),
            "owner": "elsewhere" if goes_on else None,
            "lease_until": now + 10 * _YEAR if goes_on else None,
            "token": 1,
            "attempt": 1,
            "progress": {"done": 1 << 30, "expected": 1 << 30, "line": "1,000 files", "result": {"files": 1000}},
            "error": failed if status is Status.FAILED else None,
            "activity": str(_id(chance)),
        }


def _operation(vault: Vault, chance: random.Random, now: datetime) -> dict[str, Any]:
    return {
        "id": _id(chance), "vault": vault.id, "job": _id(chance), "status": "Succeeded", "started": now, "ended": now,
    }  # fmt: skip


def _id(chance: random.Random) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)
