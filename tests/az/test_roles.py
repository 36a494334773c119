# SPDX-License-Identifier: Apache-2.0
"""Somebody with a role may do what it allows, where it was given, and is told what he may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def vault(az: Az, server: Server) -> str:
    """The id of the vault of this module."""
    az(f"group create -n roles -l {LOCATION}")
    az(f"backup vault create -g roles -n roles -l {LOCATION}")
    return server.vault("roles", "roles")


def test_a_backup_reader_only_looks(az_as: Callable[..., Az], server: Server, vault: str) -> None:
    reader = az_as("Backup Reader")

    assert "roles" in [one["name"] for one in reader("backup vault list")]
    assert reader("backup policy list -g roles -v roles")
    assert reader("backup job list -g roles -v roles") == []

    said = reader.refused(f"backup vault create -g roles -n other -l {LOCATION}")

    assert "AuthorizationFailed" in said
    assert "Microsoft.RecoveryServices/Vaults/write" in said
    assert "AuthorizationFailed" in reader.refused("backup policy delete -g roles -v roles -n DefaultPolicy")
    assert "AuthorizationFailed" in reader.refused("backup vault delete -g roles -n roles --yes")


def test_a_role_holds_where_it_was_given(az: Az, az_as: Callable[..., Az], server: Server, vault: str) -> None:
    az(f"group create -n elsewhere -l {LOCATION}")
    az(f"backup vault create -g elsewhere -n elsewhere -l {LOCATION}")
    contributor = az_as("Backup Contributor", scope=server.group("elsewhere"))

    assert [one["name"] for one in contributor("backup vault list")] == ["elsewhere"]
    assert contributor("backup policy list -g elsewhere -v elsewhere")
    assert contributor("backup vault update -g elsewhere -n elsewhere --tags a=b")["tags"] == {"a": "b"}
    assert "AuthorizationFailed" in contributor.refused("backup policy list -g roles -v roles")
    # Azure's Backup Contributor may do everything with backups but delete a vault.
    assert "AuthorizationFailed" in contributor.refused("backup vault delete -g elsewhere -n elsewhere --yes")


def test_an_owner_gives_a_role_and_takes_it_back(az: Az, az_as: Callable[..., Az], server: Server, vault: str) -> None:
    someone = server.principal("Reader", scope=server.group("roles"))
    give = f"role assignment create --assignee-object-id {someone.id} --assignee-principal-type ServicePrincipal"

    made = az(f"{give} --role 'Backup Operator' --scope {vault}")

    assert made["principalId"] == someone.id
    listed = az(f"role assignment list --scope {vault}")
    assert [(one["principalId"], one["roleDefinitionName"]) for one in listed] == [(someone.id, "Backup Operator")]
    (role,) = az("role definition list --name 'Backup Operator'")
    assert made["roleDefinitionId"] == role["id"]
    manager = az_as("Backup Contributor", scope=server.group("roles"))
    assert "AuthorizationFailed" in manager.refused(f"{give} --role Owner --scope {vault}")

    az(f"role assignment delete --ids {made['id']}")

    assert az(f"role assignment list --scope {vault}") == []
