# SPDX-License-Identifier: Apache-2.0
"""What a deletion would take with it, before anybody asks for it: points, bytes, and what stands in its way.

Bytes are what was written for the points, so at most that much room comes back: other items may need the same data.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from keepstone.cli.client.output import Column, at, count, moment, octets
from keepstone.cli.client.session import Session
from keepstone.errors import Unauthorized

__all__ = ["COLUMNS", "locks", "reach"]

Document = dict[str, Any]
COLUMNS = (
    Column("would", "would"),
    Column("what", "what"),
    Column("items", "items", count),
    Column("points", "points", count),
    Column("oldest", "oldest", moment),
    Column("newest", "newest", moment),
    Column("bytes at most", "bytes", octets),
    Column("can be taken back", "undo"),
    Column("refused by", "refused"),
)


def reach(session: Session, vault: str, item: Document) -> Document:
    """What it would take to stop the protection of an item and delete its points."""
    settings = session.arm.get(vault)
    points = list(session.arm.every(f"{item['id']}/recoveryPoints"))
    made = sorted(str(at(one, "properties.recoveryPointTime")) for one in points)
    days = _soft_delete(settings)
    refused = locks(session, vault)
    if at(item, "properties.isScheduledForDeferredDelete"):
        refused.append("it is soft-deleted already")
    kept = _kept(settings, points)
    if kept:
        refused.append(f"the vault is immutable, and {kept} of its points have not reached their end")
    return {
        "would": "stop protection and delete the points",
        "what": at(item, "properties.friendlyName"),
        "points": len(points),
        "oldest": made[0] if made else None,
        "newest": made[-1] if made else None,
        "bytes": sum(at(one, "properties.keepstone.storedBytes") or 0 for one in points),
        "undo": f"for {days} days, with `keepstone protection undelete`" if days else "no: soft delete is off",
        "refused": refused,
    }


def locks(session: Session, scope: str, *, levels: Iterable[str] = ("CanNotDelete", "ReadOnly")) -> list[str]:
    """The management locks that would forbid to delete what `scope` names."""
    try:
        found = list(session.arm.every(f"{scope}/providers/Microsoft.Authorization/locks"))
    except Unauthorized:
        return ["perhaps a lock: you may not see them"]
    return [f"the lock {one['name']}" for one in found if at(one, "properties.level") in levels]


def _soft_delete(vault: Document) -> int:
    """Days."""
    settings = at(vault, "properties.securitySettings.softDeleteSettings") or {}
    if settings.get("softDeleteState") == "Disabled":
        return 0
    return int(settings.get("softDeleteRetentionPeriodInDays") or 0)


def _kept(vault: Document, points: Iterable[Document]) -> int:
    """How many points an immutable vault does not let go."""
    if at(vault, "properties.securitySettings.immutabilitySettings.state") in (None, "Disabled"):
        return 0
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    ends = [at(one, "properties.recoveryPointProperties.expiryTime") for one in points]
    return sum(end is None or str(end) > now for end in ends)
