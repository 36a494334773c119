# SPDX-License-Identifier: Apache-2.0
"""What a deletion would take with it, before anybody asks for it: points, bytes, what falls under its RPO, and what
stands in its way. The command line, the portal and the API say it in the same words, which are made here.

Bytes are what was written for the points, so at most that much room comes back: other items may need the same data.
Everything is counted by the database, so it takes no longer for ten thousand items than for ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from keepstone.catalogue import every, first, items, points
from keepstone.catalogue import policies as stored
from keepstone.control import locks, policies, resources, vaults
from keepstone.control.items import PROTECTED
from keepstone.control.sizes import octets
from keepstone.vault import Container, Group, Item, StoredPolicy, Vault, zone
from keepstone.vault.properties import is_immutable, soft_delete

__all__ = ["Radius", "of_container", "of_group", "of_item", "of_policy", "of_vault"]

_NAMED = 5  # how many are told by their names


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius:
    """`would`: what is asked for. `undo`: how, and for how long, it can be taken back. `late`: what falls under its
    RPO, and when; None where that is no question. `refused`: what forbids it. Counts are None where they do not matter;
    `bytes`: that were written for the points."""

    would: str
    what: str
    undo: str
    items: int | None = None
    points: int | None = None
    oldest: datetime | None = None
    newest: datetime | None = None
    bytes: int | None = None
    late: Sequence[str] | None = None
    refused: Sequence[str] = ()

    @property
    def lines(self) -> list[tuple[str, str]]:
        """For people: what it is, and how much. What refuses it is not among them."""
        told: list[tuple[str, str | None]] = [
            ("would", self.would),
            ("what", self.what),
            ("items", _count(self.items)),
            ("points", _count(self.points)),
            ("oldest", _moment(self.oldest)),
            ("newest", _moment(self.newest)),
            ("bytes at most", None if self.bytes is None else octets(self.bytes)),
            ("under their RPO", None if self.late is None else ", ".join(self.late) or "none"),
            ("can be taken back", self.undo),
        ]
        return [(label, text) for label, text in told if text is not None]


def of_item(
    connection: sa.Connection,
    vault: Vault,
    held: Container,
    item: Item,
    now: datetime,
    *,
    retain: str = "",
) -> Radius:
    """Of stopping the protection of an item and deleting its points. `retain`: of stopping it alone, where points stay
    for `ever`, or as long as the `policy` says."""
    mine = points.c.item == item.id, points.c.deleted.is_(None)
    over = sa.or_(points.c.until.is_(None), points.c.until > now)
    query = sa.select(
        sa.func.count(),
        sa.func.min(points.c.made),
        sa.func.max(points.c.made),
        sa.func.coalesce(sa.func.sum(points.c.stored), 0),
        sa.func.count(sa.case((over, 1))),
        sa.func.count(sa.case((points.c.locked > now, 1))),
    ).where(*mine)
    count, oldest, newest, written, kept, locked = connection.execute(query).one()
    found = Radius(
        would="stop protection and delete the points",
        what=item.friendly,
        points=count,
        oldest=oldest,
        newest=newest,
        bytes=int(written),
        undo=_undo(vault, "`keepstone protection undelete`"),
        late=_late(connection, item, now, deleting=not retain),
    )
    if retain:
        until = "until the policy lets them go" if retain == "policy" else "for ever"
        would = f"stop protection, and keep its points {until}"
        return replace(found, would=would, bytes=0, undo="with `keepstone protection resume`")
    path = f"{vault.path}/backupFabrics/Azure/protectionContainers/{held.name}/protectedItems/{item.name}"
    refused = _locks(connection, path)
    if item.deleted is not None:
        refused.append("it is soft-deleted already")
    if locked:
        refused.append(f"{locked} of its points are locked")
    if kept and is_immutable(vault.properties):
        refused.append(f"the vault is immutable, and {kept} of its points have not reached their end")
    return replace(found, refused=refused)


def of_vault(connection: sa.Connection, vault: Vault, now: datetime) -> Radius:
    """Of deleting a vault. What is in it has to go first."""
    # A worker removes what is on the way out, whether the vault lives or not.
    inside = sa.and_(items.c.vault == vault.id, sa.or_(items.c.purge.is_(None), items.c.purge > now))
    return replace(
        _inside(connection, inside),
        would="delete",
        what=f"vault {vault.name}",
        undo=_undo(vault, "`az backup deleted-vault undelete`"),
        refused=_locks(connection, vault.path) + _held(connection, inside),
    )


def of_group(connection: sa.Connection, group: Group) -> Radius:
    """Of deleting a group and what is in it. A vault has to go first."""
    living = vaults.listing(connection, group.subscription, group.name)
    others = [one.name for one in resources.listing(connection, group.subscription, group=group.name)]
    refused = [f"the vault {one.name}, which has to go first" for one in living]
    return Radius(
        would="delete",
        what=_some([group.name, *others], len(others) + 1),
        undo="no",
        refused=_locks(connection, group.path) + refused,
    )


def of_container(connection: sa.Connection, vault: Vault, held: Container, *, agent: bool) -> Radius:
    """Of unregistering a container. What it holds has to go first. `agent`: whether it has one."""
    inside = items.c.container == held.id
    path = f"{vault.path}/backupFabrics/Azure/protectionContainers/{held.name}"
    return Radius(
        would="unregister",
        what=f"container {held.friendly}",
        undo=f"by `keepstone {'agent' if agent else 'container'} register`",
        refused=_locks(connection, path) + _held(connection, inside),
    )


def of_policy(connection: sa.Connection, vault: Vault, policy: StoredPolicy) -> Radius:
    """Of deleting a policy. No item may have it."""
    refused = _locks(connection, f"{vault.path}/backupPolicies/{policy.name}")
    return Radius(
        would="delete",
        what=f"policy {policy.name}",
        undo="no",
        refused=refused + _held(connection, items.c.policy == policy.id),
    )


def _inside(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Radius:
    """How much there is in these items."""
    count = connection.execute(sa.select(sa.func.count()).select_from(items).where(where)).scalar_one()
    made, size = points.c.made, sa.func.coalesce(sa.func.sum(points.c.stored), 0)
    query = sa.select(sa.func.count(made), sa.func.min(made), sa.func.max(made), size)
    query = query.select_from(points.join(items, items.c.id == points.c.item)).where(where, points.c.deleted.is_(None))
    number, oldest, newest, written = connection.execute(query).one()
    return Radius(
        would="", what="", undo="", items=count, points=number, oldest=oldest, newest=newest, bytes=int(written)
    )


def _held(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[str]:
    """The items that stand in the way: the first ones by name, and how many more."""
    count = connection.execute(sa.select(sa.func.count()).select_from(items).where(where)).scalar_one()
    named = every(connection, Item, where, order=(items.c.friendly, items.c.id), limit=_NAMED)
    told = [f"the item {one.friendly}" + (", which is soft-deleted" if one.deleted else "") for one in named]
    return told + ([f"{count - _NAMED:,} more items"] if count > _NAMED else [])


def _late(connection: sa.Connection, item: Item, now: datetime, *, deleting: bool) -> list[str]:
    """From when on it has no point that is as new as its policy promises. None is promised for what is not protected.
    As health is told: one run may be missed."""
    if item.state != PROTECTED or item.policy is None or item.deleted is not None:
        return []
    if deleting or item.newest is None:
        return [f"{item.friendly} at once"]
    policy = first(connection, StoredPolicy, stored.c.id == item.policy)
    if policy is None:
        return []
    known = policies.parsed(policy)
    runs = known.parts[0].schedule.runs(item.newest, zone(known.zone))
    next(runs, None)
    second = next(runs, None)
    if second is None:
        return []
    return [f"{item.friendly} {'already' if second < now else f'from {_moment(second)} on'}"]


def _locks(connection: sa.Connection, path: str) -> list[str]:
    rows = {(row["scope"], row["name"]): row for row in locks.above(connection, path) + locks.beneath(connection, path)}
    return [f"the lock {row['name']}" for row in rows.values()]


def _undo(vault: Vault, command: str) -> str:
    days = soft_delete(vault.properties).days
    return f"for {days} days, with {command}" if days else "no: soft delete is off"


def _some(names: Sequence[str], count: int) -> str:
    told = ", ".join(names[:_NAMED])
    return told + (f" and {count - _NAMED:,} more" if count > _NAMED else "")


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _moment(value: datetime | None) -> str | None:
    return None if value is None else f"{value:%Y-%m-%dT%H:%M:%S}Z"
