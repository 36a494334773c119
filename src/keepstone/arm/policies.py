# SPDX-License-Identifier: Apache-2.0
"""Protection policies. Source: Microsoft.RecoveryServices, backup API 2024-04-01, ProtectionPolicies.

`whatIf` is Keepstone's own: what a policy would do to the points that there are, before it is saved.
"""

from __future__ import annotations

from typing import Any

from keepstone.arm.answers import moment, page
from keepstone.arm.containers import path as container_path
from keepstone.arm.filters import filter_of
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import etag, find
from keepstone.control import operations, policies, whatif
from keepstone.control.whatif import Fate, Foreseen, Outcome
from keepstone.vault import StoredPolicy, Vault

__all__ = ["table"]

table = Table()
_POLICIES = f"{VAULT}/backupPolicies"
_POLICY = f"{_POLICIES}/{{policy}}"
_ACTION = "Microsoft.RecoveryServices/Vaults/backupPolicies"
_KEYS = ("backupManagementType", "workloadType", "fabricName")


@table("GET", _POLICIES, "backup_policies.list", action=f"{_ACTION}/read", az=("backup policy list",))
def listing(call: Call) -> Answer:
    """By management type and workload, where they are named."""
    wanted = filter_of(call, _KEYS)
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = policies.listing(
            connection, vault, management=wanted.get("backupManagementType"), workload=wanted.get("workloadType")
        )
        counts = policies.counts(connection, vault)
    return page([document(vault, policy, counts.get(policy.id, 0)) for policy in found])


@table("GET", _POLICY, "protection_policies.get", action=f"{_ACTION}/read",
       az=("backup policy show", "backup policy get-default-for-vm"))  # fmt: skip
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        policy = policies.find(connection, vault, call.names["policy"])
        count = policies.count(connection, policy)
    return Answer(body=document(vault, policy, count))


@table("PUT", _POLICY, "protection_policies.create_or_update", action=f"{_ACTION}/write",
       az=("backup policy create", "backup policy set"))  # fmt: skip
def put(call: Call) -> Answer:
    """Done when it is answered."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        policy, _ = policies.put(change, vault, call.names["policy"], call.part("properties"))
        count = policies.count(change.connection, policy)
    return Answer(body=document(vault, policy, count))


@table("DELETE", _POLICY, "protection_policies.begin_delete", action=f"{_ACTION}/delete", az=("backup policy delete",))
def delete(call: Call) -> Answer:
    """204 where there is none."""
    with call.plane.change() as change:
        there = policies.delete(change, find(call, change.connection), call.names["policy"])
    return Answer(status=200 if there else 204)


@table("POST", f"{_POLICY}/whatIf", "protection_policies.what_if", action=f"{_ACTION}/read")
def what_if(call: Call) -> Answer:
    """What becomes of the points of its items, if the policy had the properties that are sent. Nothing is changed."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        policy = policies.find(connection, vault, call.names["policy"])
        found = whatif.foresee(connection, vault, policy, call.part("properties"), call.plane.env.utc())
    outcomes = [fate.outcome for one in found for fate in one.fates]
    properties: dict[str, Any] = {str(outcome): outcomes.count(outcome) for outcome in Outcome}
    properties["items"] = [_foreseen(vault, one) for one in found]
    return Answer(body={"id": f"{vault.path}/backupPolicies/{policy.name}/whatIf", "properties": properties})


@table("GET", f"{_POLICY}/operationResults/{{operation}}", "protection_policy_operation_results.get",
       action=f"{_ACTION}/operationResults/read")  # fmt: skip
def operation_result(call: Call) -> Answer:
    """The policy: what was asked for is done when it is answered."""
    with call.plane.look() as connection:
        operations.find(connection, call.names["operation"], find(call, connection).id)
    return get(call)


def document(vault: Vault, policy: StoredPolicy, count: int) -> dict[str, Any]:
    """A policy as clients see it. `count`: how many items it has; clients add to it, so it is never null."""
    return {
        "id": f"{vault.path}/backupPolicies/{policy.name}",
        "name": policy.name,
        "type": "Microsoft.RecoveryServices/vaults/backupPolicies",
        "eTag": etag(policy.changed),
        "properties": {**policy.properties, "protectedItemsCount": count},
    }


def _foreseen(vault: Vault, one: Foreseen) -> dict[str, Any]:
    """An item, with those of its points for which something changes."""
    return {
        "id": f"{container_path(vault, one.container)}/protectedItems/{one.item.name}",
        "friendlyName": one.item.friendly,
        "points": [_fate(fate) for fate in one.fates if fate.outcome is not Outcome.KEPT],
    }


def _fate(fate: Fate) -> dict[str, Any]:
    return {
        "name": fate.point.name,
        "recoveryPointTime": moment(fate.point.made),
        "change": str(fate.outcome),
        "until": moment(fate.now),
        "untilThen": moment(fate.then),
        "isNewest": fate.newest,
        "storedBytes": fate.point.stored,
    }
