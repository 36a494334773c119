# SPDX-License-Identifier: Apache-2.0
"""The whole table of operations: every one of Azure's is there, answers what its clients take or an error that says
why, and is answered to those alone whom Azure would answer."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from keepstone.arm.actions import action_of
from keepstone.arm.operations import OPERATIONS
from keepstone.arm.service import LARGEST
from keepstone.arm.table import VAULT, Operation
from keepstone.control.plane import Plane
from keepstone.control.sources import item_name
from keepstone.control.work import handlers
from keepstone.identity import BUILT_IN, Assignment, Principal, Role, is_allowed, new_credentials
from keepstone.jobs import BACKUP, Worker
from tests.contract.arm.specs import Specs, location

from .azure import AZURE
from .client import Answered, Client
from .exercised import exercises

pytestmark = pytest.mark.service

ACCEPTED = {(one.verb, one.template): one.accepted for one in AZURE}
NAMED = {operation.name: operation for operation in OPERATIONS}
ARM = [one for one in OPERATIONS if one.template.startswith(("/subscriptions", "/providers", "/tenants"))]
CONTAINER = f"Windows;{socket.gethostname()}"
SUPPORTED = (400, "UserErrorNotSupported")
MISSING = (404, "ResourceNotFound")


def _id(operation: Operation) -> str:
    return operation.name


class Scene:
    """A vault with an item, a point, a job that waits and an operation, and what operations may remove: another item,
    an empty vault, deleted ones. `names`: what stands for each variable of a path."""

    def __init__(self, client: Client, plane: Plane, group: str, folder: Path) -> None:
        self.client, self.plane, self.folder = client, plane, folder
        client.group(group)
        self.vault = client.vault(group, "vault1")
        client.vault(group, "empty")
        for name in ("back", "gone"):
            self.ended = self.taken_on("DELETE", client.vault(group, name), None)
        self.protect(folder.parent / "other")
        item = self.protect(folder)
        self.taken_on("POST", f"{item}/backup", self.body("backups.trigger"))
        worker = Worker(plane.queue, {BACKUP: handlers(plane)[BACKUP]}, plane.env, "test")  # restores go on waiting
        assert worker.run_one()
        (point,) = client.arm("GET", f"{item}/recoveryPoints")["value"]
        operation = self.taken_on("POST", f"{point['id']}/restore", self.body("restores.begin_trigger"))
        extended = self.body("vault_extended_info.update")
        client.arm("PUT", f"{self.vault}/extendedInformation/vaultExtendedInfo", extended)
        status = client.arm("GET", f"{self.vault}/backupOperations/{operation}")
        self.names = {
            "subscription": plane.place.subscription,
            "group": group,
            "vault": "vault1",
            "fabric": "Azure",
            "container": CONTAINER,
            "item": item_name(str(folder)),
            "point": point["name"],
            "policy": "DefaultPolicy",
            "job": status["properties"]["jobId"],
            "operation": operation,
            "location": plane.place.location,
            "namespace": "Microsoft.RecoveryServices",
        }

    def protect(self, folder: Path) -> str:
        """Protect a folder; its item."""
        folder.mkdir()
        (folder / "a.txt").write_text("kept")
        path = (
            f"{self.vault}/backupFabrics/Azure/protectionContainers/{CONTAINER}/protectedItems/{item_name(str(folder))}"
        )
        body = self.body("protected_items.begin_create_or_update")
        body["properties"]["sourcePath"] = str(folder)
        self.taken_on("PUT", path, body)
        return path

    def taken_on(self, verb: str, path: str, body: Any) -> str:
        """The operation of a request that was answered 202."""
        answered = self.client.ask(verb, path, body)
        assert answered.status == 202, answered
        return str(answered.headers["azure-asyncoperation"].partition("?")[0].rpartition("/")[2])

    def path(self, operation: Operation, **names: str) -> str:
        """The path of an operation here."""
        match operation.name:
            case "deleted_vaults.begin_undelete":
                over = {"vault": "back"}
            case "deleted_vaults.get":
                over = {"vault": "gone"}
            case "deleted_vaults.get_operation_status":
                over = {"vault": "gone", "operation": self.ended}
            case "vaults.begin_delete":
                over = {"vault": "empty"}
            case "protected_items.delete":
                over = {"item": item_name(str(self.folder.parent / "other"))}
            case "protection_policies.begin_delete":
                over = {"policy": "HourlyLogBackup"}
            case "resource_groups.begin_delete":
                over = {"group": "spare"}
            case _:
                over = {}
        return fill(operation, {**self.names, **over, **names})

    def body(self, name: str) -> Any:
        """A plausible body for an operation."""
        match name:
            case "vaults.begin_create_or_update" | "resource_groups.create_or_update":
                return {"location": self.plane.place.location, "tags": {"a": "b"}}
            case "vaults.begin_update" | "resource_groups.update":
                return {"tags": {"c": "d"}}
            case "deleted_vaults.begin_undelete":
                return {"properties": {"recoveryResourceGroupId": self.vault.partition("/providers/")[0]}}
            case "protection_policies.create_or_update":
                return self.client.arm("GET", f"{self.vault}/backupPolicies/DefaultPolicy")
            case "protected_items.begin_create_or_update":
                about = {"protectedItemType": "MabFileFolderProtectedItem", "sourcePath": str(self.folder)}
                return {"properties": {**about, "policyId": f"{self.vault}/backupPolicies/FilesPolicy"}}
            case "protection_containers.begin_register":
                return {"properties": {"containerType": "Windows", "backupManagementType": "MAB"}}
            case "backups.trigger":
                return {"properties": {"objectType": "BackupRequest"}}
            case "item_level_recovery_connections.provision":
                return {"properties": {"objectType": "IaasVMILRRegistrationRequest"}}
            case "item_level_recovery_connections.list_instant_item_recovery_operation_result":
                return {"provisionInstantItemRecoveryOperationId": "nothing"}
            case "restores.begin_trigger":
                about = {"objectType": "FilesRestoreRequest", "recoveryType": "AlternateLocation"}
                return {"properties": {**about, "targetPath": str(self.folder.parent / "restored")}}
            case "vault_extended_info.create_or_update" | "vault_extended_info.update":
                return {"properties": {"algorithm": "None"}}
            case "recovery_services.check_name_availability":
                return {"type": "Microsoft.RecoveryServices/Vaults", "name": "another"}
            case "recovery_services.capabilities":
                zones = [{"subResource": "AzureBackup"}]
                return {"type": "Microsoft.RecoveryServices/Vaults", "properties": {"dnsZones": zones}}
            case "vault_certificates.create":
                made = x509.load_pem_x509_certificate(new_credentials(self.plane.env, "machine", 2).certificate)
                data = base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()
                return {"properties": {"authType": "AAD", "certificate": data}}
            case "backup_status.get":
                return {"resourceType": "VM", "resourceId": f"{self.vault}/no/machine"}
            case "feature_support.validate":
                return {"featureType": "AzureVMResourceBackup", "vmSize": "Basic_A0", "vmSku": "Premium"}
            case "protection_intent.validate":
                return {"resourceType": "VM", "resourceId": f"{self.vault}/no/machine", "vaultId": self.vault}
        return {} if NAMED[name].verb in ("PUT", "PATCH", "POST") else None


def fill(operation: Operation, names: dict[str, str]) -> str:
    """The path of an operation with these names."""
    return re.sub(r"\{(\w+)\}", lambda found: quote(names.get(found[1], "some"), safe=";"), operation.template)


@pytest.fixture(scope="module")
def scene(client: Client, plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The one that operations look at."""
    return Scene(client, plane, "shared", tmp_path_factory.mktemp("scene") / "data")


