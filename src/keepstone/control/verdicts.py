# SPDX-License-Identifier: Apache-2.0
"""What the end of a job means for the alerts of its vault. The queue asks for it in the transaction in which a job
ends: so neither is there without the other.

One that was cancelled means nothing. Failures of a kind count as one alert for each item and part of its policy, and
the next success ends it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import alerts, first, items, vaults
from keepstone.control.alerts import fire, resolve
from keepstone.control.work.purge import PURGE
from keepstone.control.work.restore import RESTORE
from keepstone.control.work.verify import VERIFY
from keepstone.env import Env
from keepstone.errors import CorruptObject, FormatError, HostileName, ObjectMissing, RollbackDetected
from keepstone.jobs import BACKUP, Claim, Status
from keepstone.vault import Vault
from keepstone.vault.alerts import Kind, Subject, wanted

__all__ = ["judge"]

_FAILURES = {BACKUP: Kind.BACKUP_FAILURE, RESTORE: Kind.RESTORE_FAILURE}
_DAMAGE = {kind.code for kind in (CorruptObject, FormatError, HostileName, ObjectMissing, RollbackDetected)}
_MENDS = {BACKUP: Kind.ITEM_UNHEALTHY, VERIFY: Kind.STORE_DAMAGED}
# What cannot be so any more when the item is gone. That it is gone is told once, and that it was deleted stays true.
_OF_ITEMS = (Kind.BACKUP_FAILURE, Kind.RESTORE_FAILURE, Kind.ITEM_UNHEALTHY, Kind.PURGE_UPCOMING)
_WELL = (Status.COMPLETED, Status.WARNED)


def judge(env: Env, connection: sa.Connection, claim: Claim, status: Status, error: dict[str, Any] | None) -> None:
    """A job has ended."""
    vault = first(connection, Vault, vaults.c.id == claim.vault)
    if vault is None:
        return
    if status is Status.FAILED:
        _failed(env, connection, vault, claim, error or {})
    elif status in _WELL:
        _succeeded(env, connection, vault, claim)


def _failed(env: Env, connection: sa.Connection, vault: Vault, claim: Claim, error: dict[str, Any]) -> None:
    subject, reason = _subject(claim), str(error.get("message") or "it says no reason")
    entity = _entity(connection, vault, claim)
    if wanted(subject.kind, vault.properties):
        message = f"{claim.operation} of '{entity}' failed: {reason}"
        fire(connection, env, subject, message, resource=vault.path, entity=entity, job=claim.id)
    if error.get("code") in _DAMAGE:
        subject, message = Subject(kind=Kind.STORE_DAMAGED, vault=vault.id), f"{claim.operation} met damage: {reason}"
        fire(connection, env, subject, message, resource=vault.path, entity=vault.name, job=claim.id)


def _succeeded(env: Env, connection: sa.Connection, vault: Vault, claim: Claim) -> None:
    mine = alerts.c.vault == vault.id, alerts.c.item == claim.item
    well = alerts.c.subject == _subject(claim).key
    if claim.operation in _MENDS:
        well |= alerts.c.kind == _MENDS[claim.operation]
    resolve(connection, env, *mine, well)
    if claim.operation == PURGE:
        resolve(connection, env, *mine, alerts.c.kind.in_(_OF_ITEMS), tell=())
        subject = Subject(kind=Kind.PURGE_COMPLETE, vault=vault.id, item=claim.item)
        if wanted(subject.kind, vault.properties):
            entity = _entity(connection, vault, claim)
            message = f"the backup data of '{entity}' was removed for good"
            fire(connection, env, subject, message, resource=vault.path, entity=entity, job=claim.id)


def _subject(claim: Claim) -> Subject:
    kind = _FAILURES.get(claim.operation, Kind.JOB_FAILURE)
    part = claim.operation if kind is Kind.JOB_FAILURE else str(claim.arguments.get("part", ""))
    return Subject(kind=kind, vault=claim.vault, item=claim.item, part=part)


def _entity(connection: sa.Connection, vault: Vault, claim: Claim) -> str:
    """What people call what the job was about: its item, or the vault."""
    if claim.item is None:
        return vault.name
    friendly = connection.execute(sa.select(items.c.friendly).where(items.c.id == claim.item)).scalar()
    return str(friendly or claim.arguments.get("entity") or claim.item)
