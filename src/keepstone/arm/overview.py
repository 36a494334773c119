# SPDX-License-Identifier: Apache-2.0
"""Vaults at a look, and how they grow: of one, or of all that somebody may see. Keepstone's own: Azure's Business
Continuity Center asks Resource Graph, and needs Log Analytics for what lies in the past."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from keepstone.arm.answers import moment
from keepstone.arm.cloud import known_subscription
from keepstone.arm.table import PROVIDER, SUBSCRIPTION, VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import growth as sizes
from keepstone.control import overview as control
from keepstone.control import people, vaults
from keepstone.errors import InvalidRequest
from keepstone.vault import Vault

__all__ = ["table"]

table = Table()
_READ = "Microsoft.RecoveryServices/Vaults/usages/read"
_ALERTS = "Microsoft.RecoveryServices/Vaults/monitoringAlerts/read"
_DAYS, _MOST = 90, 3660


@table("GET", f"{SUBSCRIPTION}{PROVIDER}/overview", "keepstone.overview", action=_READ, filtered=True)
@table("GET", f"{VAULT}/overview", "keepstone.overview", action=_READ)
def overview(call: Call) -> Answer:
    """Counts of items, jobs, alerts and drills, and bytes."""
    with call.plane.look() as connection:
        within = _vaults(call, connection)
        service = "vault" not in call.names and _may(call, _ALERTS, f"/subscriptions/{call.names['subscription']}")
        found = control.overview(call.plane, connection, within, service=service)
    told = {
        "vaults": found.vaults,
        "items": {str(health): number for health, number in found.health.items()} | {"softDeleted": found.deleted},
        "rpo": {"met": found.rpo.met, "missed": found.rpo.missed},
        "virtualMachines": {"protected": found.machines.protected, "unprotected": found.machines.unprotected},
        "jobs": _jobs(found),
        "alerts": dict(sorted(found.alerts.items())),
        "drills": {
            "startableItems": found.drills.startable,
            "drilledLast30Days": found.drills.recent,
            "provedLast30Days": found.drills.passed,
            "lastProved": moment(found.drills.newest),
        },
        "recoveryPointCount": found.stored.points,
        "storedBytes": found.stored.stored,
        "storedBytesLast30Days": found.stored.recent,
        "disk": _space(found.space),
    }
    return _answer(call, told)


@table("GET", f"{SUBSCRIPTION}{PROVIDER}/growth", "keepstone.growth", action=_READ, filtered=True)
@table("GET", f"{VAULT}/growth", "keepstone.growth", action=_READ)
def growth(call: Call) -> Answer:
    """Bytes by day, of as many `days` as are asked for, and when the disk will be full."""
    days = _days(call)
    with call.plane.look() as connection:
        found = sizes.growth(call.plane, connection, [vault.id for vault in _vaults(call, connection)], days)
    line = found.forecast
    told = {
        "days": [
            {"day": f"{one.day}", "recoveryPointCount": one.points, "addedBytes": one.added, "storedBytes": one.stored}
            for one in found.days
        ],
        "disk": _space(found.space),
        "forecast": None
        if line is None
        else {"bytesPerDay": round(line.slope), "full": None if line.full is None else f"{line.full}"},
    }
    return _answer(call, told)


def _answer(call: Call, properties: dict[str, Any]) -> Answer:
    return Answer(body={"id": call.path, "name": call.path.rpartition("/")[2], "properties": properties})


def _vaults(call: Call, connection: sa.Connection) -> list[Vault]:
    """The one that the path names, or all whose usage the client may see."""
    if "vault" in call.names:
        return [find(call, connection)]
    return [one for one in vaults.listing(connection, known_subscription(call)) if _may(call, _READ, one.path)]


def _may(call: Call, action: str, scope: str) -> bool:
    assert call.who is not None
    return people.may(call.held, call.who.id, action, scope)


def _jobs(found: control.Overview) -> dict[str, int]:
    """Those that wait and those that go on are one to clients."""
    told: dict[str, int] = {}
    for status, number in found.jobs.items():
        name = "InProgress" if status in control.OPEN else str(status)
        told[name] = told.get(name, 0) + number
    return told


def _space(found: sizes.Space) -> dict[str, int]:
    return {"totalBytes": found.total, "freeBytes": found.free}


def _days(call: Call) -> int:
    given = call.query.get("days", str(_DAYS))
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= _MOST):
        raise InvalidRequest(f"days is {given!r}; it is a number from 1 to {_MOST}", target="days")
    return int(given)
