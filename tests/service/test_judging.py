# SPDX-License-Identifier: Apache-2.0
"""Retention that judges only where something can have changed, beside one that judges everything each time.

Two installations live through one history: policies and points come and go, clocks jump in both directions. In one of
them nothing is known of earlier judgements at any time. Whatever happens, both have the same points until the same
moments by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keepstone.catalogue import every, judgements, points
from keepstone.control import containers, groups, policies, retention
from keepstone.control import items as control
from keepstone.control import points as made
from keepstone.control import vaults as stored
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.sources import item_name
from keepstone.env import Env
from keepstone.vault import Item, RecoveryPoint

pytestmark = pytest.mark.service

GROUP, VAULT = "group", "vault"
ITEMS, POLICIES = 3, 2
BEGIN = datetime(2026, 10, 20, 1, 30, tzinfo=UTC)  # some days before the clocks go back in Berlin
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Clock(Env):
    """Says what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN

    def wall_time(self) -> int:
        return (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def document(daily: int, weekly: int, monthly: int, zone: str) -> dict[str, Any]:
    at = "2026-01-01T02:30:00Z"  # twice, or never, when clocks change

    def kept(count: int, unit: str, **more: Any) -> dict[str, Any]:
        return {"retentionTimes": [at], "retentionDuration": {"count": count, "durationType": unit}, **more}

    sunday = {"daysOfTheWeek": ["Sunday"], "weeksOfTheMonth": ["First", "Last"]}
    rules = {"dailySchedule": kept(daily, "Days"), "weeklySchedule": kept(weekly, "Weeks", daysOfTheWeek=["Sunday"])}
    if monthly:
        rules["monthlySchedule"] = kept(
            monthly, "Months", retentionScheduleFormatType="Weekly", retentionScheduleWeekly=sunday
        )
    return {
        "backupManagementType": "MAB",
        "timeZone": zone,
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Daily",
            "scheduleRunTimes": [at],
        },
        "retentionPolicy": {"retentionPolicyType": "LongTermRetentionPolicy", **rules},
    }


@dataclass(frozen=True)
class Point:
    """Of which item; made how long before now; with what end and lock of its own; and whether its backup goes on to
    judge. More than one where a database came back from an older copy of itself."""

    item: int
    ages: tuple[timedelta, ...]
    own: timedelta | None
    lock: timedelta | None
    judges: bool


@dataclass(frozen=True)
class Loss:
    """A point that the store has no more: of which item, and which of them."""

    item: int
    which: int


@dataclass(frozen=True)
class Rules:
    """A policy says something else."""

    policy: int
    daily: int
    weekly: int
    monthly: int
    zone: str


@dataclass(frozen=True)
class Chosen:
    """An item gets a policy, or is stopped."""

    item: int
    policy: int | None
    suspended: bool


@dataclass(frozen=True)
class Immutable:
    """The vault becomes so, or is so no more."""

    state: bool


@dataclass(frozen=True)
class Time:
    """The clock is elsewhere."""

    by: timedelta


Step = Point | Loss | Rules | Chosen | Immutable | Time
_ITEM, _POLICY = st.integers(0, ITEMS - 1), st.integers(0, POLICIES - 1)
_SPAN = st.integers(-3, 60).map(lambda days: days * DAY)
STEPS = st.one_of(
    st.builds(
        Point,
        item=_ITEM,
        ages=st.lists(st.integers(0, 24 * 50).map(lambda hours: hours * HOUR), min_size=1, max_size=8).map(tuple),
        own=st.none() | st.none() | _SPAN,
        lock=st.none() | st.none() | _SPAN,
        judges=st.booleans(),
    ),
    st.builds(Loss, item=_ITEM, which=st.integers(0, 9)),
    st.builds(
        Rules,
        policy=_POLICY,
        daily=st.integers(7, 20),
        weekly=st.integers(1, 8),
        monthly=st.integers(0, 3),
        zone=st.sampled_from(["UTC", "W. Europe Standard Time", "Pacific Standard Time"]),
    ),
    st.builds(Chosen, item=_ITEM, policy=_POLICY | st.none(), suspended=st.booleans()),
    st.builds(Immutable, state=st.booleans()),
    st.builds(Time, by=st.sampled_from([HOUR, 5 * HOUR, DAY, 3 * DAY, 9 * DAY, 40 * DAY, -HOUR, -6 * DAY])),
    st.builds(Time, by=st.sampled_from([HOUR, DAY, 2 * DAY])),
)


