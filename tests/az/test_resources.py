# SPDX-License-Identifier: Apache-2.0
"""What stands around a vault: resources of other types, and locks."""

from __future__ import annotations

import pytest

from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.service

VAULTS = "Microsoft.RecoveryServices/vaults"
MACHINES = "Microsoft.Compute/virtualMachines"


def test_a_resource_lives(az: Az, server: Server) -> None:
    az(f"group create -n things -l {LOCATION}")
    az(f"backup vault create -g things -n beside -l {LOCATION}")

    made = az(f"resource create -g things -n vm-1 --resource-type {MACHINES} --properties", '{"osProfile": {"a": 1}}')

    assert made["id"] == f"{server.group('things')}/providers/{MACHINES}/vm-1"
    assert made["properties"]["osProfile"] == {"a": 1}
    assert az(f"resource show --ids {made['id']}") == made
    assert [(one["name"], one["type"]) for one in az("resource list -g things")] == [
        ("vm-1", MACHINES),
        ("beside", VAULTS),
    ]
    assert "beside" in [one["name"] for one in az(f"resource list --resource-type {VAULTS}")]
    assert "vm-1" in az.table("resource list")
    assert [one["name"] for one in az("vm list -g things")] == ["vm-1"]

    az(f"resource delete --ids {made['id']}")

    assert [one["name"] for one in az("resource list -g things")] == ["beside"]
    assert "ResourceNotFound" in az.refused("vm show -g things -n vm-1")


def test_a_provider_is_registered(az: Az) -> None:
    provider = az("provider show -n microsoft.recoveryservices")

    assert provider["registrationState"] == "Registered"
    assert LOCATION in next(kind["locations"] for kind in provider["resourceTypes"] if kind["resourceType"] == "vaults")


def test_a_lock_holds_whoever_asks(az: Az, server: Server) -> None:
    az(f"group create -n locked -l {LOCATION}")
    az(f"backup vault create -g locked -n locked -l {LOCATION}")
    at = f"-g locked --resource locked --resource-type {VAULTS}"

    made = az(f"lock create -n keep --lock-type CanNotDelete --notes 'for the auditors' {at}")

    assert made["id"] == f"{server.vault('locked', 'locked')}/providers/Microsoft.Authorization/locks/keep"
    assert [(one["name"], one["level"], one["notes"]) for one in az(f"lock list {at}")] == [
        ("keep", "CanNotDelete", "for the auditors")
    ]
    assert "keep" in az.table(f"lock list {at}")
    assert "Please remove the lock and try again" in az.refused("backup vault delete -g locked -n locked --yes")
    assert "Please remove the lock and try again" in az.refused("group delete -n locked --yes")
    assert az("backup vault update -g locked -n locked --tags a=b")["tags"] == {"a": "b"}

    az(f"lock delete -n keep {at}")

    az("lock create -n still --lock-type ReadOnly -g locked")
    assert "Please remove the lock" in az.refused("backup vault update -g locked -n locked --tags a=c")
    az("lock delete -n still -g locked")
    az("backup vault delete -g locked -n locked --yes")
