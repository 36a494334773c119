# SPDX-License-Identifier: Apache-2.0
"""Machines with an agent as clients see them: credentials, containers, and who gets the jobs of their items."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from keepstone.catalogue import agents as rows
from keepstone.catalogue import items as item_rows
from keepstone.catalogue import schedules
from keepstone.control import agents
from keepstone.control import items as items_control
from keepstone.control.plane import Plane
from keepstone.control.schedules import ItemPlans
from keepstone.control.sources import absolute, item_name
from keepstone.identity import Principal
from keepstone.jobs import Scheduler, Status
from tests.contract.arm.specs import Specs

from .client import Client
from .exercised import exercises
from .machines import ALL, SYSTEM, Machine, Register, new_body
from .protecting import CONTAINER, Vault

pytestmark = pytest.mark.service


# Credentials


@exercises("vault_certificates.create")
def test_credentials_are_answered_as_azure_does(vault: Vault, specs: Specs) -> None:
    issued, body = new_body(vault.client, "one")
    path = f"{vault.path}/certificates/one"

    answered = vault.client.ask("PUT", path, body)

    assert specs.check_response("PUT", path, answered.status, answered.body, answered.headers) == []
    made = x509.load_pem_x509_certificate(issued.certificate)
    assert (answered.status, answered.body["id"], answered.body["name"]) == (200, path, "one")
    about = answered.body["properties"]
    assert about["certificate"] == body["properties"]["certificate"]
    assert about["thumbprint"] == made.fingerprint(hashes.SHA256()).hex()
    assert (about["subject"], about["issuer"], about["friendlyName"]) == ("CN=one", "CN=one", "one")
    assert about["validTo"].startswith(made.not_valid_after_utc.isoformat()[:19])
    assert about["aadTenantId"] == vault.plane.place.tenant
    assert about["serviceResourceId"] == vault.path
    assert vault.client.arm("PUT", path, body) == answered.body
    assert vault.client.arm("GET", f"{vault.path}/backupProtectionContainers")["value"] == []


@pytest.mark.parametrize(
    ("more", "target"),
    [
        ({"certificate": None}, "properties.certificate"),
        ({"certificate": "no base64!"}, "properties.certificate"),
        ({"certificate": "aGk="}, "properties.certificate"),
        ({"certificate": ["x"]}, "properties.certificate"),
        ({"authType": "ACS"}, "properties.authType"),
    ],
    ids=str,
)
def test_certificates_that_are_refused(vault: Vault, more: dict[str, Any], target: str) -> None:
    refused = vault.client.refused("PUT", f"{vault.path}/certificates/one", new_body(vault.client, "one", **more)[1],
                                   status=400)  # fmt: skip
    assert refused.body["error"]["target"] == target


def test_a_lock_keeps_credentials_away(vault: Vault) -> None:
    lock = f"{vault.path}/providers/Microsoft.Authorization/locks/still"
    vault.client.arm("PUT", lock, {"properties": {"level": "ReadOnly"}}, status=201)
    refused = vault.client.refused("PUT", f"{vault.path}/certificates/one", new_body(vault.client, "one")[1],
                                   status=409)  # fmt: skip
    assert refused.code == "ScopeLocked"


# Containers


@exercises("protection_containers.get", "backup_protection_containers.list")
def test_how_a_machine_is_shown(vault: Vault, machine: Register, specs: Specs) -> None:
    web = machine()
    answered = vault.client.ask("GET", web.path)
    allow = ["unknown at $.properties.keepstone"]
    assert specs.check_response("GET", web.path, 200, answered.body, answered.headers, allow=allow) == []
    shown = web.show()
    assert (shown["friendlyName"], shown["backupManagementType"], shown["containerType"]) == ("web", "MAB", "Windows")
    assert (shown["registrationStatus"], shown["agentVersion"]) == ("Registered", "0.2.0")
    assert (shown["containerHealthState"], shown["mabContainerHealthDetails"]) == ("Healthy", [])
    assert shown["extendedInfo"] == {"lastRefreshedAt": shown["keepstone"]["lastSeen"]}
    assert shown["keepstone"]["system"] == SYSTEM
    listed = vault.client.arm("GET", f"{vault.path}/backupProtectionContainers")["value"]
    assert listed == [answered.body]


def test_a_machine_that_is_silent(vault: Vault, machine: Register, specs: Specs) -> None:
    web = machine()
    ago = vault.plane.env.utc() - agents.SILENT - timedelta(seconds=5)
    with vault.plane.database.change() as connection:
        connection.execute(rows.update().where(rows.c.container == web.id).values(seen=ago))
    shown = web.show()
    assert (shown["registrationStatus"], shown["healthStatus"]) == ("Registered", "Unhealthy")
    (wrong,) = shown["mabContainerHealthDetails"]
    assert wrong["title"] == "AgentNotReachable"
    assert f"{ago:%Y-%m-%d %H:%M} UTC" in wrong["message"]
    answered = vault.client.ask("GET", web.path)
    allow = ["unknown at $.properties.keepstone"]
    assert specs.check_response("GET", web.path, 200, answered.body, answered.headers, allow=allow) == []
    with vault.plane.database.change() as connection:
        agents.seen(connection, {web.id: (vault.plane.env.utc(), "0.2.1")})
    assert (web.show()["healthStatus"], web.show()["agentVersion"]) == ("Healthy", "0.2.1")


@exercises("registered_identities.delete")
def test_a_machine_with_items_that_is_taken_out_keeps_its_points(vault: Vault, machine: Register) -> None:
    web = machine()
    item = web.protect("/srv")
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)
    identity = f"{vault.path}/registeredIdentities/Windows;web"

    vault.client.arm("DELETE", identity, status=204)

    shown = web.show()
    assert (shown["registrationStatus"], shown["canReRegister"]) == ("NotRegistered", True)
    assert shown["mabContainerHealthDetails"][0]["title"] == "AgentRevoked"
    (job,) = vault.client.arm("GET", f"{vault.path}/backupJobs", params={"$filter": "operation eq 'Backup'"})["value"]
    assert job["properties"]["status"] == "Cancelled"
    assert vault.client.arm("GET", item)["properties"]["protectionState"] == "IRPending"
    assert vault.client.refused("DELETE", identity, status=400).code == "ServiceResourceNotEmptyWithBackendMessage"
    refused = vault.client.refused("POST", f"{item}/backup", {"properties": {}}, status=409)
    assert "'web' has no agent" in refused.message

    again = machine()
    assert again.id == web.id
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)
    assert again.claim() is not None


@exercises("protection_containers.unregister")
@pytest.mark.parametrize("rest", ["backupFabrics/Azure/protectionContainers/Windows;web", "registeredIdentities/web"])
def test_a_machine_without_items_that_is_taken_out_is_gone(vault: Vault, machine: Register, rest: str) -> None:
    web = machine()
    vault.client.ask("DELETE", f"{vault.path}/backupFabrics/Azure/protectionContainers/none")
    assert vault.client.ask("DELETE", f"{vault.path}/{rest}").status in (202, 204)
    vault.client.refused("GET", web.path, status=404)
    with vault.plane.look() as connection:
        assert agents.of_container(connection, web.id) is None


def test_only_its_agent_registers_another_machine(vault: Vault, machine: Register) -> None:
    web = machine()
    body = {"properties": {"containerType": "Windows", "backupManagementType": "MAB", "agent": True}}
    assert vault.client.arm("PUT", web.path, body, status=202)["properties"]["agentVersion"] == "0.2.0"
    other = web.path.replace("web", "other")
    refused = vault.client.refused("PUT", other, body, status=400)
    assert "keepstone agent register" in refused.message
    vault.client.refused("GET", other, status=404)


# Items


def test_the_jobs_of_a_machines_items_are_its_own(vault: Vault, machine: Register) -> None:
    web, db = machine("web"), machine("db")
    item = web.protect("/srv")
    assert vault.client.arm("GET", item)["properties"]["computerName"] == "web"
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)

    vault.work()
    assert db.claim() is None
    claim = web.claim()
    assert claim is not None
    assert (claim.operation, claim.machine, claim.arguments["machine"]) == ("Backup", web.id, "web")
    assert web.claim() is None


def test_what_a_schedule_asks_for_is_the_machines(vault: Vault, machine: Register, tmp_path: Path) -> None:
    web = machine()
    web.protect("/srv")
    vault.protect(tmp_path)
    plane = vault.plane
    with plane.database.change() as connection:
        mine = schedules.c.vault == vault.uuid
        connection.execute(schedules.update().where(mine).values(due=plane.env.utc() - timedelta(seconds=1)))
    Scheduler(plane.database, plane.queue, plane.env, ItemPlans()).tick()

    claim = web.claim()
    assert claim is not None
    assert claim.operation == "Backup"
    assert plane.queue.waiting(["Backup"])
    vault.work()
    assert vault.client.arm("GET", vault.item(tmp_path))["properties"]["lastBackupStatus"] == "Completed"


def test_the_servers_workers_remove_what_a_machine_has_stored(vault: Vault, machine: Register) -> None:
    """Whatever becomes of the machine."""
    web = machine()
    item = web.protect("/srv")
    vault.client.arm("DELETE", item, status=202)
    with vault.plane.database.change() as connection:  # its time passes
        early = vault.plane.env.utc() - timedelta(seconds=1)
        connection.execute(item_rows.update().where(item_rows.c.container == web.id).values(purge=early))
    assert items_control.purge_due(vault.plane) == 1
    assert web.claim() is None
    vault.work()
    vault.client.refused("GET", item, status=404)


def test_the_services_own_machine_may_have_an_agent(vault: Vault, machine: Register, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    item = vault.protect(folder)
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)
    own = machine(CONTAINER.partition(";")[2])
    vault.work()  # what was asked for before
    assert vault.show(item)["lastBackupStatus"] == "Completed"

    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)
    vault.work()
    assert own.claim() is not None

    vault.client.arm("DELETE", f"{vault.path}/registeredIdentities/{CONTAINER}", status=204)
    assert vault.back_up(item)["status"] == "Completed"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/srv/", "/srv"),
        ("/a/../b", "/b"),
        (r"C:\Users", r"C:\Users"),
        ("c:/Users/", r"C:\Users"),
        (r"\\server\share\x\..\y", r"\\server\share\y"),
    ],
)
def test_paths_of_another_machine_are_looked_at_for_their_form(
    vault: Vault, machine: Register, given: str, kept: str
) -> None:
    web = machine()
    _, body = web.item(given)
    path = f"{web.path}/protectedItems/{item_name(kept)}"
    vault.client.arm("PUT", path, body, status=202)
    shown = vault.client.arm("GET", path)["properties"]
    assert (shown["sourcePath"], shown["friendlyName"]) == (kept, kept)
    vault.client.arm("PUT", path, body, status=202)  # the same again
    vault.client.arm("PUT", path, {"properties": body["properties"] | {"exclude": ["*.tmp"]}}, status=202)


@pytest.mark.parametrize("given", ["srv", "", r"C:Users", r"\Users", "C:", "a\0b", 7, None])
def test_paths_that_are_none(vault: Vault, machine: Register, given: Any) -> None:
    web = machine()
    path, body = web.item("/srv")
    refused = vault.client.refused("PUT", path, {"properties": body["properties"] | {"sourcePath": given}}, status=400)
    assert refused.body["error"]["target"] == "properties.sourcePath"
    assert absolute(r"C:\Users", elsewhere=False) is None


def test_items_of_machines_that_are_not_there(vault: Vault, machine: Register) -> None:
    web = machine()
    other = Machine(vault, "other", web.id)
    path, body = other.item("/srv")
    assert "keepstone agent register" in vault.client.refused("PUT", path, body, status=400).message
    vault.client.arm("GET", other.path, status=404)
    web.protect("/one")
    vault.client.arm("DELETE", f"{vault.path}/registeredIdentities/web", status=204)
    path, body = web.item("/two")
    assert "'web' has no agent" in vault.client.refused("PUT", path, body, status=409).message


# Disks


def test_a_disk_of_a_machine(vault: Vault, machine: Register, specs: Specs) -> None:
    web = machine()
    item = web.protect("/dev/vg0/data", sourceType="DiskImage")
    answered = vault.client.ask("GET", item)
    assert (answered.body["properties"]["sourceType"], answered.body["properties"]["workloadType"]) == (
        "DiskImage",
        "DiskImage",
    )
    allow = [f"unknown at $.properties.{name}" for name in (
        "sourceType", "sourcePath", "protectionStatus", "softDeleteRetentionPeriodInDays")]  # fmt: skip
    allow.append("enum at $.properties.workloadType")  # an open one
    assert specs.check_response("GET", item, 200, answered.body, answered.headers, allow=allow) == []
    wanted = vault.client.arm("GET", item)["properties"]
    for more, target in (
        ({"sourceType": "FileFolder"}, "properties.sourceType"),
        ({"exclude": ["*.tmp"]}, "properties.exclude"),
        ({"sourceType": "Tape"}, "properties.sourceType"),
    ):
        body = {"properties": {"policyId": wanted["policyId"], **more}}
        assert vault.client.refused("PUT", item, body, status=400).body["error"]["target"] == target
    vault.client.arm("PUT", item, {"properties": {"policyId": wanted["policyId"], "exclude": []}}, status=202)
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)
    assert web.claim() is not None


def test_a_disk_image_of_the_services_machine(vault: Vault, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(os.urandom(1 << 20) + bytes(3 << 20))
    item = vault.protect(image, sourceType="DiskImage")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    assert point["properties"]["recoveryPointType"] == "CrashConsistent"
    target = tmp_path / "restored.img"
    wanted = {"objectType": "ImageRestoreRequest", "recoveryType": "AlternateLocation", "targetPath": str(target)}
    assert vault.restore(point, **wanted)["status"] == "Completed"
    assert target.read_bytes() == image.read_bytes()


# Restores


@pytest.fixture
def point(vault: Vault, tmp_path: Path) -> str:
    """Of a folder of the service's machine."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("kept")
    item = vault.protect(folder)
    vault.back_up(item)
    return str(vault.points(item)[0]["id"])