class Side:
    """An installation with a vault, and what happens there."""

    def __init__(self, root: Path, *, remembers: bool) -> None:
        self.clock, self.remembers = Clock(), remembers
        installation = Installation(self.clock, root)
        installation.begin("onprem1")
        self.plane: Plane = installation.plane()
        self.number = 0
        place = self.plane.place.subscription
        with self.plane.change() as change:
            groups.put(change, place, GROUP, "onprem1", {})
        self.vault = stored.create(self.plane, place, GROUP, VAULT, "onprem1", {}, sku={}, tags={})
        with self.plane.change() as change:
            for number in range(POLICIES):
                policies.put(change, self.vault, f"policy-{number}", document(9, 4, 2, "UTC"))
        self.paths = [root.parent / f"source-{number}" for number in range(ITEMS)]
        for number in range(ITEMS):
            self._choose(number, 0)

    def begin(self) -> None:
        """As it was at first."""
        self.clock.now = BEGIN
        with self.plane.database.change() as connection:
            connection.execute(points.delete())
            connection.execute(judgements.delete())
        for number in range(POLICIES):
            self.do(Rules(number, 9 + 11 * number, 4, 2 - 2 * number, "UTC"))
        for number in range(ITEMS):
            self._choose(number, 0)
        self.do(Immutable(False))

    def do(self, step: Step) -> None:
        match step:
            case Point():
                self._make(step)
            case Loss():
                item = self._item(step.item)
                with self.plane.look() as connection:
                    found = every(
                        connection, RecoveryPoint, points.c.item == item.id, order=(points.c.made, points.c.name)
                    )
                if found:
                    retention.remove(self.plane, self.vault.id, [found[step.which % len(found)]])
            case Rules():
                rules = document(step.daily, step.weekly, step.monthly, step.zone)
                with self.plane.change() as change:
                    policies.put(change, self.vault, f"policy-{step.policy}", rules)
            case Chosen(policy=None):
                item = self._item(step.item)
                with self.plane.change() as change:
                    held = containers.find(change.connection, self.vault, containers.local_name())
                    state = control.SUSPENDED if step.suspended else control.STOPPED
                    control.stop(change, self.vault, held, item, state, "")
            case Chosen(policy=int(policy)):
                self._choose(step.item, policy)
            case Immutable():
                state = "Unlocked" if step.state else "Disabled"
                with self.plane.change() as change:
                    setting = {"securitySettings": {"immutabilitySettings": {"state": state}}}
                    stored.update(change, self.vault, properties=setting)
            case Time():
                self.clock.now += step.by

    def sweep(self) -> None:
        if not self.remembers:
            with self.plane.database.change() as connection:
                connection.execute(judgements.delete())
        retention.sweep(self.plane)

    @property
    def left(self) -> list[Any]:
        """Every point with what was judged of it."""
        with self.plane.look() as connection:
            number = {self._item(one).id: one for one in range(ITEMS)}
            found = every(connection, RecoveryPoint)
        return sorted((number[one.item], one.name, one.until, one.rule) for one in found)

    def _item(self, number: int) -> Item:
        with self.plane.look() as connection:
            name = item_name(str(self.paths[number]))
            return control.find(connection, self.vault, containers.local_name(), name)[1]

    def _choose(self, number: int, policy: int) -> None:
        path = str(self.paths[number])
        wanted = {
            "protectedItemType": "MabFileFolderProtectedItem",
            "policyId": f"{self.vault.path}/backupPolicies/policy-{policy}",
            "sourcePath": path,
        }
        with self.plane.change() as change:
            control.protect(change, self.vault, containers.local_name(), item_name(path), wanted, "")

    def _make(self, step: Point) -> None:
        """As backups list them; their stores have none of them."""
        item, now = self._item(step.item), self.clock.now
        for age in step.ages:
            self.number += 1
            point = RecoveryPoint(
                item=item.id,
                vault=self.vault.id,
                name=str(self.number),
                commit_id=f"{self.number:020}-{self.number:015x}",
                made=now - age,
                type="Full",
                consistency="FileSystemConsistent",
                logical=0,
                fresh=0,
                stored=0,
                own=None if step.own is None else now + step.own,
                locked=None if step.lock is None else now + step.lock,
            )
            with self.plane.database.change() as connection:
                made.add(connection, point)
        if step.judges:
            retention.apply(self.plane, self.vault, item.id)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    both = tuple(Side(tmp_path_factory.mktemp(name) / name, remembers=name == "lazy") for name in ("lazy", "eager"))
    yield both[0], both[1]
    for side in both:
        side.plane.database.close()


MANY = Point(0, tuple(days * DAY for days in range(0, 48, 2)), own=None, lock=None, judges=False)

QUIET = [[Time(HOUR)], [Time(HOUR)]]


@example(history=[[MANY], *QUIET, [Chosen(0, 1, suspended=False)], *QUIET, [Chosen(0, 0, suspended=False)]])
@example(history=[[MANY, Immutable(True)], *QUIET, [Rules(0, 7, 1, 0, "UTC")], *QUIET, [Immutable(False)]])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=st.lists(st.lists(STEPS, min_size=1, max_size=5), min_size=1, max_size=12))
def test_whoever_remembers_judges_as_if_he_did_not(sides: tuple[Side, Side], history: list[list[Step]]) -> None:
    for side in sides:
        side.begin()
    for steps in history:
        for side in sides:
            for step in steps:
                side.do(step)
            side.sweep()
        assert sides[0].left == sides[1].left
