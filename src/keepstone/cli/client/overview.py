# SPDX-License-Identifier: Apache-2.0
"""`keepstone overview`: vaults at a look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, count, moment, octets
from keepstone.cli.client.session import client_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["overview"]

_PROVIDER = "providers/Microsoft.RecoveryServices"


def _alerts(document: Any) -> Any:
    found = document["properties"]["alerts"]
    return ", ".join(f"{severity} {number}" for severity, number in found.items()) or 0


def _rpo(document: Any) -> Any:
    found = document["properties"]["rpo"]
    return f"{found['met']} of {found['met'] + found['missed']}"


def _proved(document: Any) -> Any:
    found = document["properties"]["drills"]
    return f"{found['provedLast30Days']} of {found['startableItems']}"


def _jobs(name: str) -> Any:
    return lambda document: document["properties"]["jobs"].get(name, 0)


_COLUMNS = (
    Column("vaults", "properties.vaults", count),
    Column("healthy", "properties.items.Healthy", count),
    Column("unhealthy", "properties.items.Unhealthy", count),
    Column("waiting for a first point", "properties.items.IRPending", count),
    Column("soft-deleted", "properties.items.softDeleted", count),
    Column("with a point of the last run", _rpo),
    Column("machines without protection", "properties.virtualMachines.unprotected", count),
    Column("last proved restorable", "properties.drills.lastProved", moment),
    Column("proved in 30 days", _proved),
    Column("failed jobs of a day", _jobs("Failed"), count),
    Column("jobs in progress", _jobs("InProgress"), count),
    Column("alerts", _alerts),
    Column("points", "properties.recoveryPointCount", count),
    Column("stored", "properties.storedBytes", octets),
    Column("of the last 30 days", "properties.storedBytesLast30Days", octets),
    Column("free on the disk", "properties.disk.freeBytes", octets),
)


@client_command(name="overview")
@click.option(
    "--resource-group", "-g", "group", envvar="KEEPSTONE_GROUP", metavar="NAME",
    help="The vault's group [also: KEEPSTONE_GROUP; default: where the vault is].",
)  # fmt: skip
@click.option(
    "--vault-name", "-v", "vault", envvar="KEEPSTONE_VAULT", metavar="NAME",
    help="Only this vault [also: KEEPSTONE_VAULT; default: all that you may see].",
)  # fmt: skip
def overview(session: Session, group: str | None, vault: str | None) -> None:
    """Show vaults at a look: the health of their items, jobs, alerts, drills, and how much is stored."""
    from keepstone.cli.client.finding import vault_path

    scope = f"{session.subscription}/{_PROVIDER}" if vault is None else vault_path(session, group, vault)
    session.show(session.arm.get(f"{scope}/overview"), _COLUMNS)