def restore(target: str, container: Any = None, **more: Any) -> dict[str, Any]:
    wanted = {"objectType": "FilesRestoreRequest", "recoveryType": "AlternateLocation", "targetPath": target}
    return {"properties": wanted | ({} if container is None else {"targetInfo": {"containerId": container}}) | more}


@exercises("restores.begin_trigger")
def test_a_restore_to_another_machine(vault: Vault, machine: Register, point: str) -> None:
    web = machine()
    for container in (web.path, "windows;WEB"):
        vault.client.arm("POST", f"{point}/restore", restore(r"D:\back\..\here", container), status=202)
        vault.work()
        claim = web.claim()
        assert claim is not None
        assert (claim.operation, claim.machine) == ("Restore", web.id)
        assert (claim.arguments["target"], claim.arguments["to"]) == (r"D:\here", "web")
        with vault.plane.queue.ending(claim, Status.COMPLETED):
            pass


def test_a_restore_from_a_machine_to_the_services_own(
    vault: Vault, machine: Register, point: str, tmp_path: Path
) -> None:
    """Of a machine that is lost: its agent is gone, its points are not."""
    target = tmp_path / "restored"
    own = machine(CONTAINER.partition(";")[2])
    vault.client.arm("POST", f"{point}/restore", restore(str(target)), status=202)
    vault.work()
    assert not target.exists()
    claim = own.claim()
    assert claim is not None
    assert "to" not in claim.arguments
    vault.client.arm("DELETE", f"{vault.path}/registeredIdentities/{CONTAINER}", status=204)
    vault.client.arm("POST", f"{point}/restore", restore(str(target), CONTAINER), status=202)
    vault.work()
    assert (target / "a.txt").read_text() == "kept"