@pytest.fixture(scope="module")
def specs() -> Specs:
    """Microsoft's documents. Without them a test that wants them is skipped."""
    if not location().is_dir():
        pytest.skip(f"Microsoft's API documents are not at {location()}: set KEEPSTONE_SPECS to their folder")
    return Specs.load()


# --- what there is


def test_there_are_azures_120_operations() -> None:
    assert len(AZURE) == 120


@pytest.mark.parametrize("route", sorted(ACCEPTED), ids=" ".join)
def test_every_operation_of_azure_has_a_route(route: tuple[str, str]) -> None:
    assert route in {(operation.verb, operation.template) for operation in OPERATIONS}


def test_an_operation_has_a_name_of_its_own() -> None:
    names = [operation.name for operation in OPERATIONS if (operation.verb, operation.template) in ACCEPTED]
    assert sorted(names) == sorted(set(names))


# What Azure asks for something else than its path says.
AS_OTHERS = {
    # whoever may ask for the script may have it: the roles that Azure defined before do not name this
    "item_level_recovery_connections.list_instant_item_recovery_operation_result",
}
ELSEWHERE = {
    "client.list",  # everybody may know which actions there are
    "client.get_operation_status",
    "client.get_operation_result",
    "deleted_vaults.get_operation_status",
    "protection_container_operation_statuses.get",
    "export_jobs_operation_results.get",
}


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if (one.verb, one.template) in ACCEPTED], ids=_id)
def test_an_action_is_named_after_its_path(operation: Operation) -> None:
    if operation.name in ELSEWHERE or operation.name in AS_OTHERS:
        assert operation.action.startswith(("Microsoft.RecoveryServices/", "*/read"))
    else:
        assert operation.action == action_of(operation.verb, operation.template)


