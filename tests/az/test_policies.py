# SPDX-License-Identifier: Apache-2.0
"""Policies: those that a new vault has, and those that are made out of them."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from keepstone.arm.service import Service
from keepstone.control import people
from keepstone.control.installation import Installation
from keepstone.identity import Principal
from keepstone.portal.actions.action import Plan
from keepstone.portal.actions.policies import save
from keepstone.portal.api import Client
from keepstone.portal.policies import form
from keepstone.portal.visit import Visit
from keepstone.vault import read_policy

from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def vault(az: Az) -> str:
    """How commands name the vault of this module."""
    az(f"group create -n policies -l {LOCATION}")
    az(f"backup vault create -g policies -n policies -l {LOCATION}")
    return "-g policies -v policies"


def test_a_new_vault_has_policies(az: Az, vault: str) -> None:
    listed = az(f"backup policy list {vault}")

    assert {"DefaultPolicy", "EnhancedPolicy", "HourlyLogBackup"} <= {policy["name"] for policy in listed}
    machines = az(f"backup policy list {vault} --backup-management-type AzureIaasVM")
    assert {policy["name"] for policy in machines} == {"DefaultPolicy", "EnhancedPolicy"}
    table = az.table(f"backup policy list {vault}")
    assert "DefaultPolicy" in table
    assert "AzureIaasVM" in table


def test_a_policy_lives(az: Az, server: Server, vault: str) -> None:
    kind = "--backup-management-type AzureIaasVM"
    policy = az(f"backup policy get-default-for-vm {vault}")
    assert policy["properties"]["protectedItemsCount"] == 0
    policy["properties"]["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = 45

    made = az(f"backup policy create {vault} -n Longer {kind} --policy", json.dumps(policy))

    assert made["id"] == f"{server.vault('policies', 'policies')}/backupPolicies/Longer"
    shown = az(f"backup policy show {vault} -n longer")
    assert shown["properties"]["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] == 45

    weekly = {**shown["properties"]["retentionPolicy"], "weeklySchedule": {
        "daysOfTheWeek": ["Sunday"],
        "retentionTimes": shown["properties"]["retentionPolicy"]["dailySchedule"]["retentionTimes"],
        "retentionDuration": {"count": 12, "durationType": "Weeks"},
    }}  # fmt: skip
    shown["properties"]["retentionPolicy"] = weekly
    changed = az(f"backup policy set {vault} -n Longer {kind} --policy", json.dumps(shown))

    assert changed["properties"]["retentionPolicy"]["weeklySchedule"]["retentionDuration"]["count"] == 12
    assert changed["properties"]["retentionPolicy"]["weeklySchedule"]["daysOfTheWeek"] == ["Sunday"]
    assert az(f"backup policy list-associated-items {vault} -n Longer") == []

    az(f"backup policy delete {vault} -n Longer")

    assert "There is no policy 'Longer'" in az.refused(f"backup policy show {vault} -n Longer")


def test_what_the_portal_shows_as_a_command_does_the_same(az: Az, server: Server, vault: str) -> None:
    """Its builder's equivalents make and change what its requests would."""
    with server.plane.change() as change:
        made = people.add(change, "app", "portal", "portal")
        people.assign(change, "/", made.id, "Owner")
    service = Service(server.plane, Installation(server.plane.env, server.root).issuer(server.tenant))
    client = Client(service, Principal(made.id, made.login, "app", made.name), server.url)
    home = server.vault("policies", "policies")

    def plan(identity: str, there: Any, **given: list[str]) -> Plan:
        values = {"id": [identity], **form.filled(there), **given}
        visit = Visit(plane=server.plane, client=client, path="", query=values, form={})
        return save(visit)

    def stored(path: str) -> Any:
        return read_policy("p", client.get(path)["properties"])

    for kind in ("V1", "V2", "AzureWorkload"):
        name, extra = f"Portal-{kind}", {"weekly": ["on"], "monthly": ["on"], "yearly": ["on"], "log": ["30"]}
        first = plan(home, None, name=[name], kind=[kind], **extra)
        assert first.request.body is not None
        az(shlex.join(first.az[0]))
        assert stored(first.request.path) == read_policy("p", first.request.body["properties"])
        there = client.get(first.request.path)["properties"]
        changed = plan(first.request.path, there, times=["05:15"])
        assert changed.request.body is not None
        az(shlex.join(changed.az[0]))
        assert stored(first.request.path) == read_policy("p", changed.request.body["properties"])


def test_what_is_wrong_with_a_policy_is_said(az: Az, vault: str) -> None:
    policy = az(f"backup policy show {vault} -n DefaultPolicy")
    policy["properties"]["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = 0
    create = f"backup policy create {vault} --backup-management-type AzureIaasVM --policy"

    said = az.refused(create, json.dumps(policy), "-n", "Never")

    assert "retentionPolicy.dailySchedule.retentionDuration.count" in said
    policy["properties"]["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = 1
    assert "no name for a policy" in az.refused(create, json.dumps(policy), "-n", "a b")
