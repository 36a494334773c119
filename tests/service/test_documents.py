# SPDX-License-Identifier: Apache-2.0
"""What the service answers, held against Microsoft's own description of the API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from keepstone.control.plane import Plane
from tests.contract.arm.specs import Specs

from .client import Client
from .protecting import CONTAINER, Vault

pytestmark = pytest.mark.service

# What a later version of the API has, and what Azure does not tell: sizes in bytes, and where files lie.
_MORE = (
    "securitySettings.sourceScanConfiguration",
    "costManagementSettings",
    "bcdrSecurityLevel",
    "keepstone",
    "sourcePath",
    "exclude",
    "include",
    "oneFileSystem",
    "excludeCaches",
    "softDeleteRetentionPeriodInDays",
    "timeZone",
    "protectionStatus",
)
ALLOWED = tuple(f"unknown at $.{place}{name}" for name in _MORE for place in ("properties.", "value[*].properties."))


@pytest.fixture(scope="module")
def protected(client: Client, plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> tuple[Vault, str]:
    """A vault with a folder in it that has a point."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "file").write_bytes(os.urandom(10_000))
    vault = Vault(client, plane, "documents")
    item = vault.protect(Path(folder), exclude=["*.tmp"])
    vault.back_up(item)
    return vault, item


def check(specs: Specs, client: Client, verb: str, path: str, body: Any = None, allow: tuple[str, ...] = ()) -> Any:
    answered = client.ask(verb, path, body)
    problems = specs.check_response(
        verb, path, answered.status, answered.body, answered.headers, allow=(*ALLOWED, *allow)
    )
    assert problems == [], f"{verb} {path}"
    assert answered.status < 400, answered
    return answered.body


def test_reads(specs: Specs, client: Client, protected: tuple[Vault, str]) -> None:
    vault, item = protected
    container = f"{vault.path}/backupFabrics/Azure/protectionContainers/{CONTAINER}"
    for path in (
        vault.path,
        f"{vault.group}/providers/Microsoft.RecoveryServices/vaults",
        f"{vault.path}/backupPolicies",
        *(vault.policy(name) for name in ("DefaultPolicy", "EnhancedPolicy", "HourlyLogBackup", "FilesPolicy")),
        f"{vault.path}/backupProtectionContainers",
        container,
        f"{vault.path}/backupProtectedItems",
        item,
        f"{item}/recoveryPoints",
        vault.points(item)[0]["id"],
        f"{vault.path}/backupJobs",
        f"{vault.path}/backupProtectableItems",
        f"{vault.path}/backupFabrics/Azure/protectableContainers",
    ):
        check(specs, client, "GET", path)
    for job in client.arm("GET", f"{vault.path}/backupJobs")["value"]:
        check(specs, client, "GET", job["id"])


def test_changes(specs: Specs, client: Client, protected: tuple[Vault, str]) -> None:
    vault, item = protected
    policy = client.arm("GET", vault.policy("DefaultPolicy"))
    check(specs, client, "PUT", vault.policy("Mine"), {"properties": policy["properties"]})
    check(specs, client, "DELETE", vault.policy("Mine"))
    check(specs, client, "POST", f"{vault.path}/backupFabrics/Azure/refreshContainers")
    check(specs, client, "POST", f"{item}/backup", {"properties": {"objectType": "BackupRequest"}})
    operation = client.ask("POST", f"{vault.path}/backupFabrics/Azure/refreshContainers").headers["location"]
    name = operation.partition("?")[0].rpartition("/")[2]
    check(specs, client, "GET", f"{vault.path}/backupOperations/{name}")
    check(specs, client, "GET", f"{item}/operationsStatus/{name}")
    check(specs, client, "GET", f"{item}/operationResults/{name}")
    check(specs, client, "GET", f"{vault.path}/backupFabrics/Azure/operationResults/{name}")
    vault.work()
    stop = {"protectedItemType": "MabFileFolderProtectedItem", "protectionState": "ProtectionStopped", "policyId": ""}
    check(specs, client, "PUT", item, {"properties": stop})
    container = f"{vault.path}/backupFabrics/Azure/protectionContainers/{CONTAINER}"
    registered = {"properties": {"containerType": "Windows", "backupManagementType": "MAB"}}
    check(specs, client, "PUT", container, registered, allow=("unknown at $",))  # clients need a body here
    check(specs, client, "DELETE", item)
