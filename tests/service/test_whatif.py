# SPDX-License-Identifier: Apache-2.0
"""What a changed policy is said to do to recovery points is what retention does with them once it is saved."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keepstone.catalogue import every, insert, points
from keepstone.control import items, retention, vaults, whatif
from keepstone.control.plane import Plane
from keepstone.vault import RecoveryPoint

from .client import Client
from .exercised import exercises
from .protecting import CONTAINER, Vault

pytestmark = pytest.mark.service

Points = dict[str, RecoveryPoint]


class Held:
    """An item whose points are rows alone: what becomes of them is decided by their dates."""

    def __init__(self, vault: Vault, folder: Path) -> None:
        self.vault, self.plane = vault, vault.plane
        self.path = vault.protect(folder)
        with self.plane.look() as connection:
            self.home = vaults.find(connection, self.plane.place.subscription, vault.group.rpartition("/")[2], "vault1")
            _, self.item = items.find(connection, self.home, CONTAINER, self.path.rpartition("/")[2])

    def add(self, made: datetime, **more: Any) -> RecoveryPoint:
        name = f"{made:%Y%m%d%H%M%S}"
        point = RecoveryPoint(
            item=self.item.id, vault=self.home.id, name=name, commit_id=f"00000000-{name}", made=made, type="Full",
            consistency="FileSystemConsistent", logical=10, fresh=5, stored=4, **more,
        )  # fmt: skip
        with self.plane.database.change() as connection:
            insert(connection, point)
            newest = max(made, self.item.newest or made)
            self.item = replace(self.item, newest=newest)
        return point

    def now(self) -> Points:
        with self.plane.look() as connection:
            return {one.name: one for one in every(connection, RecoveryPoint, points.c.item == self.item.id)}

    def settle(self) -> Points:
        """Let retention look at them; those that are left."""
        with self.plane.look() as connection:
            home = vaults.find(connection, self.home.subscription, self.home.group_name, "vault1")
        retention.apply(self.plane, home, self.item.id)
        return self.now()


def policy(**rules: Any) -> dict[str, Any]:
    """The properties of a policy for files."""
    zone = rules.pop("zone", "UTC")
    schedule = {
        "schedulePolicyType": "SimpleSchedulePolicy",
        "scheduleRunFrequency": "Daily",
        "scheduleRunTimes": ["2026-01-01T16:00:00Z"],
    }
    kept: dict[str, Any] = {"retentionPolicyType": "LongTermRetentionPolicy"}
    if "days" in rules:
        kept["dailySchedule"] = {"retentionDuration": {"count": rules["days"], "durationType": "Days"}}
    if "weeks" in rules:
        duration = {"count": rules["weeks"], "durationType": "Weeks"}
        kept["weeklySchedule"] = {"daysOfTheWeek": ["Sunday"], "retentionDuration": duration}
    return {
        "backupManagementType": "MAB", "timeZone": zone, "schedulePolicy": schedule, "retentionPolicy": kept
    }  # fmt: skip


@pytest.mark.parametrize("immutability", ["Disabled", "Unlocked"])
@pytest.mark.parametrize("seed", range(3))
@exercises("protection_policies.what_if")
def test_what_is_foreseen_is_what_happens(
    vault: Vault, client: Client, plane: Plane, tmp_path: Path, seed: int, immutability: str
) -> None:
    chance = random.Random(seed)
    choices = [
        policy(days=chance.randint(5, 60)),
        policy(weeks=chance.randint(1, 6)),
        policy(days=3, weeks=4, zone="Pacific Standard Time"),
        policy(days=10, weeks=12),
    ]
    before, after = chance.sample(choices, 2)
    address = vault.policy("FilesPolicy")
    client.arm("PUT", address, {"properties": before})
    held = Held(vault, tmp_path)
    today = plane.env.utc().replace(microsecond=0)
    for day in range(60):
        made = today - timedelta(days=day, hours=chance.randint(1, 23))
        own = today + timedelta(days=chance.randint(1, 9)) if chance.random() < 0.1 else None
        locked = today + timedelta(days=chance.randint(1, 9)) if chance.random() < 0.1 else None
        held.add(made, own=own, locked=locked)
    client.arm(
        "PATCH", vault.path, {"properties": {"securitySettings": {"immutabilitySettings": {"state": immutability}}}}
    )
    there = held.settle()

    said = client.arm("POST", f"{address}/whatIf", {"properties": after})["properties"]
    assert held.now() == there  # nothing has changed
    client.arm("PUT", address, {"properties": after})
    left = held.settle()

    (item,) = said["items"]
    assert item["id"] == held.path
    told = {one["name"]: one for one in item["points"]}
    lost = {name for name, one in told.items() if one["change"] == "lost"}
    assert lost == there.keys() - left.keys()
    assert said["lost"] == len(lost)
    assert said["kept"] + said["lost"] + said["shortened"] + said["lengthened"] == len(there)
    if immutability != "Disabled":
        assert not [one for one in told.values() if one["change"] in ("lost", "shortened")]
    moment = plane.env.utc()
    for name, point in left.items():
        until = max((date for date in (point.until, point.locked) if date is not None and date > moment), default=None)
        was = max((date for date in (there[name].until, there[name].locked) if date and date > moment), default=None)
        if name not in told:
            assert until == was
            continue
        then = told[name]["untilThen"]
        assert (None if then is None else datetime.fromisoformat(then)) == until
        assert told[name]["change"] == ("lengthened" if was is None or (until and until > was) else "shortened")
        assert told[name]["storedBytes"] == 4


def test_the_newest_point_stays(vault: Vault, client: Client, plane: Plane, tmp_path: Path) -> None:
    """However old it is: it is told that its time gets shorter, not that it goes."""
    address = vault.policy("FilesPolicy")
    client.arm("PUT", address, {"properties": policy(days=60)})
    held = Held(vault, tmp_path)
    newest = held.add(plane.env.utc() - timedelta(days=20))
    held.add(newest.made - timedelta(days=1))
    held.settle()
    said = client.arm("POST", f"{address}/whatIf", {"properties": policy(days=5)})["properties"]
    assert (said["lost"], said["shortened"]) == (1, 1)
    older, last = said["items"][0]["points"]
    assert (older["isNewest"], older["change"]) == (False, "lost")
    assert (last["name"], last["isNewest"], last["change"], last["untilThen"]) == (newest.name, True, "shortened", None)
    client.arm("PUT", address, {"properties": policy(days=5)})
    assert list(held.settle()) == [newest.name]


def test_an_immutable_vault_keeps_what_an_earlier_policy_promised(
    vault: Vault, client: Client, plane: Plane, tmp_path: Path
) -> None:
    """Between a long policy of old and a shorter one of today nothing gets shorter, nor longer."""
    address = vault.policy("FilesPolicy")
    client.arm("PUT", address, {"properties": policy(days=60)})
    held = Held(vault, tmp_path)
    for day in range(5):
        held.add(plane.env.utc() - timedelta(days=day + 20))
    held.settle()
    immutable = {"securitySettings": {"immutabilitySettings": {"state": "Unlocked"}}}
    client.arm("PATCH", vault.path, {"properties": immutable})
    client.arm("PUT", address, {"properties": policy(days=5)})
    there = held.settle()
    said = client.arm("POST", f"{address}/whatIf", {"properties": policy(days=30)})["properties"]
    assert (said["kept"], said["items"][0]["points"]) == (5, [])
    client.arm("PUT", address, {"properties": policy(days=30)})
    assert held.settle() == there


def test_items_of_other_policies_are_not_concerned(vault: Vault, client: Client, tmp_path: Path) -> None:
    other = vault.policy("Other")
    client.arm("PUT", other, {"properties": policy(days=9)})
    Held(vault, tmp_path)
    said = client.arm("POST", f"{other}/whatIf", {"properties": policy(days=5)})["properties"]
    assert {"kept": 0, "lost": 0, "shortened": 0, "lengthened": 0, "freedBytes": 0, "items": []}.items() <= said.items()
    assert (said["days"], said["itemsCount"], said["then"]["lateItems"]) == ([], 0, 0)


def test_points_are_counted_by_day_and_named_as_far_as_is_asked(
    vault: Vault, client: Client, plane: Plane, tmp_path: Path
) -> None:
    """A day is one of the new policy's time zone; the bytes are those of the points that go."""
    address = vault.policy("FilesPolicy")
    client.arm("PUT", address, {"properties": policy(days=60)})
    held = Held(vault, tmp_path)
    noon = (plane.env.utc() - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
    for day in range(20):
        held.add(noon - timedelta(days=day))
    held.add(noon - timedelta(days=19, hours=2))  # a day of UTC, two of Auckland
    held.settle()
    shorter = policy(days=10, zone="New Zealand Standard Time")

    said = client.arm("POST", f"{address}/whatIf?$top=3", {"properties": shorter})["properties"]

    days = {one.pop("date"): one for one in said["days"]}
    assert len(days) == 21
    for outcome in ("kept", "lost", "shortened", "lengthened", "freedBytes"):
        assert sum(one[outcome] for one in days.values()) == said[outcome]
    assert min(days) == (noon - timedelta(days=19)).date().isoformat()
    assert days[min(days)] == {"kept": 0, "lost": 1, "shortened": 0, "lengthened": 0, "freedBytes": 4}
    assert said["lost"] + said["shortened"] == 21
    assert said["freedBytes"] == 4 * said["lost"] > 0
    (item,) = said["items"]
    assert (len(item["points"]), said["unnamedPoints"]) == (3, 18)
    assert item["lost"] == said["lost"]
    none = client.arm("POST", f"{address}/whatIf?$top=0", {"properties": shorter})["properties"]
    assert (none["items"], none["itemsCount"], none["unnamedPoints"], none["lost"]) == ([], 1, 21, said["lost"])
    for wrong in ("-1", "x", "10001"):
        client.refused("POST", f"{address}/whatIf?$top={wrong}", {"properties": shorter}, status=400)


def test_days_long_ago_are_one_figure(vault: Vault, client: Client, plane: Plane, tmp_path: Path) -> None:
    address = vault.policy("FilesPolicy")
    client.arm("PUT", address, {"properties": policy(days=9000)})
    held = Held(vault, tmp_path)
    for day in range(whatif.DAYS + 5):
        held.add(plane.env.utc() - timedelta(days=day + 1))
    said = client.arm("POST", f"{address}/whatIf", {"properties": policy(days=2)})["properties"]
    assert len(said["days"]) == whatif.DAYS
    assert said["earlier"] == {"kept": 0, "lost": 5, "shortened": 0, "lengthened": 0, "freedBytes": 20}
    assert said["lost"] == whatif.DAYS + 5 - 1  # that of yesterday stays for another day


def test_what_a_schedule_means_for_the_newest_points(
    vault: Vault, client: Client, plane: Plane, tmp_path: Path
) -> None:
    """An item is late when its newest point is older than the longest time between two runs."""
    address = vault.policy("FilesPolicy")
    held = Held(vault, tmp_path)
    held.add(plane.env.utc() - timedelta(hours=30))
    often = policy(days=30) | {
        "schedulePolicy": {"schedulePolicyType": "LogSchedulePolicy", "scheduleFrequencyInMins": 15}
    }
    seldom = policy(days=30) | {
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Weekly",
            "scheduleRunDays": ["Monday", "Thursday"],
            "scheduleRunTimes": ["2026-01-01T16:00:00Z"],
        }
    }
    said = client.arm("POST", f"{address}/whatIf", {"properties": often})["properties"]
    assert (said["now"]["longestGapInMinutes"], said["then"]["longestGapInMinutes"]) == (1440, 15)
    assert (said["now"]["lateItems"], said["then"]["lateItems"]) == (1, 1)
    said = client.arm("POST", f"{address}/whatIf", {"properties": seldom})["properties"]
    assert (said["then"]["longestGapInMinutes"], said["then"]["lateItems"]) == (4 * 1440, 0)
    assert (said["items"][0]["isLateNow"], said["items"][0]["isLateThen"]) == (True, False)


def test_what_cannot_be_tried(vault: Vault, client: Client) -> None:
    address = f"{vault.policy('FilesPolicy')}/whatIf"
    refused = client.refused("POST", address, {"properties": policy() | {"retentionPolicy": {}}}, status=400)
    assert refused.code == "BMSUserErrorInvalidPolicyInput"
    client.refused("POST", f"{vault.policy('Nothing')}/whatIf", {"properties": policy(days=5)}, status=404)
    client.refused("POST", address, None, status=400)


def test_who_may_try(vault: Vault, client_of: Callable[..., Client], principal: Callable[..., Any]) -> None:
    """Whoever may see the policy: nothing changes by it."""
    address = f"{vault.policy('FilesPolicy')}/whatIf"
    client_of(principal("Backup Reader")).arm("POST", address, {"properties": policy(days=5)})
    client_of(principal()).refused("POST", address, {"properties": policy(days=5)}, status=403)