def test_a_test_does_what_it_says(client: Client) -> None:
    @exercises("subscriptions.list")
    def lists(path: str) -> None:
        client.arm("GET", path)

    lists("/subscriptions")
    with pytest.raises(AssertionError, match=r"does not exercise subscriptions\.list"):
        lists("/tenants")
    with pytest.raises(LookupError, match="nothing"):
        exercises("nothing.list")


# --- whom it answers

NOWHERE = {"group": "nowhere", "vault": "nowhere", "fabric": "Azure"}


@pytest.fixture(scope="module")
def somebody(principal: Callable[..., Principal], plane: Plane) -> dict[str, Principal]:
    """Somebody for each of Azure's roles, at the subscription."""
    scope = f"/subscriptions/{plane.place.subscription}"
    return {role.name: principal(role.name, scope=scope) for role in BUILT_IN.values()}


@pytest.mark.parametrize("role", BUILT_IN.values(), ids=lambda role: role.name)
def test_every_operation_for_every_role(
    role: Role,
    somebody: dict[str, Principal],
    client_of: Callable[[Principal | None], Client],
    plane: Plane,
) -> None:
    """At a group and a vault that are not there: what is allowed finds nothing, what is not is not even looked for."""
    who = somebody[role.name]
    client, scope = client_of(who), f"/subscriptions/{plane.place.subscription}"
    held = [Assignment(who.id, role, scope)]
    for operation in ARM:
        path = fill(operation, {**NOWHERE, "subscription": plane.place.subscription, "location": "onprem1"})
        answered = client.ask(operation.verb, path)
        refused = not operation.filtered and not is_allowed(held, [who.id], operation.action, path)

        sound(answered)
        if refused:
            assert answered.status == 403, f"{role.name} {operation.name} {answered}"
            assert answered.body is None or answered.code == "AuthorizationFailed"
            assert answered.body is None or operation.action in answered.message
        else:
            assert answered.status not in (401, 403), f"{role.name} {operation.name} {answered}"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        # as Microsoft Learn has it, "Manage Azure Backup with Azure role-based access control"
        ("vaults.begin_create_or_update", {"Owner", "Contributor", "Backup Contributor"}),
        ("vaults.begin_delete", {"Owner", "Contributor"}),
        ("protection_policies.create_or_update", {"Owner", "Contributor", "Backup Contributor"}),
        ("protection_policies.begin_delete", {"Owner", "Contributor", "Backup Contributor"}),
        ("protected_items.begin_create_or_update", {"Owner", "Contributor", "Backup Contributor", "Backup Operator"}),
        ("protected_items.delete", {"Owner", "Contributor", "Backup Contributor"}),
        ("backups.trigger", {"Owner", "Contributor", "Backup Contributor", "Backup Operator"}),
        ("restores.begin_trigger", {"Owner", "Contributor", "Backup Contributor", "Backup Operator"}),
        ("job_cancellations.trigger", {"Owner", "Contributor", "Backup Contributor", "Backup Operator"}),
        ("backup_resource_vault_configs.update", {"Owner", "Contributor", "Backup Contributor"}),
        ("backup_resource_vault_configs.get",
         {"Owner", "Contributor", "Reader", "Backup Contributor", "Backup Reader"}),
        ("protection_containers.unregister", {"Owner", "Contributor", "Backup Contributor"}),
        ("registered_identities.delete", {"Owner", "Contributor", "Backup Contributor"}),
        ("backup_status.get", {"Owner", "Contributor", "Backup Contributor", "Backup Operator", "Backup Reader"}),
        ("recovery_points.list", {role.name for role in BUILT_IN.values()}),
        ("vaults.get", {role.name for role in BUILT_IN.values()}),
        ("security_pins.get", {"Owner", "Contributor", "Backup Contributor"}),
        ("vault_certificates.create", {"Owner", "Contributor", "Backup Contributor", "Backup Operator"}),
        # who has both files can read everything
        *((f"keepstone.{name}", {"Owner"}) for name in ("recovery_kits_download", "recovery_key_download",
                                                        "recovery_kits_confirm")),
        ("keepstone.blast_radius_of_item", {role.name for role in BUILT_IN.values()}),
        # Keepstone's own: whoever may restore may look, and whoever may mount in Azure may mount
        *(
            (f"keepstone.{name}", {"Owner", "Contributor", "Backup Contributor", "Backup Operator"})
            for name in (
                "entries_list", "entries_search", "entries_find", "entries_diff", "content_get", "mount", "unmount"
            )
        ),
    ],
)  # fmt: skip
def test_who_may(name: str, allowed: set[str]) -> None:
    assert {role.name for role in BUILT_IN.values() if role.allows(NAMED[name].action)} == allowed


