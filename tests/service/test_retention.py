# SPDX-License-Identifier: Apache-2.0
"""Retention over real points: what goes, what stays, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keepstone.control import retention
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.schedules import ItemPlans
from keepstone.env import Env
from keepstone.identity import Issuer
from keepstone.jobs import Scheduler
from keepstone.vault import Stores

from .client import Client
from .conftest import Clock
from .protecting import Vault

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def issuer(installation: Installation, plane: Plane) -> Issuer:
    """Tokens live in ordinary time: they do not grow old with the points."""
    return Issuer(Env(), (installation.root / "issuer.key").read_bytes(), plane.place.tenant)


@pytest.fixture
def vault(
    client_of: Any, principal: Any, plane: Plane, clock: Clock, request: pytest.FixtureRequest
) -> Iterator[Vault]:
    clock.ahead = timedelta()
    client: Client = client_of(principal("Owner"))
    yield Vault(client, plane, request.node.name)
    clock.ahead = timedelta()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    (made / "file").write_text("content")
    return made


def daily(count: int) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    return {
        "backupManagementType": "MAB",
        "timeZone": "UTC",
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Daily",
            "scheduleRunTimes": [at],
        },
        "retentionPolicy": {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "dailySchedule": {
                "retentionTimes": [at],
                "retentionDuration": {"count": count, "durationType": "Days"},
            },
        },
    }


def put_policy(vault: Vault, count: int) -> None:
    vault.client.arm("PUT", vault.policy("Short"), {"properties": daily(count)})


def days(vault: Vault, clock: Clock, item: str, count: int) -> None:
    """A backup a day."""
    for _ in range(count):
        clock.ahead += timedelta(days=1)
        assert vault.back_up(item)["status"] == "Completed"


def made(vault: Vault, item: str) -> list[str]:
    return [point["properties"]["recoveryPointTime"] for point in vault.points(item)]


def test_points_go_when_their_time_is_over(vault: Vault, clock: Clock, folder: Path) -> None:
    put_policy(vault, 7)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    days(vault, clock, item, 10)
    found = vault.points(item)
    assert len(found) == 7
    newest = datetime.fromisoformat(found[0]["properties"]["recoveryPointTime"])
    until = datetime.fromisoformat(found[0]["properties"]["recoveryPointProperties"]["expiryTime"])
    assert until - newest == timedelta(days=7)
    store = vault.plane.stores.open(vault.uuid)
    assert len(store.points.list(deleted=True)) == 7


def test_the_newest_point_stays(vault: Vault, clock: Clock, folder: Path, plane: Plane) -> None:
    put_policy(vault, 7)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    days(vault, clock, item, 3)
    newest = made(vault, item)[0]
    clock.ahead += timedelta(days=100)
    retention.sweep(plane)
    assert made(vault, item) == [newest]


def test_a_longer_policy_keeps_and_a_shorter_one_lets_go(
    vault: Vault, clock: Clock, folder: Path, plane: Plane
) -> None:
    put_policy(vault, 30)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    days(vault, clock, item, 5)
    put_policy(vault, 2)
    retention.sweep(plane)
    assert len(vault.points(item)) == 2


def test_stopped_items_keep_what_they_have(vault: Vault, clock: Clock, folder: Path, plane: Plane) -> None:
    put_policy(vault, 2)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    days(vault, clock, item, 2)
    stop = {"protectedItemType": "MabFileFolderProtectedItem", "protectionState": "ProtectionStopped", "policyId": ""}
    vault.client.arm("PUT", item, {"properties": stop}, status=202)
    clock.ahead += timedelta(days=100)
    retention.sweep(plane)
    assert len(vault.points(item)) == 2


def test_suspended_items_go_on_losing_points(vault: Vault, clock: Clock, folder: Path, plane: Plane) -> None:
    put_policy(vault, 2)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    days(vault, clock, item, 2)
    stop = {
        "protectedItemType": "MabFileFolderProtectedItem",
        "protectionState": "BackupsSuspended",
        "policyId": vault.policy("Short"),
    }
    vault.client.arm("PUT", item, {"properties": stop}, status=202)
    assert vault.show(item)["protectionState"] == "BackupsSuspended"
    clock.ahead += timedelta(days=100)
    retention.sweep(plane)
    assert len(vault.points(item)) == 1


def test_a_point_with_a_date_of_its_own(vault: Vault, clock: Clock, folder: Path, plane: Plane) -> None:
    put_policy(vault, 2)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    until = (plane.env.utc() + timedelta(days=50)).replace(microsecond=0)
    job = vault.job(f"{item}/backup", {"recoveryPointExpiryTimeInUTC": until.isoformat()})
    assert job["status"] == "Completed"
    own = made(vault, item)[0]
    days(vault, clock, item, 5)
    assert len(vault.points(item)) == 3
    assert made(vault, item)[-1] == own
    point = vault.points(item)[-1]["properties"]["recoveryPointProperties"]
    assert datetime.fromisoformat(point["expiryTime"]) == until
    assert point["ruleName"] == "on demand"


def test_an_immutable_vault_takes_no_time_away(vault: Vault, clock: Clock, folder: Path, plane: Plane) -> None:
    put_policy(vault, 30)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    days(vault, clock, item, 4)
    setting = {"securitySettings": {"immutabilitySettings": {"state": "Unlocked"}}}
    vault.client.arm("PATCH", vault.path, {"properties": setting})
    put_policy(vault, 1)
    retention.sweep(plane)
    assert len(vault.points(item)) == 4
    refused = vault.client.refused("DELETE", item, status=403)
    assert refused.code == "GuardRefused"
    clock.ahead += timedelta(days=40)
    retention.sweep(plane)
    assert len(vault.points(item)) == 1


def test_a_schedule_makes_its_points(vault: Vault, clock: Clock, folder: Path, plane: Plane) -> None:
    put_policy(vault, 30)
    item = vault.protect(folder, policyId=vault.policy("Short"))
    scheduler = Scheduler(plane.database, plane.queue, clock, ItemPlans())
    assert scheduler.tick() == 0
    for _ in range(3):
        clock.ahead += timedelta(days=1)
        scheduler.tick()
        vault.work()
    assert len(vault.points(item)) == 3
    assert vault.show(item)["protectionStatus"] == "Healthy"
    clock.ahead += timedelta(days=3)
    assert vault.show(item)["protectionStatus"] == "Unhealthy"


def test_a_store_that_is_away_keeps_no_other_vault_waiting(
    vault: Vault, clock: Clock, folder: Path, plane: Plane, client_of: Any, principal: Any
) -> None:
    away = Vault(client_of(principal("Owner")), plane, "a-store-that-is-away")
    items = {}
    for one in (away, vault):
        put_policy(one, 30)
        items[one] = one.protect(folder, policyId=one.policy("Short"))
        days(one, clock, items[one], 3)
        put_policy(one, 1)
    place = plane.stores.place(away.uuid)
    plane.stores = Stores(plane.env, plane.root)  # as after a start
    place.rename(place.with_name("elsewhere"))
    try:
        retention.sweep(plane)
    finally:
        place.with_name("elsewhere").rename(place)
    assert len(away.points(items[away])) == 3
    assert len(vault.points(items[vault])) == 1
    retention.sweep(plane)
    assert len(away.points(items[away])) == 1