def test_restores_that_are_refused(vault: Vault, machine: Register, point: str) -> None:
    web = machine("web")
    for body, status, text in (
        (restore("/x", "Windows;nowhere"), 404, "There is no container 'Windows;nowhere'"),
        (restore("x", web.path), 400, "name an absolute path of 'web'"),
        (restore(r"C:\x"), 400, "name an absolute path of"),
        (restore("/x", ""), 400, "has to be the id of a container"),
        (restore("/x", 7), 400, "has to be the id of a container"),
        (restore("/x", web.path, recoveryType="OriginalLocation"), 400, "has no original location"),
    ):
        refused = vault.client.refused("POST", f"{point}/restore", body, status=status)
        assert text in refused.message
    vault.client.arm("DELETE", f"{vault.path}/registeredIdentities/web", status=204)
    vault.client.refused("POST", f"{point}/restore", restore("/x", web.path), status=404)
    assert vault.plane.queue.waiting(ALL) is False


def test_a_machine_of_another_vault_is_no_target(
    vault: Vault, machine: Register, point: str, client: Client, plane: Plane
) -> None:
    """Also where the point's vault has one of its name."""
    elsewhere = machine("web", Vault(client, plane, "elsewhere"))
    here = machine("web")
    refused = vault.client.refused("POST", f"{point}/restore", restore("/x", elsewhere.path), status=400)
    assert "has to be the id of a container of vault 'vault1'" in refused.message
    assert (elsewhere.claim(), here.claim()) == (None, None)


def test_a_reader_makes_no_credentials(
    vault: Vault, client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal]
) -> None:
    reader = client_of(principal("Backup Reader", scope=vault.path))
    reader.refused("PUT", f"{vault.path}/certificates/one", new_body(reader, "one")[1], status=403)