def test_nobody_is_told_anything(client_of: Callable[[Principal | None], Client], plane: Plane) -> None:
    nobody = client_of(None)
    for operation in ARM:
        answered = nobody.ask(operation.verb, fill(operation, {**NOWHERE, "subscription": plane.place.subscription}))

        assert answered.status == 401, f"{operation.name} {answered}"
        challenge = f'Bearer authorization_uri="https://localhost:8443/{plane.place.tenant}", error="invalid_token"'
        assert answered.headers["www-authenticate"] == challenge
        assert operation.verb == "HEAD" or answered.code == "AuthenticationFailed"


def test_somebody_without_a_role(
    client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal], plane: Plane
) -> None:
    client = client_of(principal())
    for operation in ARM:
        path = fill(operation, {**NOWHERE, "subscription": plane.place.subscription})
        answered = client.ask(operation.verb, path)

        sound(answered)
        assert operation.filtered or answered.status == 403, f"{operation.name} {answered}"


def test_only_what_a_login_needs_is_open_to_all() -> None:
    open_to_all = {operation.name for operation in OPERATIONS if not operation.action}
    others = {name for name in open_to_all if not name.startswith(("login.", "metadata."))}
    assert others == {"keepstone.openapi"}


@exercises("keepstone.openapi")
def test_every_operation_says_what_it_does(client: Client) -> None:
    described = client.arm("GET", "/openapi.json")["paths"]
    said = {(path, verb): about["summary"] for path, verbs in described.items() for verb, about in verbs.items()}
    assert len(said) == len(OPERATIONS)
    machine = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"
    assert said[machine, "get"] == "As it was put there. `NotFound`."
    for place, summary in said.items():
        assert summary.endswith("."), place
        assert "\n" not in summary, place
        assert not re.search(r"partial|\(call\b|lambda", summary), (place, summary)


# --- what it answers

