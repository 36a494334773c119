# SPDX-License-Identifier: Apache-2.0
"""Protection policies. Source: Microsoft.RecoveryServices, backup API 2024-04-01, ProtectionPolicies.

Whoever changes a policy may say with `If-Match` which state of it he knows, by its eTag, and with `If-None-Match: *`
that there is none (RFC 9110, 13.1): then nothing is lost of what somebody else has changed meanwhile.

Keepstone's own are `whatIf`, what a policy would do to the points that there are before it is saved, and when policies
run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from keepstone.arm.answers import moment, page
from keepstone.arm.containers import path as container_path
from keepstone.arm.filters import filter_of
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import etag, find
from keepstone.control import operations, policies, whatif
from keepstone.control.whatif import Fate, Foreseen, Pace, Tally
from keepstone.errors import InvalidRequest
from keepstone.vault import Policy, StoredPolicy, Vault, read_policy, zone

__all__ = ["table"]

table = Table()
_POLICIES = f"{VAULT}/backupPolicies"
_POLICY = f"{_POLICIES}/{{policy}}"
_ACTION = "Microsoft.RecoveryServices/Vaults/backupPolicies"
_RUNS = f"{VAULT}/backupPolicyRuns"
_KEYS = ("backupManagementType", "workloadType", "fabricName")
_MOST = 10_000  # points and items that a what-if names
_AHEAD = 10  # runs that are told


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
    """Done when it is answered. `PreconditionFailed` (412) where `If-Match` or `If-None-Match` says that the policy is
    not the one that was looked at."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        policy, _ = policies.put(change, vault, call.names["policy"], call.part("properties"), _expected(call.headers))
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
    """What becomes of the points of its items, if the policy had the properties that are sent; all are counted, by day,
    and up to `$top` are named. Nothing is changed."""
    most, now = _most(call), call.plane.env.utc()
    with call.plane.look() as connection:
        vault = find(call, connection)
        policy = policies.find(connection, vault, call.names["policy"])
        found = whatif.foresee(connection, vault, policy, call.part("properties"), now, most)
    named = sum(len(one.fates) for one in found.items[:most])
    properties: dict[str, Any] = {
        **_tally(found.total),
        "days": [{"date": day.isoformat(), **_tally(tally)} for day, tally in found.days.items()],
        "earlier": _tally(found.earlier),
        "now": _pace(found.now, now),
        "then": _pace(found.then, now),
        "items": [_foreseen(vault, one) for one in found.items[:most]],
        "itemsCount": len(found.items),
        "unnamedPoints": found.total.changed - named,
    }
    return Answer(body={"id": f"{vault.path}/backupPolicies/{policy.name}/whatIf", "properties": properties})


@table("GET", _RUNS, "keepstone.policy_runs", action=f"{_ACTION}/read")
def runs(call: Call) -> Answer:
    """When each policy of the vault runs next, by its name; of one of them where `$filter` has its policyName."""
    wanted = filter_of(call, ("policyName",)).get("policyName")
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = policies.listing(connection, vault) if wanted is None else [policies.find(connection, vault, wanted)]
    now = call.plane.env.utc()
    return page(
        [
            {
                "id": f"{vault.path}/backupPolicies/{policy.name}/runs",
                "name": policy.name,
                "properties": _schedule(policies.parsed(policy), now),
            }
            for policy in found
        ]
    )


@table("POST", _RUNS, "keepstone.policy_runs_foreseen", action=f"{_ACTION}/read")
def runs_foreseen(call: Call) -> Answer:
    """When a policy with the properties that are sent would run, and whether it could: `InvalidPolicy`."""
    with call.plane.look() as connection:
        find(call, connection)
    return Answer(body={"properties": _schedule(read_policy("", call.part("properties")), call.plane.env.utc())})


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


def _expected(headers: Mapping[str, str]) -> Callable[[StoredPolicy | None], bool] | None:
    """What the conditions of a request say of a policy; None where it has none."""
    same, absent = headers.get("if-match", "").strip(), headers.get("if-none-match", "").strip()
    if not same and not absent:
        return None
    known, unwanted = _tags(same), _tags(absent)

    def expected(there: StoredPolicy | None) -> bool:
        tag = _opaque(etag(there.changed)) if there is not None else None
        if same and (tag is None or (same != "*" and tag not in known)):
            return False
        return not absent or tag is None or (absent != "*" and tag not in unwanted)

    return expected


def _tags(given: str) -> set[str]:
    return {_opaque(one) for one in given.split(",")}


def _opaque(tag: str) -> str:
    """An eTag without what says that it is a weak one: clients leave that out."""
    return tag.strip().removeprefix("W/").strip('"')


def _most(call: Call) -> int:
    """How many points and items are named. `InvalidRequest`."""
    given = next((value for key, value in call.query.items() if key.casefold() == "$top"), str(_MOST))
    if not (given.isascii() and given.isdecimal() and int(given) <= _MOST):
        raise InvalidRequest(f"$top is {given[:20]!r}; choose 0 to {_MOST}", target="$top")
    return int(given)


def _tally(tally: Tally) -> dict[str, int]:
    return {**{str(outcome): count for outcome, count in tally.counts.items()}, "freedBytes": tally.freed}


def _pace(pace: Pace, now: datetime) -> dict[str, Any]:
    return {**_schedule(pace.policy, now), "lateItems": pace.late}


def _schedule(policy: Policy, now: datetime) -> dict[str, Any]:
    """When a policy runs, as the clocks in its zone show it and in UTC."""
    rules = zone(policy.zone)
    return {
        "timeZone": policy.zone,
        "longestGapInMinutes": int(policy.longest_gap.total_seconds() // 60),
        "nextRuns": [
            {"time": moment(run), "localTime": run.astimezone(rules).isoformat(timespec="minutes")}
            for run in islice(policy.runs(now), _AHEAD)
        ],
    }


def _foreseen(vault: Vault, one: Foreseen) -> dict[str, Any]:
    """An item, with those of its points for which something changes."""
    return {
        "id": f"{container_path(vault, one.container)}/protectedItems/{one.item.name}",
        "friendlyName": one.item.friendly,
        **_tally(one.tally),
        "newestPoint": moment(one.newest),
        "isLateNow": one.late_now,
        "isLateThen": one.late_then,
        "points": [_fate(fate) for fate in one.fates],
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
