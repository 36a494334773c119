# SPDX-License-Identifier: Apache-2.0
"""What a deletion would take with it: as much as it takes, in words, whatever there is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepstone.catalogue import points
from keepstone.catalogue import vaults as table

from .client import Client
from .exercised import exercises
from .protecting import Vault

pytestmark = pytest.mark.service


@pytest.fixture
def item(vault: Vault, tmp_path: Path) -> str:
    """A folder with two points."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_bytes(b"a" * 5000)
    made = vault.protect(folder)
    vault.back_up(made)
    vault.back_up(made)
    return made


def radius(client: Client, path: str, **query: str) -> dict[str, Any]:
    found: dict[str, Any] = client.arm("GET", f"{path}/blastRadius", params=query)["properties"]
    return found


@exercises("keepstone.blast_radius_of_item")
def test_of_an_item(vault: Vault, item: str, tmp_path: Path) -> None:
    made = vault.client.arm("GET", f"{item}/recoveryPoints")["value"]
    found = radius(vault.client, item)
    assert found["points"] == 2
    assert found["bytes"] == sum(one["properties"]["keepstone"]["storedBytes"] for one in made) > 0
    times = sorted(one["properties"]["recoveryPointTime"] for one in made)
    assert (found["oldest"], found["newest"]) == (times[0], times[-1])
    assert found["undo"] == "for 14 days, with `keepstone protection undelete`"
    assert found["underRpo"] == [f"{tmp_path / 'data'} at once"]
    assert found["refused"] == []
    told = {one["label"]: one["text"] for one in found["lines"]}
    assert told["points"] == "2"
    assert told["under their RPO"] == f"{tmp_path / 'data'} at once"

    vault.client.arm("DELETE", item, status=202)
    again = radius(vault.client, item)
    assert again["refused"] == ["it is soft-deleted already"]
    assert again["underRpo"] == []


@exercises("keepstone.blast_radius_of_item")
def test_of_stopping_alone(vault: Vault, item: str, tmp_path: Path) -> None:
    found = radius(vault.client, item, retain="policy")
    assert found["would"] == "stop protection, and keep its points until the policy lets them go"
    assert found["bytes"] == 0
    (late,) = found["underRpo"]
    assert late.startswith(f"{tmp_path / 'data'} from ")
    with vault.plane.database.change() as connection:
        before = vault.plane.env.utc() - timedelta(days=30)
        connection.execute(_items().update().where(_items().c.vault == vault.uuid).values(newest=before))
    assert radius(vault.client, item, retain="ever")["underRpo"] == [f"{tmp_path / 'data'} already"]
    assert vault.client.refused("GET", f"{item}/blastRadius", status=400, params={"retain": "x"}).code


def test_what_guards_the_points(vault: Vault, item: str) -> None:
    settings = {"securitySettings": {"immutabilitySettings": {"state": "Unlocked"}}}
    vault.client.arm("PATCH", vault.path, {"properties": settings})
    lock = f"{vault.path}/providers/Microsoft.Authorization/locks/keep"
    vault.client.arm("PUT", lock, {"properties": {"level": "CanNotDelete"}}, status=201)
    with vault.plane.database.change() as connection:
        until = vault.plane.env.utc() + timedelta(days=1)
        connection.execute(points.update().where(points.c.vault == vault.uuid).values(locked=until))
    refused = radius(vault.client, item)["refused"]
    assert refused == ["the lock keep", "2 of its points are locked",
                       "the vault is immutable, and 2 of its points have not reached their end"]  # fmt: skip
    assert vault.client.ask("DELETE", item).status == 409


@exercises("keepstone.blast_radius_of_vault", "keepstone.blast_radius_of_group")
def test_of_a_vault_and_its_group(vault: Vault, item: str, tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / f"more{number}"
        folder.mkdir()
        vault.protect(folder)
    found = radius(vault.client, vault.path)
    assert (found["items"], found["points"]) == (7, 2)
    assert len(found["refused"]) == 6
    assert found["refused"][0] == f"the item {tmp_path / 'data'}"
    assert found["refused"][-1] == "2 more items"
    assert radius(vault.client, vault.group)["refused"] == ["the vault vault1, which has to go first"]

    settings = {"securitySettings": {"softDeleteSettings": {"softDeleteState": "Disabled"}}}
    vault.client.arm("PATCH", vault.path, {"properties": settings})
    assert radius(vault.client, vault.path)["undo"] == "no: soft delete is off"


@exercises("keepstone.blast_radius_of_container", "keepstone.blast_radius_of_policy")
def test_of_a_container_and_a_policy(vault: Vault, item: str, tmp_path: Path) -> None:
    found = radius(vault.client, item.partition("/protectedItems/")[0])
    assert found["undo"] == "by `keepstone container register`"
    assert found["refused"] == [f"the item {tmp_path / 'data'}"]
    assert radius(vault.client, vault.policy("FilesPolicy"))["refused"] == [f"the item {tmp_path / 'data'}"]
    assert radius(vault.client, vault.policy("DefaultPolicy"))["refused"] == []


def test_ten_thousand_items_are_counted_by_the_database(vault: Vault, item: str) -> None:
    """As many statements for many items as for few."""
    asked: list[str] = []

    def note(*given: Any) -> None:
        asked.extend(one for one in [given[2]] if "FROM items" in one or "FROM points" in one)

    engine = vault.plane.database.engine
    radius(vault.client, vault.path)
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        radius(vault.client, vault.path)
        few = len(asked)
        with vault.plane.database.change() as connection:
            _many(connection, vault)
        asked.clear()
        found = radius(vault.client, vault.path)
        assert found["items"] == 10_001
        assert 0 < len(asked) == few
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
        with vault.plane.database.change() as connection:
            connection.execute(_items().delete().where(_items().c.vault == vault.uuid, _items().c.workload == "many"))


def _items() -> sa.Table:
    return table.metadata.tables["items"]


def _many(connection: sa.Connection, vault: Vault) -> None:
    found = dict(connection.execute(sa.select(_items()).where(_items().c.vault == vault.uuid)).mappings().one())
    rows = [
        found | {"id": vault.plane.new_id(), "key": f"m{n}", "name": f"m{n}", "workload": "many"} for n in range(10_000)
    ]
    connection.execute(_items().insert(), rows)