REFUSED = {
    "backup_engines.get": MISSING,
    "protection_intent.get": MISSING,
    "resource_guard_proxy.get": MISSING,
    "private_link_resources.get": MISSING,
    "private_endpoint_connection.get": MISSING,
    "bms_prepare_data_move_operation_result.get": MISSING,
    "validate_operation_results.get": MISSING,
    "get_tiering_cost_operation_result.get": MISSING,
    "export_jobs_operation_results.get": MISSING,
    "protection_containers.unregister": (400, "ServiceResourceNotEmptyWithBackendMessage"),
    "registered_identities.delete": (400, "ServiceResourceNotEmptyWithBackendMessage"),
    # the item has files
    "item_level_recovery_connections.provision": (400, "UserErrorNotSupported"),
    "item_level_recovery_connections.list_instant_item_recovery_operation_result": (404, "ResourceNotFound"),
}
"""What has to be answered otherwise than with success. All that comes later is refused as unsupported."""
WIDER = {
    "job_details.get",
    "vaults.get",
    "vaults.list_by_resource_group",
    "vaults.list_by_subscription_id",
    "vaults.begin_create_or_update",
    "vaults.begin_update",
    "client.get_operation_result",
    "backup_policies.list",
    "protection_containers.begin_register",
    "backup_protected_items.list",
    "protected_items.get",
    "recovery_points.list",
    "recovery_points.get",
}
"""Whose answers have properties that the documents of 2024-04-01 do not know yet, or that are Keepstone's own."""


def wanted(operation: Operation) -> tuple[int, str] | None:
    """The status and code of an error; None where it has to succeed."""
    return REFUSED.get(operation.name, None if operation.since else SUPPORTED)


def sound(answered: Answered) -> None:
    """An answer of an operation, not of the router, and not of a fault."""
    assert answered.status != 405, answered
    assert answered.status < 500, answered
    assert answered.headers["x-ms-request-id"]
    if answered.status >= 400 and answered.body is not None:
        assert answered.code not in ("InvalidResourceType", "MethodNotAllowed", "InternalServerError"), answered
        assert answered.message
        assert answered.headers["x-ms-error-code"] == answered.code


@pytest.mark.parametrize("operation", ARM, ids=_id)
def test_every_operation_answers(operation: Operation, scene: Scene) -> None:
    path = scene.path(operation)
    answered = scene.client.ask(operation.verb, path, scene.body(operation.name))

    sound(answered)
    accepted = ACCEPTED.get((operation.verb, operation.template))
    if accepted is None:
        return
    refused = wanted(operation)
    if refused is not None:
        assert (answered.status, answered.code) == refused
    else:
        assert answered.status in accepted, answered
    if answered.status == 202:
        assert {"azure-asyncoperation", "location"} <= set(answered.headers)
        assert answered.headers["retry-after"] == "1"


ONCE = {"backups.trigger", "job_cancellations.trigger"}
PUBLISHED = [
    one
    for one in ARM
    if (one.verb, one.template) in ACCEPTED
    and one.verb != "DELETE"
    and wanted(one) is None
    and "/deletedVaults" not in one.template  # of a later version
    and one.name not in ONCE
]


@pytest.mark.parametrize("operation", PUBLISHED, ids=_id)
def test_an_answer_is_as_published(operation: Operation, scene: Scene, specs: Specs) -> None:
    path = scene.path(operation)
    answered = scene.client.ask(operation.verb, path, scene.body(operation.name))

    allow = ["unknown"] if operation.name in WIDER else []
    about = operation.verb, path, answered.status, answered.body, answered.headers
    assert answered.status < 300
    assert specs.check_response(*about, allow=allow) == []


@pytest.mark.parametrize("operation", [one for one in ARM if one.template.startswith(VAULT)], ids=_id)
def test_a_vault_that_is_not_there(operation: Operation, scene: Scene) -> None:
    if operation.name in ("vaults.begin_create_or_update", "vaults.begin_delete") or operation.name in ELSEWHERE:
        return  # it is made; it is gone already; what was deleted has operations
    answered = scene.client.ask(operation.verb, scene.path(operation, vault="nowhere"), scene.body(operation.name))

    assert answered.status == 404, answered
    if operation.verb != "HEAD":
        assert answered.code == "ResourceNotFound"
        where = "'Microsoft.RecoveryServices/vaults/nowhere' under resource group 'shared'"
        assert f"The Resource {where} was not found." in answered.message


