# SPDX-License-Identifier: Apache-2.0
"""What the items of a vault cost: counted by a job, kept, and told to whoever may read usages."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepstone.arm import footprint as module
from keepstone.catalogue import footprints, jobs, vaults
from keepstone.control import footprint
from keepstone.control import vaults as control
from keepstone.errors import StorageError
from keepstone.identity import Principal
from keepstone.jobs import Status
from keepstone.store import Outcome, Store

from .client import Answered, Client
from .exercised import exercises
from .protecting import Vault

pytestmark = pytest.mark.service

OWN, SHARED = 200_000, 300_000


@pytest.fixture
def items(vault: Vault, tmp_path: Path) -> dict[str, str]:
    """Two folders, backed up, that have a file in common and one each of their own; none of it compresses."""
    common, made = os.urandom(SHARED), {}
    for number, name in enumerate(("small", "large"), 1):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "common").write_bytes(common)
        (folder / "own").write_bytes(os.urandom(number * OWN))
        made[name] = vault.protect(folder)
        vault.back_up(made[name])
    return made


def ask(vault: Vault, client: Client | None = None) -> Answered:
    return (client or vault.client).ask("GET", f"{vault.path}/usages/byItem")


def counted(vault: Vault) -> dict[str, Any]:
    """What is told when a worker has done what was asked for."""
    ask(vault)
    vault.work()
    answered = ask(vault)
    assert answered.status == 200, answered
    body: dict[str, Any] = answered.body
    return body


def count_jobs(vault: Vault) -> list[str]:
    """How the jobs are that count."""
    query = sa.select(jobs.c.status).where(jobs.c.vault == vault.uuid, jobs.c.operation == footprint.COUNT)
    with vault.plane.look() as connection:
        return list(connection.execute(query).scalars())


def grow_old(vault: Vault, by: timedelta = timedelta(hours=1)) -> None:
    """A minute passes, or more."""
    with vault.plane.database.change() as connection:
        connection.execute(
            footprints.update().where(footprints.c.vault == vault.uuid).values(due=vault.plane.env.utc() - by)
        )
        ended = jobs.update().where(jobs.c.vault == vault.uuid, jobs.c.operation == footprint.COUNT)
        connection.execute(ended.values(ended=vault.plane.env.utc() - by))


@exercises("keepstone.usage")
def test_what_items_policies_and_the_vault_cost(vault: Vault, items: dict[str, str]) -> None:
    first = ask(vault)
    assert first.status == 202
    assert first.headers["retry-after"] == "1"
    assert first.headers["location"].partition("?")[0].endswith(f"{vault.path}/usages/byItem")
    assert "value" not in first.body
    vault.work()
    job = vault.client.arm("GET", f"{vault.path}/backupJobs/{first.body['properties']['jobId']}")["properties"]
    assert (job["operation"], job["status"]) == ("CountUsage", "Completed")

    body = ask(vault).body
    large, small = body["value"]  # the dearer one first
    assert (large["id"], small["id"]) == (items["large"], items["small"])
    for one, own in ((large, 2 * OWN), (small, OWN)):
        cost = one["properties"]
        assert cost["logicalBytes"] == own + SHARED
        assert own <= cost["uniqueBytes"] < own + 10_000  # and what describes the folder
        assert SHARED <= cost["sharedBytes"] < SHARED + 10_000
        assert cost["referencedBytes"] == cost["uniqueBytes"] + cost["sharedBytes"]
        assert (cost["recoveryPointCount"], cost["policyName"]) == (1, "FilesPolicy")
        assert cost["isScheduledForDeferredDelete"] is False
    about = body["properties"]
    whole = about["vault"]
    assert whole["sharedBytes"] == large["properties"]["sharedBytes"]
    unique = sum(one["properties"]["uniqueBytes"] for one in body["value"])
    assert whole["referencedBytes"] == whole["sharedBytes"] + unique
    folder = vault.plane.stores.place(vault.uuid) / "packs"
    assert whole["storedBytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    (policy,) = about["policies"]  # what its items share is its own
    assert policy["id"] == vault.policy("FilesPolicy")
    assert policy["properties"]["protectedItemsCount"] == 2
    assert policy["properties"]["uniqueBytes"] == whole["referencedBytes"]
    assert policy["properties"]["sharedBytes"] == 0
    assert (about["unknownItems"], about["damage"], about["jobId"]) == (None, [], None)
    assert about["duration"].startswith("PT")


def test_whoever_waits_begins_no_second_count(vault: Vault) -> None:
    named = {ask(vault).body["properties"]["jobId"] for _ in range(3)}

    assert len(named) == 1
    assert count_jobs(vault) == [Status.QUEUED]


def test_a_young_count_is_kept_and_an_old_one_shown_until_there_is_another(vault: Vault, items: dict[str, str]) -> None:
    first = counted(vault)
    vault.back_up(items["small"])
    assert ask(vault).body == first

    grow_old(vault)
    old = ask(vault).body
    assert old["properties"] == first["properties"] | {"jobId": old["properties"]["jobId"]}
    assert old["properties"]["jobId"] is not None
    assert count_jobs(vault) == [Status.COMPLETED, Status.QUEUED]

    vault.work()
    new = ask(vault).body
    assert new["properties"]["jobId"] is None
    assert new["properties"]["countedAt"] > first["properties"]["countedAt"]
    assert {one["properties"]["recoveryPointCount"] for one in new["value"]} == {1, 2}


def test_a_count_is_kept_for_twenty_times_what_it_took(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**15, 600 * 10**9))
    monkeypatch.setattr(vault.plane.env, "boot_time", lambda: next(clock))
    counted(vault)
    with vault.plane.look() as connection:
        query = sa.select(footprints.c.due).where(footprints.c.vault == vault.uuid)
        due = connection.execute(query).scalar_one()

    assert timedelta(hours=3) < due - vault.plane.env.utc() < timedelta(minutes=201)


def test_an_empty_vault(vault: Vault) -> None:
    body = counted(vault)

    assert body["value"] == []
    assert body["properties"]["vault"]["storedBytes"] == 0
    assert body["properties"]["policies"] == []


def test_what_is_stopped_and_what_is_soft_deleted_costs_what_it_did(vault: Vault, items: dict[str, str]) -> None:
    before = {one["name"]: one["properties"] for one in counted(vault)["value"]}
    vault.client.arm("DELETE", items["small"], status=202)
    grow_old(vault)
    body = counted(vault)

    for one in body["value"]:
        gone = one["id"] == items["small"]
        assert one["properties"]["uniqueBytes"] == before[one["name"]]["uniqueBytes"]
        assert one["properties"]["isScheduledForDeferredDelete"] is gone
        assert one["properties"]["policyName"] == (None if gone else "FilesPolicy")
    (policy,) = body["properties"]["policies"]
    assert policy["properties"]["protectedItemsCount"] == 1
    assert policy["properties"]["sharedBytes"] >= SHARED


def test_points_of_nobody_are_told(vault: Vault, items: dict[str, str]) -> None:
    with vault.plane.stores.open(vault.uuid).writer("somebody's", "known") as writer:
        root = writer.put_node("root", [], [], b"")
        writer.commit(Outcome(root=[root], detail=b"", source=b"/", logical=7, read=7, files=1, warnings=0))

    body = counted(vault)

    stray = body["properties"]["unknownItems"]
    assert (stray["recoveryPointCount"], stray["logicalBytes"]) == (1, 7)
    assert len(body["value"]) == 2


def test_damage_is_told_and_the_rest_is_counted(vault: Vault, items: dict[str, str]) -> None:
    packs = vault.plane.stores.place(vault.uuid) / "packs"
    lost = max((path for path in packs.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    lost.unlink()

    body = counted(vault)

    assert any(lost.name in sentence for sentence in body["properties"]["damage"])
    assert len(body["value"]) == 2
    assert count_jobs(vault) == [Status.WARNED]


def test_a_count_that_fails_is_told_and_not_tried_again_at_once(
    vault: Vault, items: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is gone; put it back")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "usage", fail)
        ask(vault)
        vault.work()
    refused = vault.client.refused("GET", f"{vault.path}/usages/byItem", status=409)
    assert "the disk is gone" in refused.message
    assert count_jobs(vault) == [Status.FAILED]

    grow_old(vault)
    assert len(counted(vault)["value"]) == 2
    assert count_jobs(vault) == [Status.FAILED, Status.COMPLETED]


def test_a_count_that_fails_leaves_the_one_that_there_was(
    vault: Vault, items: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = counted(vault)
    grow_old(vault)

    def fail(*_: object) -> None:
        raise StorageError("the disk is gone; put it back")

    monkeypatch.setattr(Store, "usage", fail)
    ask(vault)
    vault.work()

    assert ask(vault).body == first
    assert count_jobs(vault) == [Status.COMPLETED, Status.FAILED]


def test_many_items_come_in_pages_of_one_count(
    vault: Vault, items: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = counted(vault)
    monkeypatch.setattr(module, "_PAGE", 1)
    first = ask(vault).body
    second = vault.client.arm("GET", first["nextLink"].removeprefix("https://localhost:8443"))

    assert first["value"] + second["value"] == whole["value"]
    assert "nextLink" not in second
    assert first["properties"] == second["properties"] == whole["properties"]

    grow_old(vault)
    counted(vault)
    refused = vault.client.refused("GET", first["nextLink"].removeprefix("https://localhost:8443"), status=400)
    assert "first page" in refused.message


def test_readers_may_and_others_may_not(
    vault: Vault, client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal]
) -> None:
    assert ask(vault, client_of(principal("Backup Reader", scope=vault.path))).status == 202
    assert ask(vault, client_of(principal("Backup Operator", scope=vault.path))).status == 202
    assert ask(vault, client_of(principal())).status == 403
    assert ask(vault, client_of(None)).status == 401


def test_a_vault_takes_its_count_with_it(vault: Vault) -> None:
    counted(vault)
    identity = vault.uuid
    vault.client.arm("DELETE", vault.path, status=202)
    with vault.plane.database.change() as connection:
        early = vault.plane.env.utc() - timedelta(seconds=1)
        connection.execute(vaults.update().where(vaults.c.id == identity).values(purge=early))
    assert control.purge(vault.plane) == 1

    with vault.plane.look() as connection:
        query = sa.select(footprints.c.vault).where(footprints.c.vault == identity)
        assert connection.execute(query).first() is None
