# SPDX-License-Identifier: Apache-2.0
"""Roles decide as Azure's do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.identity import BUILT_IN, Assignment, Role, is_allowed, is_beneath

pytestmark = pytest.mark.service

VAULTS = "Microsoft.RecoveryServices/Vaults"
ITEMS = f"{VAULTS}/backupFabrics/protectionContainers/protectedItems"
GROUP = "/subscriptions/s/resourceGroups/g"
VAULT = f"{GROUP}/providers/Microsoft.RecoveryServices/vaults/v"
NAMES = {role.name: role for role in BUILT_IN.values()}


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        (f"{VAULTS}/read", "Owner, Contributor, Reader, Backup Contributor, Backup Operator, Backup Reader"),
        (f"{VAULTS}/write", "Owner, Contributor, Backup Contributor"),
        (f"{VAULTS}/delete", "Owner, Contributor"),
        (f"{VAULTS}/backupPolicies/write", "Owner, Contributor, Backup Contributor"),
        (f"{VAULTS}/backupPolicies/delete", "Owner, Contributor, Backup Contributor"),
        (f"{ITEMS}/backup/action", "Owner, Contributor, Backup Contributor, Backup Operator"),
        (f"{ITEMS}/recoveryPoints/restore/action", "Owner, Contributor, Backup Contributor, Backup Operator"),
        (f"{ITEMS}/write", "Owner, Contributor, Backup Contributor, Backup Operator"),
        (f"{ITEMS}/delete", "Owner, Contributor, Backup Contributor"),
        (f"{VAULTS}/backupJobs/cancel/action", "Owner, Contributor, Backup Contributor, Backup Operator"),
        (f"{VAULTS}/backupconfig/write", "Owner, Contributor, Backup Contributor"),
        ("Microsoft.Authorization/roleAssignments/write", "Owner"),
        ("Microsoft.Authorization/roleAssignments/read",
         "Owner, Contributor, Reader, Backup Contributor, Backup Operator, Backup Reader"),
        ("Microsoft.Resources/subscriptions/resourceGroups/delete", "Owner, Contributor"),
    ],
)  # fmt: skip
def test_what_the_built_in_roles_allow(action: str, allowed: str) -> None:
    assert {name for name, role in NAMES.items() if role.allows(action)} == set(allowed.split(", "))


@given(st.sampled_from(sorted(NAMES)), st.sampled_from([f"{VAULTS}/read", f"{ITEMS}/delete", "a/b"]))
def test_case_does_not_count(name: str, action: str) -> None:
    role = NAMES[name]

    assert role.allows(action) == role.allows(action.upper()) == role.allows(action.lower())


def test_what_one_role_does_not_allow_another_may() -> None:
    assignments = [Assignment("p", NAMES["Contributor"], GROUP), Assignment("p", NAMES["Owner"], VAULT)]
    action = "Microsoft.Authorization/roleAssignments/write"

    assert is_allowed(assignments, ["p"], action, VAULT)
    assert not is_allowed(assignments, ["p"], action, GROUP)
    assert not is_allowed(assignments, ["q"], action, VAULT)


def test_a_group_that_somebody_is_in_counts() -> None:
    assignments = [Assignment("group", NAMES["Backup Reader"], "/")]

    assert is_allowed(assignments, ["somebody", "group"], f"{VAULTS}/read", VAULT)


@pytest.mark.parametrize(
    ("path", "scope", "beneath"),
    [
        (VAULT, GROUP, True),
        (VAULT, VAULT, True),
        (VAULT.upper(), f"{GROUP}/", True),
        (VAULT, "/", True),
        (GROUP, VAULT, False),
        ("/subscriptions/s/resourceGroups/g2", GROUP, False),
        (f"{VAULT}2", VAULT, False),
    ],
)
def test_beneath(path: str, scope: str, beneath: bool) -> None:
    assert is_beneath(path, scope) == beneath


@pytest.mark.parametrize(
    ("pattern", "action", "allowed"),
    [
        ("*", "anything/at/all", True),
        ("*/read", "a/b/c/read", True),
        ("*/read", "a/b/readx", False),
        ("a/*/read", "a/b/c/read", True),
        ("a/*/read", "a/read", False),
        ("a.b/c", "axb/c", False),
        ("a/b", "a/b/c", False),
        ("a/b", "a/b\n", False),
    ],
)
def test_patterns(pattern: str, action: str, allowed: bool) -> None:
    assert Role("i", "n", "d", (pattern,)).allows(action) == allowed
