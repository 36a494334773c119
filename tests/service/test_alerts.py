# SPDX-License-Identifier: Apache-2.0
"""Alerts: what raises and resolves them, who sees them, and how their targets are told."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from keepstone.catalogue import alerts as rows
from keepstone.catalogue import items, notices, outbox, targets, vaults
from keepstone.control import alerts, courier
from keepstone.control import vaults as control
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.postman import Postman
from keepstone.control.targets import KEY
from keepstone.control.upkeep import ask_for, chores
from keepstone.control.watch import Watch
from keepstone.control.work.verify import VERIFY
from keepstone.env import Env
from keepstone.identity import Issuer, Principal

from .client import Client
from .exercised import exercises
from .mailbox import Mailbox, MailServer
from .protecting import CONTAINER, Vault

pytestmark = pytest.mark.service
_numbers = count(1)


class Clock(Env):
    """The real one, and what it says when time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = timedelta()

    def wall_time(self) -> int:
        return super().wall_time() + int(self.passed.total_seconds() * 1e9)

    def boot_time(self) -> int:
        return super().boot_time() + int(self.passed.total_seconds() * 1e9)

    @contextmanager
    def later(self, **passed: float) -> Iterator[None]:
        """In the block so much time has passed: afterwards it has not, for the sake of tokens and of other tests."""
        before = self.passed
        self.passed += timedelta(**passed)
        try:
            yield
        finally:
            self.passed = before


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def installation(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation(clock, tmp_path_factory.mktemp("keepstone"))
    made.begin("onprem1")
    made.certificate(["localhost"])
    return made


@pytest.fixture(scope="module")
def issuer(installation: Installation, plane: Plane) -> Issuer:
    """Tokens do not grow old when time passes."""
    return Issuer(Env(), (installation.root / "issuer.key").read_bytes(), plane.place.tenant)


@pytest.fixture
def vault(client: Client, plane: Plane) -> Vault:
    return Vault(client, plane, f"group{next(_numbers)}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    (made / "a.txt").write_text("kept")
    return made


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


@pytest.fixture
def postman(plane: Plane) -> Postman:
    return Postman(plane, limit=0.3)


def seen(vault: Vault, **query: str) -> list[dict[str, Any]]:
    """The alerts of a vault, those that began first at first: the essentials, with what Keepstone says of them."""
    asked = {"includeContext": "true", "sortBy": "startDateTime", "sortOrder": "asc", "timeRange": "30d", **query}
    asked = {key: value for key, value in asked.items() if value}
    found = vault.client.arm("GET", f"{vault.path}/providers/Microsoft.AlertsManagement/alerts", params=asked)["value"]
    return [one["properties"]["essentials"] | one["properties"]["context"] | {"id": one["id"]} for one in found]


def told(vault: Vault) -> list[tuple[str, str, str, int]]:
    """In short."""
    return [(one["alertRule"], one["monitorCondition"], one["alertState"], one["occurrences"]) for one in seen(vault)]


def fail(vault: Vault, folder: Path, item: str) -> dict[str, Any]:
    """A backup that fails, and leaves its folder as it was."""
    away = folder.rename(folder.with_name("away"))
    job = vault.back_up(item)
    away.rename(folder)
    assert job["status"] == "Failed"
    return job


def target(vault: Vault, name: str, url: str, status: int = 201) -> Any:
    body = {"properties": {"url": url}}
    return vault.client.arm("PUT", f"{vault.path}/notificationTargets/{name}", body, status=status)


def shown(vault: Vault, name: str) -> dict[str, Any]:
    found: dict[str, Any] = vault.client.arm("GET", f"{vault.path}/notificationTargets/{name}")["properties"]
    return found


# --- jobs


@exercises("alerts.get_all")
def test_a_backup_that_fails_is_one_alert_until_one_succeeds(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    assert seen(vault) == []

    job = fail(vault, folder, item)

    (alert,) = seen(vault)
    assert (alert["alertRule"], alert["severity"], alert["category"]) == ("Backup Failure", "Sev1", "Jobs")
    assert (alert["monitorCondition"], alert["alertState"], alert["occurrences"]) == ("Fired", "New", 1)
    assert alert["targetResource"] == vault.path
    assert alert["targetResourceType"] == "microsoft.recoveryservices/vaults"
    assert (alert["targetResourceName"], alert["targetResourceGroup"]) == ("vault1", vault.group.rpartition("/")[2])
    assert alert["monitorService"] == "Azure Backup"
    assert alert["entityFriendlyName"] == str(folder)
    assert job["errorDetails"][0]["errorString"].partition(": ")[2] in alert["description"]
    assert alert["jobId"] in {one["name"] for one in vault.client.arm("GET", f"{vault.path}/backupJobs")["value"]}
    first = alert["lastOccurrence"]

    fail(vault, folder, item)
    (alert,) = seen(vault)
    assert alert["occurrences"] == 2
    assert alert["lastOccurrence"] > first
    assert alert["startDateTime"] == first

    assert vault.back_up(item)["status"] == "Completed"
    (alert,) = seen(vault)
    assert alert["monitorCondition"] == "Resolved"
    assert alert["monitorConditionResolvedDateTime"] is not None

    fail(vault, folder, item)
    assert told(vault) == [("Backup Failure", "Resolved", "New", 2), ("Backup Failure", "Fired", "New", 1)]


def test_two_items_are_two_alerts(vault: Vault, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for one in (folder, other):
        item = vault.protect(one)
        fail(vault, one, item)
    assert vault.back_up(vault.item(folder))["status"] == "Completed"
    assert {(one["entityFriendlyName"], one["monitorCondition"]) for one in seen(vault)} == {
        (str(folder), "Resolved"),
        (str(other), "Fired"),
    }


def test_a_restore_that_fails(vault: Vault, folder: Path) -> None:
    vault.back_up(vault.protect(folder))
    (point,) = vault.points(vault.item(folder))
    about = {"objectType": "FilesRestoreRequest", "recoveryType": "AlternateLocation"}
    assert vault.restore(point, **about, targetPath=str(folder))["status"] == "Failed"
    assert told(vault) == [("Restore Failure", "Fired", "New", 1)]
    assert vault.restore(point, **about, targetPath=str(folder.parent / "restored"))["status"] == "Completed"
    assert told(vault) == [("Restore Failure", "Resolved", "New", 1)]


def test_a_job_that_was_cancelled_is_nothing_to_tell(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    fail(vault, folder, item)
    vault.client.ask("POST", f"{item}/backup", {"properties": {}})
    asked = {"$filter": "operation eq 'Backup' and status eq 'InProgress'"}
    (job,) = vault.client.arm("GET", f"{vault.path}/backupJobs", params=asked)["value"]
    claim = vault.plane.queue.claim("test", ["Backup"])
    assert claim is not None
    vault.client.arm("POST", f"{job['id']}/cancel", status=202)
    vault.plane.queue.bury("test")
    with vault.plane.env.later(seconds=1):  # type: ignore[attr-defined]
        assert vault.plane.queue.claim("test", ["Backup"]) is None
    assert vault.client.arm("GET", job["id"])["properties"]["status"] == "Cancelled"
    assert told(vault) == [("Backup Failure", "Fired", "New", 1)]  # nor is it well again


def test_who_does_not_want_alerts_of_jobs_has_none(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    fail(vault, folder, item)
    off = {"azureMonitorAlertSettings": {"alertsForAllJobFailures": "Disabled"}}
    vault.client.arm("PATCH", vault.path, {"properties": {"monitoringSettings": off}})
    fail(vault, folder, item)
    assert told(vault) == [("Backup Failure", "Fired", "New", 1)]
    vault.back_up(item)
    assert told(vault) == [("Backup Failure", "Resolved", "New", 1)]


def test_what_is_stopped_does_not_fail_any_more(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    fail(vault, folder, item)
    stop = {"protectedItemType": "MabFileFolderProtectedItem", "protectionState": "ProtectionStopped", "policyId": ""}
    vault.client.arm("PUT", item, {"properties": stop}, status=202)
    assert told(vault) == [("Backup Failure", "Resolved", "New", 1)]


def test_an_alert_and_what_it_tells_of_are_one_transaction(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    vault.client.ask("POST", f"{item}/backup", {"properties": {}})
    claim = vault.plane.queue.claim("test", ["Backup"])
    assert claim is not None
    from keepstone.jobs import Status

    with pytest.raises(LookupError), vault.plane.queue.ending(claim, Status.FAILED, {"code": "A", "message": "b"}):
        raise LookupError
    assert seen(vault) == []
    with vault.plane.queue.ending(claim, Status.FAILED, {"code": "A", "message": "b"}):
        pass
    assert told(vault) == [("Backup Failure", "Fired", "New", 1)]


# --- what people do to their data


def test_deletion_undelete_and_purge(vault: Vault, folder: Path, clock: Clock) -> None:
    item = vault.protect(folder)
    vault.back_up(item)
    vault.client.arm("DELETE", item, status=202)
    (alert,) = seen(vault)
    assert (alert["alertRule"], alert["severity"], alert["category"]) == ("Delete Backup Data", "Sev0", "Security")
    assert "taken back until" in alert["description"]
    again = {"protectedItemType": "MabFileFolderProtectedItem", "isRehydrate": True, "policyId": ""}
    vault.client.arm("PUT", item, {"properties": again | {"protectionState": "ProtectionStopped"}}, status=202)
    assert told(vault) == [
        ("Delete Backup Data", "Resolved", "New", 1),
        ("Undelete Backup Data", "Fired", "New", 1),
    ]

    vault.client.arm("DELETE", item, status=202)
    watch = Watch(vault.plane)
    watch.look()
    assert "Upcoming Purge" not in [one[0] for one in told(vault)]
    with clock.later(days=12.5):
        watch.look()
        watch.look()
        assert told(vault)[2:] == [("Delete Backup Data", "Fired", "New", 1), ("Upcoming Purge", "Fired", "New", 1)]
    with clock.later(days=14.1):
        from keepstone.control import items as deleted

        deleted.purge_due(vault.plane)
        vault.work()
        assert told(vault)[2:] == [
            ("Delete Backup Data", "Fired", "New", 1),
            ("Upcoming Purge", "Resolved", "New", 1),
            ("Purge Complete", "Fired", "New", 1),
        ]


def test_settings_that_weaken_a_vault(vault: Vault) -> None:
    def patch(**properties: Any) -> None:
        vault.client.arm("PATCH", vault.path, {"properties": properties})

    def soft_delete(state: str) -> dict[str, Any]:
        return {"softDeleteSettings": {"softDeleteState": state}}

    def immutability(state: str) -> dict[str, Any]:
        return {"immutabilitySettings": {"state": state}}

    patch(securitySettings=immutability("Unlocked"))
    assert seen(vault) == []
    patch(securitySettings=soft_delete("Disabled") | immutability("Disabled"))
    assert {one[:2] for one in told(vault)} == {
        ("Soft Delete Disabled for Vault", "Fired"),
        ("Immutability Weakened", "Fired"),
    }
    config = {"properties": {"softDeleteFeatureState": "Enabled"}}
    vault.client.arm("PATCH", f"{vault.path}/backupconfig/vaultconfig", config)
    patch(securitySettings=immutability("Unlocked"))
    assert {one[1] for one in told(vault)} == {"Resolved"}


def test_nobody_turns_alerts_off_unseen(vault: Vault, folder: Path) -> None:
    silent = {"classicAlertSettings": {"alertsForCriticalOperations": "Disabled"}}
    soft_delete = {"softDeleteSettings": {"softDeleteState": "Disabled"}}
    body = {"properties": {"monitoringSettings": silent, "securitySettings": soft_delete}}
    vault.client.arm("PATCH", vault.path, body)
    both = {"Security Alerts Disabled", "Soft Delete Disabled for Vault"}
    assert {one[0] for one in told(vault)} == both
    item = vault.protect(folder)
    vault.client.arm("DELETE", item, status=202)
    assert {one[0] for one in told(vault)} == both


def test_a_refused_change_raises_nothing(vault: Vault) -> None:
    always = {"securitySettings": {"softDeleteSettings": {"softDeleteState": "AlwaysON"}}}
    vault.client.arm("PATCH", vault.path, {"properties": always})
    off = {"securitySettings": {"softDeleteSettings": {"softDeleteState": "Disabled"}}}
    vault.client.refused("PATCH", vault.path, {"properties": off}, status=403)
    assert seen(vault) == []


def test_a_deleted_vault_is_told_of_to_the_end(
    vault: Vault, mailbox: Mailbox, postman: Postman, clock: Clock, client: Client
) -> None:
    target(vault, "hook", mailbox.url())
    identity = vault.uuid
    off = {"securitySettings": {"softDeleteSettings": {"softDeleteState": "Disabled"}}}
    vault.client.arm("PATCH", vault.path, {"properties": off})
    mailbox.status = 503
    client.arm("DELETE", vault.path, status=202)
    postman.run()
    assert control.purge(vault.plane) == 1

    at_group = f"{vault.group}/providers/Microsoft.AlertsManagement/alerts"
    found = {one["name"] for one in client.arm("GET", at_group)["value"]}
    assert found == {"Soft Delete Disabled for Vault", "Vault Deleted"}
    with vault.plane.change() as change:
        alerts.forget(change)  # it has to wait for its target
    mailbox.status = 200
    with clock.later(seconds=30):
        assert postman.run() == 1
        assert mailbox.titles == ["2 alerts of a vault that is gone"]
        with vault.plane.change() as change:
            alerts.forget(change)
            mine = sa.select(sa.func.count()).select_from(targets).where(targets.c.vault == identity)
            assert change.connection.execute(mine).scalar_one() == 0
    with clock.later(days=31), vault.plane.change() as change:
        alerts.forget(change)
    assert client.arm("GET", at_group)["value"] == []


def test_a_vault_that_comes_back_brings_its_alerts(vault: Vault, client: Client, plane: Plane) -> None:
    client.arm("DELETE", vault.path, status=202)
    location = f"/subscriptions/{plane.place.subscription}/providers/Microsoft.RecoveryServices/locations/onprem1"
    other = client.group(f"{vault.group.rpartition('/')[2]}-other")
    with plane.look() as connection:
        deleted = connection.execute(sa.select(vaults.c.id).where(vaults.c.deleted.is_not(None))).scalars().all()
    (mine,) = [one for one in deleted if _group_of(plane, one) == vault.group.rpartition("/")[2]]
    body = {"properties": {"recoveryResourceGroupId": other}}
    client.arm("POST", f"{location}/deletedVaults/{mine}/undelete", body)
    found = client.arm("GET", f"{other}/providers/Microsoft.AlertsManagement/alerts")["value"]
    assert [(one["name"], one["properties"]["essentials"]["monitorCondition"]) for one in found] == [
        ("Vault Deleted", "Resolved")
    ]
    assert client.arm("GET", f"{vault.group}/providers/Microsoft.AlertsManagement/alerts")["value"] == []
    client.arm("GET", found[0]["id"])


def _group_of(plane: Plane, vault: UUID) -> str:
    with plane.look() as connection:
        return str(connection.execute(sa.select(vaults.c.group_name).where(vaults.c.id == vault)).scalar_one())


# --- what is found by looking


def test_an_item_without_new_points(vault: Vault, folder: Path, clock: Clock) -> None:
    item = vault.protect(folder)
    watch = Watch(vault.plane)
    watch.look()
    vault.back_up(item)
    watch.look()
    assert seen(vault) == []
    with clock.later(days=1):
        watch.look()
        assert seen(vault) == []
    with clock.later(days=3):
        watch.look()
        watch.look()
        (alert,) = seen(vault)
        assert (alert["alertRule"], alert["severity"], alert["occurrences"]) == ("Item Unhealthy", "Sev1", 1)
        assert str(folder) in alert["description"]
        vault.client.arm("POST", f"{alert['id']}/changestate", params={"newState": "Closed"})
        watch.look()
        assert told(vault) == [("Item Unhealthy", "Fired", "Closed", 1)]  # it is known, and still so
        with vault.plane.database.change() as connection:
            mine = items.c.friendly == str(folder)
            connection.execute(items.update().where(mine).values(newest=vault.plane.env.utc()))
        watch.look()
        assert told(vault) == [("Item Unhealthy", "Resolved", "Closed", 1)]


def test_an_item_that_never_had_a_point(vault: Vault, folder: Path, clock: Clock) -> None:
    item = vault.protect(folder)
    watch = Watch(vault.plane)
    with clock.later(days=3):
        watch.look()
        assert told(vault) == [("Item Unhealthy", "Fired", "New", 1)]
        assert "yet" in seen(vault)[0]["description"]
        with vault.plane.database.change() as connection:  # by a job of its own, as its policy has asked for
            arguments = {"part": "Full"}
            mine = connection.execute(sa.select(items.c.id).where(items.c.friendly == str(folder))).scalar_one()
            vault.plane.queue.enqueue(connection, "Backup", arguments, vault=vault.uuid, item=mine)
        vault.work()
        assert vault.show(item)["lastBackupStatus"] == "Completed"
        assert told(vault) == [("Item Unhealthy", "Resolved", "New", 1)]


def test_an_item_that_was_resumed_has_time_for_its_next_run(vault: Vault, folder: Path, clock: Clock) -> None:
    item = vault.protect(folder)
    vault.back_up(item)
    stop = {"protectedItemType": "MabFileFolderProtectedItem", "protectionState": "ProtectionStopped", "policyId": ""}
    vault.client.arm("PUT", item, {"properties": stop}, status=202)
    watch = Watch(vault.plane)
    with clock.later(days=30):
        watch.look()
        assert seen(vault) == []
        with vault.plane.change() as change:
            from keepstone.control import items as protected

            found = control.lookup(
                change.connection, vault.plane.place.subscription, vault.group.split("/")[-1], "vault1"
            )
            assert found is not None
            wanted = {"policyId": vault.policy("FilesPolicy")}
            protected.protect(change, found, CONTAINER, item.rpartition("/")[2], wanted, "")
        watch.look()
        assert seen(vault) == []
    with clock.later(days=33):
        watch.look()
        assert told(vault) == [("Item Unhealthy", "Fired", "New", 1)]


def test_a_damaged_store(vault: Vault, folder: Path) -> None:
    vault.back_up(vault.protect(folder))
    place = vault.plane.stores.place(vault.uuid)
    pack = max((path for path in (place / "packs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    whole = pack.read_bytes()

    def verify() -> None:
        with vault.plane.database.change() as connection:
            vault.plane.queue.enqueue(connection, VERIFY, {"entity": "vault1"}, vault=vault.uuid)
        vault.work()

    verify()
    assert seen(vault) == []
    pack.unlink()
    for _ in range(2):
        verify()
    both = {(one["alertRule"], one["severity"], one["occurrences"], one["monitorCondition"]) for one in seen(vault)}
    assert both == {("Store Damaged", "Sev0", 2, "Fired"), ("Job Failure", "Sev1", 2, "Fired")}
    (damage,) = [one for one in seen(vault) if one["alertRule"] == "Store Damaged"]
    assert pack.name in damage["description"]
    assert "1 of 1 points cannot be restored whole" in damage["description"]
    pack.write_bytes(whole)
    verify()
    assert {one["monitorCondition"] for one in seen(vault)} == {"Resolved"}


def test_stores_are_verified_every_day(vault: Vault, clock: Clock) -> None:
    def asked_for() -> int:
        jobs = vault.client.arm("GET", f"{vault.path}/backupJobs", params={"$filter": "operation eq 'Verify'"})["value"]
        return len(jobs)

    ask_for(vault.plane, VERIFY)
    assert asked_for() == 0
    with clock.later(hours=25):
        ask_for(vault.plane, VERIFY)
        ask_for(vault.plane, VERIFY)
        assert asked_for() == 1
    vault.work()


def test_a_journal_that_lags(vault: Vault, clock: Clock) -> None:
    watch = Watch(vault.plane)
    place = vault.plane.stores.place(vault.uuid)
    hidden = place.rename(place.with_name("hidden"))
    vault.plane.stores._open.pop(vault.uuid)
    try:
        vault.client.arm("PATCH", vault.path, {"tags": {"a": "b"}})
        watch.look()
        assert seen(vault) == []
        with clock.later(minutes=4):
            watch.look()
            assert seen(vault) == []
        with clock.later(minutes=6):
            watch.look()
            assert told(vault) == [("Journal Lagging", "Fired", "New", 1)]
    finally:
        shutil.rmtree(place, ignore_errors=True)
        hidden.rename(place)
    assert vault.plane.journal.ship(vault.uuid)
    watch.look()
    assert told(vault) == [("Journal Lagging", "Resolved", "New", 1)]
    with vault.plane.look() as connection:
        assert connection.execute(sa.select(outbox).where(outbox.c.vault == vault.uuid)).all() == []


def test_certificates_that_end(
    vault: Vault, mailbox: Mailbox, postman: Postman, clock: Clock, client: Client, plane: Plane
) -> None:
    """They are the service's: each address is told once, however many vaults have it."""
    other = Vault(client, plane, "certificates")
    target(vault, "hook", mailbox.url())
    target(other, "same", mailbox.url())
    watch = Watch(plane)
    watch.look()
    at_all = f"/subscriptions/{plane.place.subscription}/providers/Microsoft.AlertsManagement/alerts"
    asked = {"alertRule": "Certificate Ending"}
    assert client.arm("GET", at_all, params=asked)["value"] == []
    with clock.later(days=365 * 20):
        watch.look()
        watch.look()
        found = client.arm("GET", at_all, params=asked)["value"]
        assert len(found) == 2
        assert {one["properties"]["essentials"]["targetResource"] for one in found} == {
            f"/subscriptions/{plane.place.subscription}"
        }
        assert seen(vault, alertRule="Certificate Ending") == []
        postman.run()
    assert len(mailbox.messages) == 1
    assert mailbox.messages[0]["message"].count("Certificate Ending") == 2
    watch.look()
    assert postman.run() == 1
    assert mailbox.messages[1]["message"].count("[Resolved] Certificate Ending: the service") == 2


# --- what people do about them


@exercises("alerts.get_by_id", "alerts.change_state")
def test_states(vault: Vault, folder: Path, client: Client) -> None:
    item = vault.protect(folder)
    fail(vault, folder, item)
    (alert,) = seen(vault)
    path = alert["id"]
    assert path == f"{vault.path}/providers/Microsoft.AlertsManagement/alerts/{alert['sourceCreatedId']}"
    shown = client.arm("GET", path)
    assert (shown["name"], shown["type"]) == ("Backup Failure", "Microsoft.AlertsManagement/alerts")
    assert shown["properties"]["essentials"]["lastModifiedUserName"] == "System"

    changed = client.arm("POST", f"{path}/changestate", params={"newState": "acknowledged"})
    assert changed["properties"]["essentials"]["alertState"] == "Acknowledged"
    assert client.who is not None
    assert changed["properties"]["essentials"]["lastModifiedUserName"] == client.who.client
    fail(vault, folder, item)
    assert told(vault) == [("Backup Failure", "Fired", "Acknowledged", 2)]

    at_all = f"/subscriptions/{vault.plane.place.subscription}/providers/Microsoft.AlertsManagement/alerts"
    client.arm("POST", f"{at_all}/{alert['sourceCreatedId']}/changestate", params={"newState": "Closed"})
    fail(vault, folder, item)
    assert told(vault) == [("Backup Failure", "Fired", "Closed", 2), ("Backup Failure", "Fired", "New", 1)]
    vault.back_up(item)
    assert told(vault) == [("Backup Failure", "Resolved", "Closed", 2), ("Backup Failure", "Resolved", "New", 1)]
    client.arm("POST", f"{path}/changestate", params={"newState": "New"})
    assert told(vault)[0] == ("Backup Failure", "Resolved", "New", 2)

    for query in ({}, {"newState": "Gone"}):
        assert (
            client.refused("POST", f"{path}/changestate", params=query, status=400).body["error"]["target"]
            == "newState"
        )
    for name in ("x", str(UUID(int=7))):
        client.refused("GET", f"{at_all}/{name}", status=404)


def test_who_sees_which_alerts(
    vault: Vault,
    folder: Path,
    client_of: Callable[[Principal | None], Client],
    principal: Callable[..., Principal],
    plane: Plane,
    client: Client,
) -> None:
    other = Vault(client, plane, "others")
    for one in (vault, other):
        one.client.arm(
            "PATCH",
            one.path,
            {"properties": {"securitySettings": {"softDeleteSettings": {"softDeleteState": "Disabled"}}}},
        )
    at_all = f"/subscriptions/{plane.place.subscription}/providers/Microsoft.AlertsManagement/alerts"
    reader = client_of(principal("Backup Reader", scope=vault.path))
    found = reader.arm("GET", at_all)["value"]
    assert [one["properties"]["essentials"]["targetResource"] for one in found] == [vault.path]
    reader.arm("GET", found[0]["id"])
    reader.arm("POST", f"{found[0]['id']}/changestate", params={"newState": "Acknowledged"})  # as in Azure
    (theirs,) = seen(other)
    for path in (theirs["id"], f"{at_all}/{theirs['sourceCreatedId']}"):
        assert reader.ask("GET", path).status in (403, 404)
        assert reader.ask("POST", f"{path}/changestate", params={"newState": "Closed"}).status in (403, 404)
    assert client_of(principal()).arm("GET", at_all)["value"] == []
    looks_only = client_of(principal("Reader", scope=vault.path))
    looks_only.arm("GET", f"{at_all}/{found[0]['properties']['essentials']['sourceCreatedId']}")
    path = f"{at_all}/{found[0]['properties']['essentials']['sourceCreatedId']}/changestate"
    refused = looks_only.refused("POST", path, params={"newState": "Closed"}, status=403)
    assert "monitoringAlerts/write" in refused.message
    # an alert of one vault is none of the other
    client.refused("GET", theirs["id"].replace(other.path, vault.path), status=404)
    client.refused(
        "GET", f"{vault.group}/providers/Microsoft.AlertsManagement/alerts/{theirs['sourceCreatedId']}", status=404
    )


def test_filters_order_and_pages(vault: Vault, folder: Path, clock: Clock, client: Client) -> None:
    item = vault.protect(folder)
    fail(vault, folder, item)
    with clock.later(minutes=1):
        client.arm("DELETE", item, status=202)
    with clock.later(minutes=2):
        off = {"softDeleteSettings": {"softDeleteState": "Disabled"}}
        client.arm("PATCH", vault.path, {"properties": {"securitySettings": off}})

    def names(**query: str) -> list[str]:
        return [one["alertRule"] for one in seen(vault, **query)]

    backup, delete, soft_delete = "Backup Failure", "Delete Backup Data", "Soft Delete Disabled for Vault"
    with clock.later(minutes=3):
        assert names() == [backup, delete, soft_delete]
        assert names(sortOrder="desc") == [soft_delete, delete, backup]
        assert names(severity="sev0") == [delete, soft_delete]
        assert names(monitorCondition="Resolved") == [backup]
        assert names(alertState="New") == [backup, delete, soft_delete]
        assert names(alertState="Closed") == []
        assert names(alertRule="delete backup data") == [delete]
        assert names(monitorService="Azure Backup") == [backup, delete, soft_delete]
        assert names(monitorService="Platform") == []
        assert names(targetResource=vault.path.upper()) == [backup, delete, soft_delete]
        assert names(targetResource=vault.group) == []
        assert names(targetResourceType="Microsoft.RecoveryServices/vaults") == [backup, delete, soft_delete]
        assert names(targetResourceGroup="elsewhere") == []
    with clock.later(hours=2):
        assert names(timeRange="1h") == []
        assert names(timeRange="1d") == [backup, delete, soft_delete]
    with clock.later(days=2):
        assert names(timeRange="") == []  # Azure's default is a day
        assert names(timeRange="7d") == [backup, delete, soft_delete]
        now = vault.plane.env.utc()
        custom = f"{(now - timedelta(days=3)).isoformat()}/{(now - timedelta(days=2, seconds=-90)).isoformat()}"
        assert names(timeRange="", customTimeRange=custom.replace("+00:00", "Z")) == [backup, delete]
    for wrong in (
        {"severity": "Sev9"}, {"timeRange": "2d"}, {"customTimeRange": "yesterday"}, {"pageCount": "0"},
        {"timeRange": "1d", "customTimeRange": "2026-01-01/2026-01-02"}, {"pageCount": "251"}, {"sortBy": "name"},
        {"alertState": "Old"}, {"monitorCondition": "Maybe"}, {"sortOrder": "up"}, {"$skipToken": "eA=="},
        {"customTimeRange": "0001-01-01T00:00:00+23:00/2026-01-01"},
    ):  # fmt: skip
        path = f"{vault.path}/providers/Microsoft.AlertsManagement/alerts"
        client.refused("GET", path, params=wrong, status=400)
    page = client.arm("GET", f"{vault.path}/providers/Microsoft.AlertsManagement/alerts", params={"pageCount": "2"})
    rest = client.arm("GET", page["nextLink"].partition("8443")[2])
    assert [one["name"] for one in page["value"] + rest["value"]] == [soft_delete, delete, backup]
    assert "context" not in page["value"][0]["properties"]
    assert "nextLink" not in rest


# --- whom to tell


@exercises(
    "keepstone.notification_targets_put",
    "keepstone.notification_targets_get",
    "keepstone.notification_targets_list",
    "keepstone.notification_targets_delete",
    "keepstone.notification_targets_test",
)
def test_targets(vault: Vault, mailbox: Mailbox, client: Client, plane: Plane) -> None:
    made = target(vault, "Hook", mailbox.url("secret-path", token="secret-token"))
    assert made["properties"]["address"] == f"json://127.0.0.1:{mailbox.port}/…"
    assert made["id"] == f"{vault.path}/notificationTargets/Hook"
    again = target(vault, "hook", f"json://user:secret-word@127.0.0.1:{mailbox.port}/secret-path", status=200)
    assert again["name"] == "Hook"
    target(vault, "chat", "slack://secretToken/secretTokenB/secretTokenCsecretTokenCx/#channel")
    listed = client.arm("GET", f"{vault.path}/notificationTargets")["value"]
    assert [(one["name"], one["properties"]["address"]) for one in listed] == [
        ("chat", "slack://…"),
        ("Hook", f"json://127.0.0.1:{mailbox.port}/…"),
    ]
    assert "secret" not in str(listed).lower()
    with plane.look() as connection:
        kept = connection.execute(sa.select(targets).where(targets.c.vault == vault.uuid)).all()
    assert len(kept) == 2
    assert "secret" not in repr(kept).lower()
    for file in plane.root.glob("keepstone.db*"):
        assert b"secret-" not in file.read_bytes()
        assert b"secretToken" not in file.read_bytes()
    assert (plane.root / KEY).stat().st_mode & 0o777 == 0o600

    assert client.arm("POST", f"{vault.path}/notificationTargets/hook/test") == {"delivered": True, "error": None}
    assert mailbox.titles == ["Test of target 'Hook' of vault 'vault1'"]
    mailbox.status = 500
    said = client.arm("POST", f"{vault.path}/notificationTargets/hook/test")
    assert said["delivered"] is False
    assert "error=500" in said["error"]

    client.arm("DELETE", f"{vault.path}/notificationTargets/HOOK")
    client.arm("DELETE", f"{vault.path}/notificationTargets/HOOK", status=204)
    client.refused("GET", f"{vault.path}/notificationTargets/hook", status=404)
    client.refused("POST", f"{vault.path}/notificationTargets/hook/test", status=404)


@pytest.mark.parametrize(
    "url",
    ["", None, 7, "nothing", "http://127.0.0.1/", "json://", "json://a b", "file:///etc/passwd", "json://" + "a" * 5000,
     "json://a,json://b c", "\x00json://a", "json://[", "mailto://"],
)  # fmt: skip
def test_what_is_no_address(vault: Vault, url: Any) -> None:
    body = {"properties": {"url": url}}
    refused = vault.client.refused("PUT", f"{vault.path}/notificationTargets/a", body, status=400)
    assert refused.body["error"]["target"] == "properties.url"
    assert vault.client.arm("GET", f"{vault.path}/notificationTargets")["value"] == []


@pytest.mark.parametrize("name", ["a b", "ä", "a" * 81, "a%2Fb"])
def test_what_is_no_name_of_a_target(vault: Vault, name: str, mailbox: Mailbox) -> None:
    body = {"properties": {"url": mailbox.url()}}
    vault.client.refused("PUT", f"{vault.path}/notificationTargets/{name}", body, status=400)


def test_a_locked_vault_keeps_its_targets(vault: Vault, mailbox: Mailbox, client: Client) -> None:
    target(vault, "hook", mailbox.url())
    lock = f"{vault.path}/providers/Microsoft.Authorization/locks/l"
    client.arm("PUT", lock, {"properties": {"level": "ReadOnly"}}, status=201)
    client.refused("PUT", f"{vault.path}/notificationTargets/b", {"properties": {"url": mailbox.url()}}, status=409)
    client.refused("DELETE", f"{vault.path}/notificationTargets/hook", status=409)
    client.arm("DELETE", lock)
    client.arm("DELETE", f"{vault.path}/notificationTargets/hook")


def test_who_may_choose_targets(
    vault: Vault, mailbox: Mailbox, client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal]
) -> None:
    path, body = f"{vault.path}/notificationTargets/hook", {"properties": {"url": mailbox.url()}}
    for role in ("Backup Reader", "Backup Operator", "Reader"):
        client = client_of(principal(role, scope=vault.path))
        client.refused("PUT", path, body, status=403)
    client_of(principal("Backup Contributor", scope=vault.path)).arm("PUT", path, body, status=201)
    client_of(principal("Backup Reader", scope=vault.path)).arm("GET", path)


# --- how they are told


def test_an_alert_is_told_when_it_begins_and_when_it_is_over(
    vault: Vault, folder: Path, mailbox: Mailbox, postman: Postman
) -> None:
    item = vault.protect(folder)
    fail(vault, folder, item)  # before there is anybody to tell
    target(vault, "hook", mailbox.url())
    vault.back_up(item)
    assert postman.run() == 1
    assert mailbox.titles == [f"[Resolved] Backup Failure: {folder} (vault 'vault1')"]
    mailbox.messages.clear()

    for _ in range(3):
        fail(vault, folder, item)
    assert postman.run() == 1
    assert postman.run() == 0
    (message,) = mailbox.messages
    assert message["title"] == f"[Sev1] Backup Failure: {folder} (vault 'vault1')"
    assert message["type"] == "failure"
    assert "It happened 3 times" in message["message"]
    assert "What to do: " in message["message"]
    alert = seen(vault)[-1]
    assert alert["sourceCreatedId"] in message["message"]
    vault.back_up(item)
    postman.run()
    assert mailbox.messages[1]["title"].startswith("[Resolved] Backup Failure")
    assert mailbox.messages[1]["type"] == "success"
    properties = shown(vault, "hook")
    assert (properties["waiting"], properties["failures"], properties["lastError"]) == (0, 0, None)
    assert properties["lastDeliveryTime"] is not None


def test_several_go_as_one_message_in_order(vault: Vault, folder: Path, mailbox: Mailbox, postman: Postman) -> None:
    target(vault, "hook", mailbox.url())
    item = vault.protect(folder)
    for _ in range(6):
        fail(vault, folder, item)
        vault.back_up(item)
    assert shown(vault, "hook")["waiting"] == 12
    assert postman.run() == 2
    assert mailbox.titles == ["10 alerts of vault 'vault1'", "2 alerts of vault 'vault1'"]
    text = "\n".join(message["message"] for message in mailbox.messages)
    words = [line.partition("]")[0] for line in text.splitlines() if line.startswith("[")]
    assert words == ["[Sev1", "[Resolved"] * 6


def test_one_that_fails_is_tried_again_and_keeps_nobody_waiting(
    vault: Vault, folder: Path, postman: Postman, clock: Clock, mailbox: Mailbox
) -> None:
    broken = Mailbox()
    try:
        broken.status = 500
        target(vault, "a-broken", broken.url("secret-path"))
        target(vault, "well", mailbox.url())
        item = vault.protect(folder)
        fail(vault, folder, item)
        assert postman.run() == 1
        assert len(mailbox.messages) == 1
        properties = shown(vault, "a-broken")
        assert (properties["failures"], properties["waiting"]) == (1, 1)
        assert "error=500" in properties["lastError"]
        assert "secret" not in properties["lastError"]
        assert postman.run() == 0
        assert len(broken.paths) == 1  # not yet
        pauses = []
        for number in range(2, 14):
            with vault.plane.look() as connection:
                mine = targets.c.vault == vault.uuid, targets.c.name == "a-broken"
                due = connection.execute(sa.select(targets.c.due).where(*mine)).scalar_one()
            pauses.append(round((due - vault.plane.env.utc()).total_seconds()))
            clock.passed += timedelta(seconds=pauses[-1] + 1)
            postman.run()
            assert len(broken.paths) == number
        assert pauses == pytest.approx([min(3600, 10 * 2**number) for number in range(12)], abs=2)

        vault.back_up(item)
        assert postman.run() == 1  # the other one, at once
        assert len(mailbox.messages) == 2
        broken.status = 200
        clock.passed += timedelta(hours=2)
        assert postman.run() == 1
        (message,) = broken.messages
        assert message["title"] == "2 alerts of vault 'vault1'"
        assert message["message"].index("[Sev1]") < message["message"].index("[Resolved]")
        assert shown(vault, "a-broken")["failures"] == 0
    finally:
        clock.passed = timedelta()
        broken.close()


def test_one_that_hangs_keeps_nobody_waiting(
    vault: Vault, postman: Postman, clock: Clock, mailbox: Mailbox, folder: Path
) -> None:
    silent = Mailbox()
    try:
        silent.open.clear()
        target(vault, "a-silent", silent.url())
        target(vault, "well", mailbox.url())
        item = vault.protect(folder)
        fail(vault, folder, item)
        assert postman.run(patience=0.5) == 1
        assert len(mailbox.messages) == 1
        properties = shown(vault, "a-silent")
        assert properties["lastError"] == "it does not answer within 0 seconds"
        assert (properties["failures"], properties["waiting"]) == (1, 1)
        vault.back_up(item)
        with clock.later(minutes=5):
            assert postman.run(patience=0.5) == 1  # nobody begins again with one that still hangs
            assert len(mailbox.messages) == 2
            assert shown(vault, "a-silent")["waiting"] == 2
            silent.open.set()
            while not silent.messages:  # it answers after all
                postman.run(patience=0.1)
            postman.run(patience=1)
            while len(silent.messages) < 2:
                postman.run(patience=0.1)
        assert [title.partition("]")[0] for title in silent.titles] == ["[Sev1", "[Resolved"]
        postman.run()
        assert shown(vault, "a-silent")["failures"] == 0
    finally:
        silent.close()


def test_a_sender_that_dies_leaves_it_to_the_next(
    vault: Vault, folder: Path, mailbox: Mailbox, plane: Plane, clock: Clock
) -> None:
    target(vault, "hook", mailbox.url())
    fail(vault, folder, vault.protect(folder))
    first, second = Postman(plane), Postman(plane)
    first._claim()
    assert second.run() == 0
    with clock.later(seconds=61):
        assert second.run() == 1
        assert Postman(plane).run() == 0
    assert len(mailbox.messages) == 1


def test_a_target_that_is_removed_is_told_nothing_more(
    vault: Vault, folder: Path, mailbox: Mailbox, postman: Postman, client: Client, plane: Plane
) -> None:
    target(vault, "hook", mailbox.url())
    fail(vault, folder, vault.protect(folder))
    client.arm("DELETE", f"{vault.path}/notificationTargets/hook")
    assert postman.run() == 0
    assert mailbox.messages == []
    with plane.look() as connection:
        mine = sa.select(rows.c.id).where(rows.c.vault == vault.uuid)
        assert connection.execute(sa.select(notices).where(notices.c.alert.in_(mine))).all() == []


def test_what_nobody_took_for_a_week_is_not_sent_any_more(
    vault: Vault, folder: Path, mailbox: Mailbox, postman: Postman, clock: Clock
) -> None:
    target(vault, "hook", mailbox.url())
    fail(vault, folder, vault.protect(folder))
    with clock.later(days=8):
        assert postman.run() == 0
        assert shown(vault, "hook")["waiting"] == 0


def test_the_key_of_addresses_is_lost(
    vault: Vault, folder: Path, mailbox: Mailbox, postman: Postman, plane: Plane, client: Client, clock: Clock
) -> None:
    target(vault, "hook", mailbox.url())
    fail(vault, folder, vault.protect(folder))
    key = plane.root / KEY
    kept = key.read_bytes()
    try:
        for content in (bytes(len(kept)), b"short"):
            key.write_bytes(content)
            with clock.later(hours=1):
                assert postman.run() == 0
            assert f"{key} is lost" in shown(vault, "hook")["lastError"]
            assert not client.arm("POST", f"{vault.path}/notificationTargets/hook/test")["delivered"]
    finally:
        key.write_bytes(kept)
    target(vault, "hook", mailbox.url(), status=200)
    assert postman.run() == 1


def test_an_address_opens_for_its_own_target_alone(
    vault: Vault, plane: Plane, mailbox: Mailbox, client: Client
) -> None:
    target(vault, "a", mailbox.url("a"))
    target(vault, "b", mailbox.url("b"))
    with plane.database.change() as connection:
        sealed = connection.execute(sa.select(targets.c.sealed).where(targets.c.name == "a")).scalars().all()[-1]
        connection.execute(
            targets.update().where(targets.c.vault == vault.uuid, targets.c.name == "b").values(sealed=sealed)
        )
    said = client.arm("POST", f"{vault.path}/notificationTargets/b/test")
    assert said["delivered"] is False
    assert "does not open" in said["error"]
    assert mailbox.paths == []


def test_mail(vault: Vault, folder: Path, postman: Postman) -> None:
    with MailServer.running() as server:
        sender = {"from": "keepstone@example.com", "to": "ops@example.com", "mode": "insecure"}
        query = "&".join(f"{key}={value}" for key, value in sender.items())
        target(vault, "mail", f"mailto://127.0.0.1:{server.port}?{query}")
        fail(vault, folder, vault.protect(folder))
        assert postman.run() == 1
        (mail,) = server.mails
    assert "To: ops@example.com" in mail
    assert "Backup Failure" in mail


def test_what_fails_on_the_way_is_told_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    message = courier.Message("title", "body", "info")
    closed = Mailbox()
    closed.close()
    url = f"json://user:secret-word@127.0.0.1:{closed.port}/secret-path?+X-Token=secret-token&:secret=secret-field"
    error = courier.deliver(url, message)
    assert error
    assert "127.0.0.1" in error
    assert "secret" not in error
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("json://user:word@host.example/path?x=y", "json://host.example/…"),
        ("JSONS://host.example:8443", "jsons://host.example:8443/…"),
        ("mailto://user:word@example.com", "mailto://example.com:25/…"),
        ("ntfy://a-topic", "ntfy://…"),
        ("ntfys://host.example/a-topic", "ntfys://…"),  # of which one does not know for sure that it is a host
        ("tgram://123456789:ABCdefghijkABCdefghijkABCdefghijk12/12315544/", "tgram://…"),
        ("syslog://", "syslog://…"),
    ],
)
def test_what_is_shown_of_an_address(address: str, shown: str) -> None:
    assert courier.shown(address) == shown


@pytest.mark.parametrize(
    ("address", "text", "told"),
    [
        ("json://user:pass-word@host:80/a-token?x=a%20b1", "user pass-word a-token a b1 host", "… … … … host"),
        ("slack://tokenA/tokenB/tokenCtokenCtokenCtokenCt/#chat", "at tokenA of chat: tokenB", "at … of …: …"),
        ("json://host/ab", "ab is too short to be one", "ab is too short to be one"),
        ("json://host", "host does not answer", "host does not answer"),
    ],
)
def test_what_services_say_is_shown_without_the_address(address: str, text: str, told: str) -> None:
    assert courier._without_secrets(text, address) == told


def test_alerts_are_forgotten_when_they_are_over(vault: Vault, folder: Path, clock: Clock, plane: Plane) -> None:
    def forget() -> None:
        with plane.change() as change:
            alerts.forget(change)

    item = vault.protect(folder)
    fail(vault, folder, item)
    off = {"softDeleteSettings": {"softDeleteState": "Disabled"}}
    vault.client.arm("PATCH", vault.path, {"properties": {"securitySettings": off}})
    with clock.later(days=29):
        forget()
    assert len(seen(vault)) == 2
    with clock.later(days=31):
        forget()
    assert [one[0] for one in told(vault)] == ["Backup Failure"]  # which goes on
    vault.back_up(item)
    with clock.later(days=31):
        forget()
    assert seen(vault) == []


def test_the_service_does_all_of_this_by_itself(plane: Plane) -> None:
    paces = {what: every for what, every, _ in chores(plane)}
    assert paces["telling people of alerts"] <= 10
    assert paces["looking for what nobody reports"] <= 300
    for what, _, run in chores(plane):
        if "alerts" in what or "nobody" in what:
            run()
