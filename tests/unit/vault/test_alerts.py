# SPDX-License-Identifier: Apache-2.0
"""What is an alert, what turns it off, and what a change of a vault's settings means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from keepstone.vault.alerts import RULES, Alert, Category, Condition, Kind, Severity, State, Subject, changed, wanted
from keepstone.vault.properties import merged, new_properties

pytestmark = pytest.mark.service

VAULT, ITEM = UUID(int=1), UUID(int=2)
SOFT_DELETE = {"securitySettings": {"softDeleteSettings": {"softDeleteState": "Disabled"}}}
SILENT = {"monitoringSettings": {"classicAlertSettings": {"alertsForCriticalOperations": "Disabled"}}}


def immutability(state: str) -> dict[str, Any]:
    return {"securitySettings": {"immutabilitySettings": {"state": state}}}


def test_every_kind_has_a_rule_with_a_name_of_its_own_and_something_to_do() -> None:
    assert set(RULES) == set(Kind)
    names = [rule.name for rule in RULES.values()]
    assert len(set(names)) == len(names)
    assert all(rule.todo and not rule.todo.endswith(".") for rule in RULES.values())


@pytest.mark.parametrize(
    ("kind", "name", "severity"),
    [
        # azure-docs, "Azure Monitor based alerts for Azure Backup": security alerts are Sev 0, job failures Sev 1
        (Kind.DATA_DELETED, "Delete Backup Data", "Sev0"),
        (Kind.PURGE_UPCOMING, "Upcoming Purge", "Sev0"),
        (Kind.PURGE_COMPLETE, "Purge Complete", "Sev0"),
        (Kind.SOFT_DELETE_DISABLED, "Soft Delete Disabled for Vault", "Sev0"),
        (Kind.BACKUP_FAILURE, "Backup Failure", "Sev1"),
        (Kind.RESTORE_FAILURE, "Restore Failure", "Sev1"),
    ],
)
def test_azures_alerts_are_called_as_in_azure(kind: Kind, name: str, severity: str) -> None:
    assert (RULES[kind].name, str(RULES[kind].severity)) == (name, severity)


def test_severities_are_in_order() -> None:
    assert min(Severity) is Severity.CRITICAL
    assert list(Severity) == sorted(Severity)


def test_a_subject_is_told_from_every_other_one() -> None:
    subjects = [
        Subject(kind=kind, vault=vault, item=item, part=part)
        for kind in Kind
        for vault in (None, VAULT, ITEM)
        for item in (None, VAULT, ITEM)
        for part in ("", "Full", "Log")
    ]
    assert len({subject.key for subject in subjects}) == len(subjects)
    assert max(len(subject.key) for subject in subjects) <= 160


def test_each_category_has_a_switch_and_health_has_none() -> None:
    new = new_properties({})
    off = {"azureMonitorAlertSettings": {"alertsForAllJobFailures": "Disabled"}}
    no_jobs = merged(new, {"monitoringSettings": off})
    no_security = merged(new, SILENT)

    assert all(wanted(kind, new) for kind in Kind)
    for kind, rule in RULES.items():
        assert wanted(kind, no_jobs) == (rule.category is not Category.JOBS)
        assert wanted(kind, no_security) == (rule.category is not Category.SECURITY)


@pytest.mark.parametrize("properties", [{}, {"monitoringSettings": None}, {"monitoringSettings": {}}])
def test_a_vault_that_says_nothing_of_alerts_has_them_all(properties: dict[str, Any]) -> None:
    assert all(wanted(kind, properties) for kind in Kind)
    assert changed(properties, properties) == {}


@pytest.mark.parametrize(
    ("before", "after", "means"),
    [
        ({}, {}, {}),
        ({}, {"publicNetworkAccess": "Disabled"}, {}),
        ({}, SOFT_DELETE, {Kind.SOFT_DELETE_DISABLED: True}),
        (SOFT_DELETE, {}, {Kind.SOFT_DELETE_DISABLED: False}),
        (SOFT_DELETE, SOFT_DELETE, {}),
        ({}, SILENT, {Kind.ALERTS_DISABLED: True}),
        (SILENT, {}, {Kind.ALERTS_DISABLED: False}),
        ({}, immutability("Unlocked"), {Kind.IMMUTABILITY_WEAKENED: False}),
        (immutability("Unlocked"), {}, {Kind.IMMUTABILITY_WEAKENED: True}),
        (immutability("Unlocked"), immutability("Locked"), {Kind.IMMUTABILITY_WEAKENED: False}),
        ({}, SOFT_DELETE | SILENT, {Kind.SOFT_DELETE_DISABLED: True, Kind.ALERTS_DISABLED: True}),
    ],
)
def test_what_a_change_means(before: dict[str, Any], after: dict[str, Any], means: dict[Kind, bool]) -> None:
    assert changed(new_properties(before), new_properties(after)) == means


def test_an_alert_lies_at_what_it_is_of() -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    alert = Alert(
        id=ITEM, vault=VAULT, item=None, kind=Kind.VAULT_DELETED, resource="/subscriptions/s/x", entity="v",
        message="m", state=State.NEW, condition=Condition.FIRED, count=1, raised=now, last=now, changed=now,
    )  # fmt: skip
    assert alert.path == f"/subscriptions/s/x/providers/Microsoft.AlertsManagement/alerts/{ITEM}"
    assert alert.rule is RULES[Kind.VAULT_DELETED]
