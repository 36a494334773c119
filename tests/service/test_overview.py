# SPDX-License-Identifier: Apache-2.0
"""Vaults at a look, their growth, and what the points of items tell over time.

Rows of points, jobs, alerts and drills are written as the service writes them, with times of the test's choosing: that
says what is counted out of them, and not that they come about, which the tests of each say.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.service.estate import GROUP, VAULT, Size, fill
from keepstone.arm import reports
from keepstone.arm.items import health_of
from keepstone.catalogue import every, items, jobs, points
from keepstone.catalogue import policies as stored
from keepstone.catalogue import vaults as kept
from keepstone.control import alerts, compliance, drills, growth, overview
from keepstone.control import policies as control
from keepstone.control.growth import Day, forecast
from keepstone.control.plane import Plane
from keepstone.identity import Principal
from keepstone.jobs import Status
from keepstone.vault import Health, Item, StoredPolicy, zone
from keepstone.vault.alerts import Kind, State, Subject
from keepstone.vault.records import Vault as Record
from keepstone.vault.rpo import expected, has_point
from keepstone.workloads.running import Reached

from .client import Client
from .exercised import exercises
from .protecting import Vault
from .test_scale import heard

pytestmark = pytest.mark.service
DAY = timedelta(days=1)
PROVIDER = "providers/Microsoft.RecoveryServices"


def ask(vault: Vault, what: str, **query: str) -> dict[str, Any]:
    found: dict[str, Any] = vault.client.arm("GET", f"{vault.path}/{what}", params=query)["properties"]
    return found


def record(vault: Vault) -> Record:
    with vault.plane.look() as connection:
        (found,) = every(connection, Record, kept.c.id == vault.uuid)
        return found


def ours(vault: Vault, connection: sa.Connection) -> dict[UUID, tuple[Item, StoredPolicy | None]]:
    """The items of a vault with their policies."""
    known = {one.id: one for one in every(connection, StoredPolicy, stored.c.vault == vault.uuid)}
    found = every(connection, Item, items.c.vault == vault.uuid)
    return {item.id: (item, known.get(item.policy) if item.policy else None) for item in found}


def protected(vault: Vault, folder: Path, policy: str = "FilesPolicy") -> UUID:
    """A folder's item, by its own id."""
    folder.mkdir()
    vault.protect(folder, policyId=vault.policy(policy))
    with vault.plane.look() as connection:
        query = sa.select(items.c.id).where(items.c.vault == vault.uuid, items.c.friendly == str(folder))
        return UUID(str(connection.execute(query).scalar_one()))


def point(vault: Vault, item: UUID, made: datetime, stored: int = 1000, logical: int = 5000) -> None:
    """A row of a point, and the item's newest with it."""
    number = random.getrandbits(60)
    row = {
        "item": item, "name": str(number), "vault": vault.uuid, "commit_id": f"{number:015x}", "made": made,
        "type": "Full", "consistency": "CrashConsistent", "logical": logical, "fresh": stored, "stored": stored,
        "warnings": 0,
    }  # fmt: skip
    with vault.plane.database.change() as connection:
        connection.execute(points.insert().values(row))
        later = sa.or_(items.c.newest.is_(None), items.c.newest < made)
        connection.execute(items.update().where(items.c.id == item, later).values(newest=made))


def long_ago(vault: Vault, item: UUID, days: int) -> None:
    """As if it were protected like this since then."""
    then = vault.plane.env.utc() - days * DAY
    with vault.plane.database.change() as connection:
        connection.execute(items.update().where(items.c.id == item).values(created=then))
        connection.execute(jobs.update().where(jobs.c.item == item).values(created=then))
        connection.execute(stored.update().where(stored.c.vault == vault.uuid).values(changed=then))


def nightly(vault: Vault, name: str, days: int = 60, at: str = "02:00") -> None:
    """A policy of every night."""
    when = f"2026-01-01T{at}:00Z"
    properties = {
        "backupManagementType": "MAB",
        "timeZone": "UTC",
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicy", "scheduleRunFrequency": "Daily", "scheduleRunTimes": [when],
        },
        "retentionPolicy": {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "dailySchedule": {
                "retentionTimes": [when], "retentionDuration": {"count": days, "durationType": "Days"}
            },
        },
    }  # fmt: skip
    vault.client.arm("PUT", vault.policy(name), {"properties": properties})


# --- the whole