@pytest.mark.parametrize(
    "operation", [one for one in ARM if "/providers/Microsoft.RecoveryServices/" in one.template], ids=_id
)
def test_a_subscription_that_is_not_this_one(operation: Operation, scene: Scene) -> None:
    if operation.name in ELSEWHERE:
        return
    path = scene.path(operation, subscription="00000000-0000-0000-0000-000000000000")
    answered = scene.client.ask(operation.verb, path, scene.body(operation.name))

    sound(answered)
    assert answered.status == 404
    assert answered.body is None or answered.code in ("ResourceNotFound", "SubscriptionNotFound")


# --- requests that are none


def test_every_operation_wants_a_version(scene: Scene) -> None:
    for operation in ARM:
        path = fill(operation, {**NOWHERE, "subscription": scene.plane.place.subscription})
        answered = scene.client.ask(operation.verb, path, version=None)

        assert answered.status == 400, f"{operation.name} {answered}"
        assert operation.verb == "HEAD" or answered.code == "MissingApiVersionParameter"


@pytest.mark.parametrize("version", ["", "latest", "2024-4-1", "2024-04-01-", "2024-04-01preview", "2024-04-01 ", "1"])
def test_a_version_that_is_none(scene: Scene, version: str) -> None:
    answered = scene.client.refused("GET", scene.vault, status=400, version=version)
    assert answered.code == "InvalidApiVersionParameter"


@pytest.mark.parametrize("version", ["2015-01-01", "2021-11-15", "2026-11-01", "2024-04-01-preview", "2031-12-31"])
def test_every_version_that_is_one_will_do(scene: Scene, version: str) -> None:
    scene.client.arm("GET", scene.vault, version=version)


WRITING = [one for one in ARM if one.verb in ("PUT", "PATCH", "POST")]


@pytest.mark.parametrize("content", [b"{", b"{'a': 1}", b"\xff\xfe", b"[" * 100_000, b'{"a": 1} trailing'])
def test_a_body_that_is_no_json(scene: Scene, content: bytes) -> None:
    for operation in WRITING[::7]:
        headers = {"content-type": "application/json"}
        answered = scene.client.refused(
            operation.verb, scene.path(operation), status=400, content=content, headers=headers
        )
        assert answered.code == "InvalidRequestContent"


@pytest.mark.parametrize("body", [[], "text", 7, {"properties": []}, {"properties": "text"}, {"properties": 7}])
@pytest.mark.parametrize("operation", [one for one in WRITING if one.name != "job_cancellations.trigger"], ids=_id)
def test_a_body_of_another_kind(operation: Operation, body: Any, scene: Scene) -> None:
    """Which no operation falls over; the one that is left out looks at no body, and has one job to cancel."""
    answered = scene.client.ask(operation.verb, scene.path(operation), body)
    sound(answered)


def test_a_body_that_is_too_large(scene: Scene) -> None:
    body = {"tags": {"a": "b" * LARGEST}}
    answered = scene.client.refused("PATCH", scene.vault, body, status=413)
    assert answered.code == "RequestContentTooLarge"
    assert scene.client.arm("GET", scene.vault)["tags"].get("a") != body["tags"]["a"]


def test_a_body_that_just_fits(scene: Scene) -> None:
    body = {"ignored": "b" * (LARGEST - 100)}
    scene.client.arm("PATCH", scene.vault, body)


@pytest.mark.parametrize(
    ("verb", "rest"),
    [("GET", "/nothing"), ("PUT", "/backupJobs"), ("DELETE", "/backupconfig/vaultconfig")],
)
def test_what_is_no_operation_is_told_as_such(verb: str, rest: str, scene: Scene) -> None:
    answered = scene.client.ask(verb, f"{scene.vault}{rest}")
    assert answered.status in (404, 405)
    assert answered.code in ("InvalidResourceType", "MethodNotAllowed")
