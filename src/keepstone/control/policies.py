# SPDX-License-Identifier: Apache-2.0
"""Policies of a vault. A policy is kept as it was sent; what it says is read when it is needed, and was understood when
it was accepted.

A changed policy applies to its items at once: their schedules are made anew, and retention follows at its next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa

from keepstone.catalogue import every, first, items, one, policies
from keepstone.control import locks, schedules
from keepstone.control.plane import Change
from keepstone.errors import Conflict, InvalidPolicy, InvalidRequest, NotFound, PreconditionFailed
from keepstone.vault import Item, Policy, StoredPolicy, Vault, folded, read_policy

__all__ = ["by_id", "count", "counts", "delete", "find", "items_of", "listing", "parsed", "put"]


def find(connection: sa.Connection, vault: Vault, name: str) -> StoredPolicy:
    """`NotFound`."""
    policy = one(connection, StoredPolicy, vault=vault.id, key=folded(name))
    if policy is None:
        raise _missing(vault, name)
    return policy


def by_id(connection: sa.Connection, vault: Vault, path: str) -> StoredPolicy:
    """The policy whose resource id this is. `InvalidRequest` for one of another vault, and where there is none."""
    prefix = f"{vault.path}/backupPolicies/"
    if not folded(path).startswith(folded(prefix)):
        raise InvalidRequest(
            f"properties.policyId is {path!r}; it has to be the id of a policy of this vault, {prefix}…",
            target="properties.policyId",
            code="BMSUserErrorInvalidPolicyId",
        )
    name = path[len(prefix) :].strip("/")
    try:
        return find(connection, vault, name)
    except NotFound as error:
        raise InvalidRequest(str(error), target="properties.policyId", code="BMSUserErrorInvalidPolicyId") from error


def listing(
    connection: sa.Connection, vault: Vault, *, management: str | None = None, workload: str | None = None
) -> list[StoredPolicy]:
    """The policies of a vault by name; those of one management type and workload, where one is named."""
    found = every(connection, StoredPolicy, policies.c.vault == vault.id, order=policies.c.key)
    return [
        policy
        for policy in found
        if (management is None or folded(policy.management) == folded(management))
        and (workload is None or policy.workload is None or folded(policy.workload) == folded(workload))
    ]


def counts(connection: sa.Connection, vault: Vault) -> dict[Any, int]:
    """How many items each policy has, by its id."""
    mine = items.c.policy.in_(sa.select(policies.c.id).where(policies.c.vault == vault.id))
    query = sa.select(items.c.policy, sa.func.count()).where(mine).group_by(items.c.policy)
    return dict(connection.execute(query).all())


def count(connection: sa.Connection, policy: StoredPolicy) -> int:
    """How many items it has."""
    return connection.execute(sa.select(sa.func.count()).where(items.c.policy == policy.id)).scalar_one()


def items_of(connection: sa.Connection, policy: StoredPolicy) -> list[Item]:
    """The items that it protects."""
    return every(connection, Item, items.c.policy == policy.id, order=items.c.key)


def parsed(policy: StoredPolicy) -> Policy:
    """What it says."""
    return _parsed(policy.name, msgspec.json.encode(policy.properties))


@lru_cache(maxsize=256)
def _parsed(name: str, properties: bytes) -> Policy:
    """The same policy is read for each of its items."""
    return read_policy(name, msgspec.json.decode(properties))


def put(
    change: Change,
    vault: Vault,
    name: str,
    properties: Mapping[str, Any],
    expected: Callable[[StoredPolicy | None], bool] | None = None,
) -> tuple[StoredPolicy, bool]:
    """Make or replace a policy; and whether it is new. `InvalidPolicy` with the part that does not do.
    `PreconditionFailed` where what is there is not what is `expected`."""
    locks.check_write(change.connection, vault.path)
    if not 3 <= len(name) <= 150 or not name[0].isalpha() or not all(one.isalnum() or one == "-" for one in name):
        raise InvalidRequest(
            f"'{name}' is no name for a policy; take 3 to 150 letters, digits and hyphens, beginning with a letter",
            target="name",
            code="InvalidResourceName",
        )
    understood = read_policy(name, properties)
    kept = {key: value for key, value in properties.items() if key not in _OURS}
    kept["backupManagementType"] = str(understood.management)
    workload = kept.get("workLoadType")
    if workload is not None and not isinstance(workload, str):
        raise InvalidPolicy("properties.workLoadType has to be a text", target="properties.workLoadType")
    mine = policies.c.vault == vault.id, policies.c.key == folded(name)
    if expected is not None:  # nobody changes it between this look and the change; SQLite has one writer anyhow
        change.connection.execute(sa.select(policies.c.id).where(*mine).with_for_update())
    there = first(change.connection, StoredPolicy, *mine)
    if expected is not None and not expected(there):
        raise _unexpected(vault, name, there)
    if there is not None and there.management != kept["backupManagementType"]:
        raise InvalidPolicy(
            f"policy '{there.name}' is for {there.management}; make another one for {kept['backupManagementType']}",
            target="properties.backupManagementType",
        )
    policy = StoredPolicy(
        id=there.id if there is not None else change.plane.new_id(),
        vault=vault.id,
        name=there.name if there is not None else name,
        management=kept["backupManagementType"],
        workload=workload,
        properties=kept,
        changed=change.now,
    )
    change.save(policy)
    for item in items_of(change.connection, policy) if there is not None else ():
        schedules.plan(change, item, understood)
    return policy, there is None


def delete(change: Change, vault: Vault, name: str) -> bool:
    """Remove a policy; whether there was one. `Conflict` while it has items."""
    policy = first(change.connection, StoredPolicy, policies.c.vault == vault.id, policies.c.key == folded(name))
    if policy is None:
        return False
    locks.check_delete(change.connection, f"{vault.path}/backupPolicies/{policy.name}")
    protected = items_of(change.connection, policy)
    if protected:
        raise Conflict(
            f"Policy '{policy.name}' protects {len(protected)} items, the first is '{protected[0].friendly}'; give "
            "them "
            "another policy with `az backup item set-policy`, or stop their protection, and delete it then"
        )
    change.remove(replace(policy))
    return True


# What the service says of a policy, and clients send back with it.
_OURS = ("protectedItemsCount", "resourceGuardOperationRequests")


def _unexpected(vault: Vault, name: str, there: StoredPolicy | None) -> PreconditionFailed:
    if there is None:
        return PreconditionFailed(f"There is no policy '{name}' in vault '{vault.name}', or not any more")
    return PreconditionFailed(
        f"Policy '{there.name}' was last changed at {there.changed:%Y-%m-%d %H:%M:%S} UTC; it is not, or not any more, "
        "as this request says, and stays as it is. Look at it again, and send your change with its eTag of now"
    )


def _missing(vault: Vault, name: str) -> NotFound:
    error = NotFound(
        f"There is no policy '{name}' in vault '{vault.name}'; `az backup policy list` shows those that there are"
    )
    error.code = "BMSUserErrorPolicyNotFound"
    return error