@exercises("keepstone.overview")
def test_what_there_is_is_counted(vault: Vault, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    protected(vault, folder)
    (folder / "a.txt").write_text("kept")
    protected(vault, tmp_path / "empty")
    before = ask(vault, "overview")
    assert before["items"] == {"Healthy": 0, "Unhealthy": 0, "IRPending": 2, "softDeleted": 0}
    assert before["rpo"] == {"met": 0, "missed": 0}

    vault.back_up(vault.item(folder))
    found = ask(vault, "overview")

    assert found["items"] == {"Healthy": 1, "Unhealthy": 0, "IRPending": 1, "softDeleted": 0}
    assert found["rpo"] == {"met": 1, "missed": 0}
    assert found["jobs"]["Completed"] == 3  # two that say how an item is protected
    (made,) = vault.points(vault.item(folder))
    assert found["recoveryPointCount"] == 1
    assert found["storedBytes"] == found["storedBytesLast30Days"] == made["properties"]["keepstone"]["storedBytes"]
    assert found["disk"]["totalBytes"] > found["disk"]["freeBytes"] > 0
    assert found["drills"] == {
        "startableItems": 0, "drilledLast30Days": 0, "provedLast30Days": 0, "lastProved": None
    }  # fmt: skip


def test_what_is_deleted_is_neither_well_nor_ill(vault: Vault, tmp_path: Path) -> None:
    protected(vault, tmp_path / "gone")
    vault.client.arm("DELETE", vault.item(tmp_path / "gone"), status=202)

    found = ask(vault, "overview")

    assert found["items"] == {"Healthy": 0, "Unhealthy": 0, "IRPending": 0, "softDeleted": 1}


AGES = st.one_of(st.none(), st.timedeltas(timedelta(0), timedelta(days=60)))
SITUATIONS = st.lists(
    st.tuples(
        AGES, st.sampled_from(["often", "nightly", "weekly", ""]), st.sampled_from(["Protected", "ProtectionStopped"])
    ),
    max_size=12,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(SITUATIONS)
def test_it_counts_as_each_item_says_of_itself(
    estate: tuple[Vault, list[UUID], dict[str, UUID]], situations: list[tuple[timedelta | None, str, str]]
) -> None:
    vault, each, policies = estate
    now = vault.plane.env.utc()
    with vault.plane.database.change() as connection:
        connection.execute(items.update().where(items.c.vault == vault.uuid).values(deleted=now))
        for number, (age, policy, state) in enumerate(situations):
            about = {"newest": None if age is None else now - age, "policy": policies.get(policy), "state": state}
            connection.execute(items.update().where(items.c.id == each[number]).values(deleted=None, **about))
    with vault.plane.look() as connection:
        found = overview.overview(vault.plane, connection, [record(vault)], service=False)
        mine = [one for one in ours(vault, connection).values() if one[0].deleted is None]

    assert len(mine) == len(situations)
    said = Counter(health_of(item, policy, now) for item, policy in mine)
    assert {health: number for health, number in found.health.items() if number} == said
    assert found.deleted == len(each) - len(situations)
    for health in Health:
        query = {"$filter": f"healthState eq '{health.lower()}'"}
        answer = vault.client.arm("GET", f"{vault.path}/backupProtectedItems", params=query)
        alike = {one["name"] for one in answer["value"]}
        assert alike == {item.name for item, policy in mine if health_of(item, policy, now) == health}


@pytest.fixture(scope="module")
def estate(client: Client, plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Any:
    vault, folder = Vault(client, plane, "agreeing"), tmp_path_factory.mktemp("agreeing")
    each = [protected(vault, folder / f"{number}") for number in range(12)]
    nightly(vault, "nightly", at="22:30")
    window = {"interval": 1, "scheduleWindowStartTime": "2026-01-01T06:00:00Z", "scheduleWindowDuration": 12}
    hourly: dict[str, Any] = {"schedulePolicyType": "SimpleSchedulePolicy", "scheduleRunFrequency": "Hourly"}
    hourly["hourlySchedule"] = window
    weekly = {"schedulePolicyType": "SimpleSchedulePolicy", "scheduleRunFrequency": "Weekly",
              "scheduleRunDays": ["Monday", "Thursday"], "scheduleRunTimes": ["2026-01-01T03:00:00Z"]}  # fmt: skip
    for name, schedule in (("often", hourly), ("weekly", weekly)):
        there = client.arm("GET", vault.policy("nightly"))["properties"]
        there |= {"schedulePolicy": schedule, "timeZone": "W. Europe Standard Time"}
        client.arm("PUT", vault.policy(name), {"properties": there})
    with plane.look() as connection:
        known = {one.name: one.id for one in every(connection, StoredPolicy, stored.c.vault == vault.uuid)}
    return vault, each, known


def test_a_run_that_goes_on_is_in_time(vault: Vault, tmp_path: Path) -> None:
    now = vault.plane.env.utc()
    nightly(vault, "nightly", at=f"{now - timedelta(hours=1):%H:%M}")
    item = protected(vault, tmp_path / "data", "nightly")
    point(vault, item, now - timedelta(hours=20))
    assert ask(vault, "overview")["rpo"] == {"met": 0, "missed": 1}

    vault.client.arm("POST", f"{vault.item(tmp_path / 'data')}/backup", {"properties": {}}, status=202)
    assert ask(vault, "overview")["rpo"] == {"met": 1, "missed": 0}

    with vault.plane.database.change() as connection:  # the one before it made none either
        connection.execute(items.update().where(items.c.id == item).values(newest=now - timedelta(hours=30)))
    assert ask(vault, "overview")["rpo"] == {"met": 0, "missed": 1}


def test_jobs_of_a_day_and_all_that_go_on(vault: Vault, tmp_path: Path) -> None:
    item, now = protected(vault, tmp_path / "data"), vault.plane.env.utc()
    wanted = [(Status.FAILED, 2), (Status.FAILED, 30), (Status.QUEUED, 30), (Status.RUNNING, 1), (Status.WARNED, 20)]
    with vault.plane.database.change() as connection:
        connection.execute(jobs.delete().where(jobs.c.vault == vault.uuid))
        for status, hours in wanted:
            then = now - timedelta(hours=hours)
            over = None if status in overview.OPEN else then
            connection.execute(
                jobs.insert().values(
                    id=vault.plane.new_id(), vault=vault.uuid, item=item, operation="Backup", arguments={},
                    status=status, created=then, due=then + 365 * DAY, ended=over,
                )
            )  # fmt: skip

    assert ask(vault, "overview")["jobs"] == {"Failed": 1, "InProgress": 2, "CompletedWithWarnings": 1}


def test_alerts_that_go_on_and_nobody_closed(vault: Vault, client: Client) -> None:
    plane = vault.plane
    with plane.change() as change:
        for kind, part in ((Kind.STORE_DAMAGED, ""), (Kind.JOB_FAILURE, "a"), (Kind.JOB_FAILURE, "b")):
            subject = Subject(kind=kind, vault=vault.uuid, part=part)
            alerts.fire(change.connection, plane.env, subject, "it is so", resource=vault.path, entity="vault1")
        subject = Subject(kind=Kind.CERTIFICATE_ENDING, part=vault.id)
        service = client.subscription
        alerts.fire(change.connection, plane.env, subject, "it ends", resource=service, entity="the service")
    assert ask(vault, "overview")["alerts"] == {"Sev0": 1, "Sev1": 2}
    everything = client.arm("GET", f"{client.subscription}/{PROVIDER}/overview")["properties"]
    assert everything["alerts"]["Sev2"] == 1

    with plane.change() as change:
        for one in alerts.listing(change.connection, limit=100):
            if one.vault == vault.uuid and one.kind is Kind.STORE_DAMAGED:
                alerts.set_state(change, one, State.CLOSED, "somebody")
        alerts.settle(change, record(vault), Kind.JOB_FAILURE)
    assert ask(vault, "overview")["alerts"] == {}


# --- drills


def machine(vault: Vault, folder: Path) -> UUID:
    """An item that counts as a machine's."""
    item = protected(vault, folder)
    with vault.plane.database.change() as connection:
        connection.execute(items.update().where(items.c.id == item).values(workload="VM"))
    return item


def drill(vault: Vault, item: UUID, ago: timedelta, level: Reached, picture: bytes = b"") -> drills.Drill:
    made = drills.Drill(
        id=vault.plane.new_id(), item=item, point="1", began=vault.plane.env.utc() - ago, level=str(level),
        seconds=12.5 if level.is_up else None, outcome={"reason": "it asks for a login", "file_systems": []},
    )  # fmt: skip
    with vault.plane.change() as change:
        drills.add(change, made, picture)
    return made


def test_what_proves_a_point() -> None:
    assert {str(level) for level in Reached if level.is_up} == set(overview.PASSED)


@exercises("keepstone.drills_of_vault")
def test_drills_of_machines(vault: Vault, tmp_path: Path) -> None:
    names = ("proved", "failing", "old", "never")
    each = {name: machine(vault, tmp_path / name) for name in names}
    protected(vault, tmp_path / "files")
    for item in each.values():
        point(vault, item, vault.plane.env.utc() - timedelta(hours=1))
    drill(vault, each["proved"], 3 * DAY, Reached.LOGIN)
    last = drill(vault, each["proved"], 2 * DAY, Reached.AGENT, b"\x89PNG")
    drill(vault, each["failing"], 1 * DAY, Reached.NONE)
    drill(vault, each["old"], 40 * DAY, Reached.AGENT)

    told = ask(vault, "overview")["drills"]
    assert (told["startableItems"], told["drilledLast30Days"], told["provedLast30Days"]) == (4, 2, 1)
    assert told["lastProved"].startswith(f"{last.began:%Y-%m-%dT%H:%M:%S}")

    listed = vault.client.arm("GET", f"{vault.path}/drills")["value"]
    shown = {Path(one["properties"]["friendlyName"]).name: one["properties"] for one in listed}
    assert set(shown) == set(names)
    assert shown["proved"]["drill"]["properties"]["hasScreenshot"] is True
    assert shown["proved"]["drill"]["name"] == str(last.id)
    assert shown["failing"]["drill"]["properties"]["level"] == "none"
    assert shown["failing"]["drill"]["properties"]["hasScreenshot"] is False
    assert shown["never"]["drill"] is None


def test_machines_that_nobody_protects(vault: Vault, client: Client, tmp_path: Path) -> None:
    before = ask(vault, "overview")["virtualMachines"]
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    for name in ("vm1", "VM2"):
        disk = {"vhd": {"uri": image.as_uri()}}
        body = {"location": "onprem1", "properties": {"storageProfile": {"osDisk": disk}}}
        path = f"{vault.group}/providers/Microsoft.Compute/virtualMachines/{name}"
        client.arm("PUT", path, body, status=201)
    found = ask(vault, "overview")["virtualMachines"]
    assert found == {"protected": before["protected"], "unprotected": before["unprotected"] + 2}

    group = vault.group.rpartition("/")[2]
    ending = f"iaasvmcontainerv2;{group};vm2"
    item = f"{vault.path}/backupFabrics/Azure/protectionContainers/IaasVMContainer;{ending}/protectedItems/VM;{ending}"
    properties = {
        "protectedItemType": "Microsoft.Compute/virtualMachines",
        "policyId": vault.policy("DefaultPolicy"),
        "sourceResourceId": path,
    }
    client.arm("PUT", item, {"properties": properties}, status=202)
    found = ask(vault, "overview")["virtualMachines"]
    assert found == {"protected": before["protected"] + 1, "unprotected": before["unprotected"] + 1}


# --- growth


@exercises("keepstone.growth")
def test_bytes_by_day(vault: Vault, tmp_path: Path) -> None:
    item, now = protected(vault, tmp_path / "data"), vault.plane.env.utc()
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    for ago, size in ((200, 100), (9, 10), (9, 20), (2, 5)):
        point(vault, item, today - ago * DAY, size)  # the first moment of the day
    point(vault, item, today - timedelta(microseconds=1), 3)  # the last one of yesterday

    found = ask(vault, "growth", days="10")

    days = {one["day"]: one for one in found["days"]}
    assert list(days) == [f"{(today - ago * DAY).date()}" for ago in range(9, -1, -1)]
    assert days[f"{(today - 9 * DAY).date()}"] | {"day": ""} == {
        "day": "", "recoveryPointCount": 2, "addedBytes": 30, "storedBytes": 130
    }  # fmt: skip
    assert [one["storedBytes"] for one in found["days"]] == [130] * 7 + [135, 138, 138]
    assert found["forecast"]["bytesPerDay"] == 1
    vault.client.refused("GET", f"{vault.path}/growth", params={"days": "-1"}, status=400)


def test_a_line_through_the_days() -> None:
    first = date(2026, 1, 1)

    def line(*stored: int) -> list[Day]:
        return [Day(first + place * DAY, 1, 0, bytes) for place, bytes in enumerate(stored)]

    steady = forecast(line(0, 0, 100, 200, 300, 400), 1000)
    assert steady is not None
    assert steady.slope == pytest.approx(100)  # of the days since the first one with points
    assert steady.full == first + 5 * DAY + 10 * DAY
    level = forecast(line(100, 100, 100), 1000)
    assert level is not None
    assert level.full is None
    slow = forecast(line(1_000_000, 1_000_000, 1_000_001), 10**15)
    assert slow is not None
    assert slow.full is None  # not in this calendar
    assert forecast(line(0, 0, 100, 200), 1000) is None


def test_a_sum_over_very_many_points_is_kept_for_a_minute(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, began = protected(vault, tmp_path / "data"), vault.plane.env.boot_time()
    for number in (1, 2):
        point(vault, item, vault.plane.env.utc())
        assert ask(vault, "overview")["recoveryPointCount"] == number

    monkeypatch.setattr(growth, "_MANY", 1)
    for after, number in ((100, 2), (159, 2), (160, 4)):
        monkeypatch.setattr(vault.plane.env, "boot_time", lambda now=began + after * 10**9: now)
        assert ask(vault, "overview")["recoveryPointCount"] == number
        point(vault, item, vault.plane.env.utc())


# --- over time


@exercises("keepstone.rpo")
def test_runs_that_made_a_point_in_time(vault: Vault, tmp_path: Path) -> None:
    nightly(vault, "nightly", 60)
    nightly(vault, "short", 5)
    each = {
        name: protected(vault, tmp_path / name, "short" if name == "short" else "nightly")
        for name in ("good", "gaps", "short", "young", "stopped")
    }
    now = vault.plane.env.utc()
    runs = [datetime(now.year, now.month, now.day, 2, tzinfo=UTC) - ago * DAY for ago in range(40)]
    runs = [run for run in runs if run < now]
    for name, item in each.items():
        if name != "young":
            long_ago(vault, item, 100)
    for place, run in enumerate(runs):
        point(vault, each["good"], run + timedelta(minutes=3))
        if place not in (4, 7, 8):
            point(vault, each["gaps"], run + timedelta(hours=23))
        if place < 5:
            point(vault, each["short"], run + timedelta(minutes=3))
    vault.client.arm(
        "PUT", vault.item(tmp_path / "stopped"), {"properties": {"protectionState": "ProtectionStopped"}}, status=202
    )
    since = now - timedelta(days=30)
    spans = [run for run in runs[1:] if run > since]  # the last one is not over
    with vault.plane.database.change() as connection:  # `nightly` was made with the others, and long ago
        connection.execute(stored.update().where(stored.c.vault == vault.uuid).values(changed=now - 100 * DAY))
        young = sa.and_(items.c.id == each["young"])
        connection.execute(items.update().where(young).values(created=now))

    listed = vault.client.arm("GET", f"{vault.path}/rpo")["value"]
    found = {Path(one["properties"]["friendlyName"]).name: one["properties"]["compliance"] for one in listed}

    assert (found["good"]["expected"], found["good"]["kept"]) == (len(spans), len(spans))
    assert (found["gaps"]["expected"], found["gaps"]["kept"]) == (len(spans), len(spans) - 3)
    # what retention took is not asked for
    assert found["short"]["expected"] == found["short"]["kept"] == len([run for run in spans if run + 5 * DAY > now])
    assert (found["young"]["expected"], found["young"]["kept"]) == (0, 0)
    assert found["stopped"] is None


def test_the_database_finds_what_a_search_finds(vault: Vault, tmp_path: Path) -> None:
    chance, now = random.Random(5), vault.plane.env.utc()
    nightly(vault, "nightly")
    each = [protected(vault, tmp_path / f"{number}", "nightly") for number in range(4)]
    made: dict[UUID, list[datetime]] = {}
    for item in each:
        long_ago(vault, item, 100)
        made[item] = sorted(now - chance.random() * 40 * DAY for _ in range(25))
        for moment in made[item]:
            point(vault, item, moment)

    with vault.plane.look() as connection:
        mine = ours(vault, connection)
        found = compliance.compliance(connection, list(mine.values()), now)
        for item, (_, policy) in mine.items():
            assert policy is not None
            said = control.parsed(policy)
            spans = expected(said.parts[0], zone(said.zone), now - growth.MONTH, now)
            kept = sum(has_point(span, made[item]) for span in spans)
            assert (found[item].expected, found[item].kept) == (len(spans), kept)
            assert 0 < kept < len(spans)


@exercises("keepstone.history")
def test_the_days_of_an_item(vault: Vault, tmp_path: Path) -> None:
    nightly(vault, "nightly")
    item, now = protected(vault, tmp_path / "data", "nightly"), vault.plane.env.utc()
    long_ago(vault, item, 10)
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    path = vault.item(tmp_path / "data")
    # Before two in the morning the run of ten days ago counts as well.
    for ago in (10, 9, 8, 7, 5, 4, 3, 2, 1):
        point(vault, item, today - ago * DAY + timedelta(hours=2, minutes=1), stored=ago, logical=1000 * ago)
    point(vault, item, today - 9 * DAY + timedelta(hours=5), stored=1, logical=1)

    found = ask(vault, path.removeprefix(f"{vault.path}/") + "/history")

    days = {one["day"]: one for one in found["days"]}
    assert days[f"{(today - 9 * DAY).date()}"] | {"day": ""} == {
        "day": "", "recoveryPointCount": 2, "logicalBytes": 9000, "addedBytes": 10, "missed": 0
    }  # fmt: skip
    assert [day for day, one in days.items() if one["missed"]] == [f"{(today - 6 * DAY).date()}"]
    assert days[f"{(today - 6 * DAY).date()}"]["recoveryPointCount"] == 0
    begin = date.fromisoformat(found["begin"])
    assert begin.weekday() == 0
    assert timedelta(weeks=25) <= today.date() - begin < timedelta(weeks=26)
    assert found["compliance"]["expected"] - found["compliance"]["kept"] == 1
    assert found["lastRuns"] == sorted(found["lastRuns"])
    assert [run[10:19] for run in found["lastRuns"]] == ["T02:00:00"] * 2
    assert found["cost"] is None


def test_the_cost_of_an_item_once_it_was_counted(vault: Vault, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    protected(vault, folder)
    (folder / "a.bin").write_bytes(random.Random(1).randbytes(100_000))
    vault.back_up(vault.item(folder))
    path = f"{vault.item(folder).removeprefix(f'{vault.path}/')}/history"
    assert ask(vault, path)["cost"] is None

    vault.client.ask("GET", f"{vault.path}/usages/byItem")
    vault.work()

    cost = ask(vault, path)["cost"]
    assert cost["uniqueBytes"] > 100_000
    assert cost["sharedBytes"] == 0


# --- who, and how much


def test_somebody_sees_what_he_may_see(
    client: Client, plane: Plane, principal: Callable[..., Principal], client_of: Callable[..., Client], tmp_path: Path
) -> None:
    mine, other = Vault(client, plane, "mine"), Vault(client, plane, "others")
    protected(mine, tmp_path / "mine")
    protected(other, tmp_path / "other")
    reader, nobody = client_of(principal("Backup Reader", scope=mine.path)), client_of(principal())

    found = reader.arm("GET", f"{client.subscription}/{PROVIDER}/overview")["properties"]
    assert (found["vaults"], found["items"]["IRPending"]) == (1, 1)
    assert found["alerts"].get("Sev2") is None  # those of the service are for those who see the subscription
    assert reader.ask("GET", f"{other.path}/overview").status == 403
    assert reader.ask("GET", f"{mine.path}/growth").status == 200
    for what in ("overview", "growth"):
        found = nobody.arm("GET", f"{client.subscription}/{PROVIDER}/{what}")["properties"]
        assert found.get("vaults", 0) == 0
    for what in ("overview", "growth", "rpo", "drills"):
        assert nobody.ask("GET", f"{mine.path}/{what}").status == 403


def test_nothing_goes_through_everything(client: Client, plane: Plane) -> None:
    client.group(GROUP)
    client.vault(GROUP, VAULT)
    made = fill(plane, Size("test", vaults=1, items=400, points=20, jobs=4000), ("", ""))
    for what in ("overview", "growth", "rpo", "drills", made.items[0].lstrip("/") + "/history"):
        with heard(plane) as found:
            client.arm("GET", f"{made.vault}/{what}")
        assert len(found.statements) <= 16, what
        assert found.scans == [], what
    whole = client.arm("GET", f"{made.vault}/rpo")
    assert len(whole["value"]) == reports._PAGE
    assert "nextLink" in whole
