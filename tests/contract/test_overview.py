# SPDX-License-Identifier: Apache-2.0
"""What overviews and reports count, on either database. That they count right is in tests/service/test_overview.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from bench.service.estate import GROUP, VAULT, Size, fill
from keepstone.catalogue import every, items
from keepstone.catalogue import policies as stored
from keepstone.control import compliance, drills, groups, growth, overview, points, policies, vaults
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.vault import Health, Item, StoredPolicy, Vault, zone
from keepstone.vault.rpo import expected, has_point
from tests.contract.databases import KINDS, new_database

pytestmark = pytest.mark.service
SIZE = Size("contract", vaults=1, items=40, points=100, jobs=600)


@pytest.fixture(scope="module", params=KINDS)
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """With a vault of a year."""
    root = tmp_path_factory.mktemp(request.param)
    with new_database(request.param, root) as url:
        installation = Installation(Env(), root / "keepstone", None if request.param == "sqlite" else url)
        installation.begin("onprem1")
        plane = installation.plane()
        with plane.change() as change:
            groups.put(change, plane.place.subscription, GROUP, "onprem1", {})
        vaults.create(plane, plane.place.subscription, GROUP, VAULT, "onprem1", {}, sku={}, tags={})
        fill(plane, SIZE, ("", ""))
        yield plane
        plane.database.close()


def vault_of(plane: Plane) -> Vault:
    with plane.look() as connection:
        return vaults.find(connection, plane.place.subscription, GROUP, VAULT)


def test_what_there_is_is_counted(plane: Plane) -> None:
    vault, now = vault_of(plane), plane.env.utc()
    with plane.look() as connection:
        found = every(connection, Item, items.c.vault == vault.id)
        machines = [item for item in found if item.management == "AzureIaasVM"]
    made = [
        drills.Drill(
            id=plane.new_id(), item=item.id, point="1", began=now - timedelta(days=days), level=level, seconds=None,
            outcome={},
        )
        for item, days, level in (
            (machines[0], 3, "login"), (machines[0], 1, "none"), (machines[1], 2, "none"), (machines[2], 40, "agent"),
        )
    ]  # fmt: skip
    with plane.change() as change:
        for number, one in enumerate(made):
            drills.add(change, one, b"\x89PNG" if number % 2 else b"")

    with plane.look() as connection:
        told = overview.overview(plane, connection, [vault], service=True)
        last = drills.last(connection, [item.id for item in machines])
        pictured = drills.pictured(connection, [one.id for one in made])

    assert told.health == {Health.HEALTHY: SIZE.items, Health.UNHEALTHY: 0, Health.PENDING: 0}
    assert told.rpo.met + told.rpo.missed == SIZE.items
    assert sum(told.jobs.values()) > 0
    assert (told.drills.startable, told.drills.recent, told.drills.passed) == (len(machines), 2, 1)
    assert told.drills.newest == made[0].began
    assert (told.stored.points, told.stored.stored) == (SIZE.items * SIZE.points, SIZE.items * SIZE.points << 23)
    assert 0 < told.stored.recent < told.stored.stored
    assert {item: one.id for item, one in last.items()} == {
        machines[0].id: made[1].id, machines[1].id: made[2].id, machines[2].id: made[3].id
    }  # fmt: skip
    assert pictured == {made[1].id, made[3].id}


def test_growth_by_day(plane: Plane) -> None:
    vault = vault_of(plane)
    with plane.look() as connection:
        found = growth.growth(plane, connection, [vault.id], 500)

    assert len(found.days) == 500
    assert sum(day.points for day in found.days) == SIZE.items * SIZE.points
    assert found.days[-1].stored == sum(day.added for day in found.days) == SIZE.items * SIZE.points << 23
    assert found.forecast is not None
    assert found.forecast.slope > 0


def test_runs_and_days(plane: Plane) -> None:
    vault, now = vault_of(plane), plane.env.utc()
    long_ago = now - timedelta(days=400)
    with plane.database.change() as connection:
        connection.execute(stored.update().values(changed=long_ago))
    with plane.look() as connection:
        known = {one.id: one for one in every(connection, StoredPolicy, stored.c.vault == vault.id)}
        mine = [
            (item, known[item.policy]) for item in every(connection, Item, items.c.vault == vault.id) if item.policy
        ]
        found = compliance.compliance(connection, mine, now)
        for item, policy in mine[:5]:
            told = compliance.history(connection, item, policy, now)
            made = sorted(made_of(plane, item))
            said = policies.parsed(policy)
            spans = expected(said.parts[0], zone(said.zone), found[item.id].since, now)
            kept = sum(has_point(span, made) for span in spans)
            assert told.compliance == found[item.id]
            assert (found[item.id].expected, found[item.id].kept) == (len(spans), kept)
            assert 0 < kept < len(spans)
            assert sum(day.points for day in told.days) == SIZE.points
            assert any(day.missed for day in told.days)


def made_of(plane: Plane, item: Item) -> list[datetime]:
    """When its points were made."""
    with plane.look() as connection:
        return [point.made for point in points.listing(connection, item)]
