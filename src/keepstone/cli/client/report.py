# SPDX-License-Identifier: Apache-2.0
"""`keepstone report …`: growth, RPO and drills of vaults. What items cost is `keepstone vault usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, count, moment, octets
from keepstone.cli.client.session import vault_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["report"]

_DAYS = (
    Column("day", "day"),
    Column("points", "recoveryPointCount", count),
    Column("added", "addedBytes", octets),
    Column("stored", "storedBytes", octets),
)


def _share(document: Any) -> Any:
    kept = document["properties"]["compliance"]
    return f"{100 * kept['kept'] // kept['expected']} %" if kept and kept["expected"] else None


_RPO = (
    Column("item", "properties.friendlyName"),
    Column("policy", "properties.policyName"),
    Column("health", "properties.protectionStatus"),
    Column("newest point", "properties.lastRecoveryPoint", moment),
    Column("since", "properties.compliance.since", moment),
    Column("runs", "properties.compliance.expected", count),
    Column("in time", "properties.compliance.kept", count),
    Column("share", _share),
)
_DRILLS = (
    Column("item", "properties.friendlyName"),
    Column("newest point", "properties.lastRecoveryPoint", moment),
    Column("newest drill", "properties.drill.properties.began", moment),
    Column("reached", "properties.drill.properties.level"),
    Column("seconds to recover", "properties.drill.properties.secondsToRecover"),
    Column("why", "properties.drill.properties.reason"),
)


@click.group()
def report() -> None:
    """Reports: how a vault grows, and how its items keep to their policies."""


@vault_command(name="growth")
@click.option("--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="How far back.")
def growth(session: Session, vault: str, days: int) -> None:
    """List the bytes stored by day, and say when the disk will be full if it goes on like this."""
    found = session.arm.get(f"{vault}/growth", {"days": str(days)})["properties"]
    session.show(found["days"], _DAYS)
    line = found["forecast"]
    if line is None:
        session.tell("there are points of fewer than three days: nothing can be said of the days to come")
    elif line["full"] is None:
        session.tell("it does not grow so that the disk would be full")
    else:
        session.tell(f"{octets(line['bytesPerDay'])} a day: the disk is full about {line['full']}")


@vault_command(name="rpo")
def rpo(session: Session, vault: str) -> None:
    """List for each item how many runs of the last 30 days made their point before the next one."""
    session.show(list(session.arm.every(f"{vault}/rpo")), _RPO, "no items; protect some with `keepstone protection`")


@vault_command(name="drills")
def drills(session: Session, vault: str) -> None:
    """List the machines and disks with their newest drill."""
    session.show(list(session.arm.every(f"{vault}/drills")), _DRILLS, "no machines or disks are protected")


for _command in (growth, rpo, drills):
    report.add_command(_command)
