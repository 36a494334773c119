# SPDX-License-Identifier: Apache-2.0
"""What the points of items tell over time: their days, whether they are as many as the policy wants, and which of them
anybody started. Keepstone's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.arm.answers import moment, paged, skip_token
from keepstone.arm.drills import document as drill_document
from keepstone.arm.items import health_of
from keepstone.arm.items import path as item_path
from keepstone.arm.lro import ITEM
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.catalogue import items as rows
from keepstone.catalogue import one
from keepstone.control import compliance, drills, items
from keepstone.control.sources import FILES
from keepstone.vault import Container, Item, StoredPolicy, Vault, folded

__all__ = ["table"]

table = Table()
_VAULTS = "Microsoft.RecoveryServices/Vaults"
_POINTS = f"{_VAULTS}/backupFabrics/protectionContainers/protectedItems/recoveryPoints/read"
_PAGE = 100
Listed = tuple[Item, Container, StoredPolicy | None]


@table("GET", f"{ITEM}/history", "keepstone.history", action=_POINTS)
def history(call: Call) -> Answer:
    """The days of an item, how it keeps to its policy, and what it costs as far as that was counted."""
    now = call.plane.env.utc()
    with call.plane.look() as connection:
        vault = find(call, connection)
        held, item = items.find(connection, vault, call.names["container"], call.names["item"])
        policy = one(connection, StoredPolicy, id=item.policy) if item.policy is not None else None
        found = compliance.history(connection, item, policy, now)
        cost = compliance.cost(connection, item, held)
    told: dict[str, Any] = {
        "begin": f"{found.begin}",
        "days": [
            {
                "day": f"{day.day}",
                "recoveryPointCount": day.points,
                "logicalBytes": day.logical,
                "addedBytes": day.added,
                "missed": day.missed,
            }
            for day in found.days
        ],
        "lastRuns": [moment(run) for run in found.runs],
        "compliance": None if found.compliance is None else _compliance(found.compliance),
        "cost": None,
    }
    if cost is not None:
        began, bytes = cost
        shared = bytes.referenced - bytes.unique
        told["cost"] = {"countedAt": moment(began), "uniqueBytes": bytes.unique, "sharedBytes": shared}
    base = item_path(vault, held, item)
    return Answer(body={"id": f"{base}/history", "name": "history", "properties": told})


@table("GET", f"{VAULT}/rpo", "keepstone.rpo", action=f"{_VAULTS}/backupProtectedItems/read")
def rpo(call: Call) -> Answer:
    """How the items of a vault kept to their policies in the last 30 days, page by page."""
    now = call.plane.env.utc()

    def tell(connection: sa.Connection, found: list[Listed]) -> dict[UUID, dict[str, Any]]:
        kept = compliance.compliance(connection, [(item, policy) for item, _, policy in found], now)
        return {
            item.id: {
                "lastRecoveryPoint": moment(item.newest),
                "protectionState": items.shown_state(item),
                "protectionStatus": str(health_of(item, policy, now)),
                "compliance": _compliance(kept[item.id]) if item.id in kept else None,
            }
            for item, _, policy in found
        }

    return _listing(call, [rows.c.deleted.is_(None)], tell)


@table("GET", f"{VAULT}/drills", "keepstone.drills_of_vault", action=_POINTS)
def of_vault(call: Call) -> Answer:
    """The items that can be started, each with its newest drill where there was one, page by page."""

    def tell(connection: sa.Connection, found: list[Listed]) -> dict[UUID, dict[str, Any]]:
        vault, newest = find(call, connection), drills.last(connection, [item.id for item, _, _ in found])
        pictured = drills.pictured(connection, [one.id for one in newest.values()])
        told: dict[UUID, dict[str, Any]] = {}
        for item, held, _ in found:
            drill, base = newest.get(item.id), item_path(vault, held, item)
            about = None if drill is None else drill_document(base, drill, pictured=drill.id in pictured)
            told[item.id] = {"lastRecoveryPoint": moment(item.newest), "drill": about}
        return told

    return _listing(call, [rows.c.deleted.is_(None), rows.c.workload != FILES], tell)


def _listing(
    call: Call,
    where: list[sa.ColumnElement[bool]],
    tell: Callable[[sa.Connection, list[Listed]], dict[UUID, dict[str, Any]]],
) -> Answer:
    """Items of a vault by name, and what is told of those of a page."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = items.listing(connection, vault, where, _PAGE + 1, skip_token(call))
        told = tell(connection, found[:_PAGE])
    return paged(
        call, found, _PAGE, lambda row: f"{folded(row[0].name)} {row[0].id}", lambda row: _item(vault, row, told)
    )


def _item(vault: Vault, row: Listed, told: dict[UUID, dict[str, Any]]) -> dict[str, Any]:
    item, held, policy = row
    return {
        "id": item_path(vault, held, item),
        "name": item.name,
        "type": f"{_VAULTS}/backupFabrics/protectionContainers/protectedItems",
        "properties": {
            "friendlyName": item.friendly,
            "containerName": held.friendly,
            "workloadType": item.workload,
            "policyName": "" if policy is None else policy.name,
            **told[item.id],
        },
    }


def _compliance(found: compliance.Compliance) -> dict[str, Any]:
    return {"since": moment(found.since), "expected": found.expected, "kept": found.kept}
