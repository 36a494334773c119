# SPDX-License-Identifier: Apache-2.0
"""`keepstone recoverypoint …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.browsing import browse, download
from keepstone.cli.client.mounting import mount, unmount
from keepstone.cli.client.output import Column, count, moment, octets
from keepstone.cli.client.session import item_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["COLUMNS", "recoverypoint"]

Document = dict[str, Any]
COLUMNS = (
    Column("point", "name"),
    Column("made", "properties.recoveryPointTime", moment),
    Column("consistency", "properties.recoveryPointType"),
    Column("size", "properties.keepstone.logicalBytes", octets),
    Column("new", "properties.keepstone.newBytes", octets),
    Column("stored", "properties.keepstone.storedBytes", octets),
    Column("kept until", "properties.recoveryPointProperties.expiryTime", moment),
    Column("by rule", "properties.recoveryPointProperties.ruleName"),
    Column("warnings", lambda document: document["properties"]["keepstone"]["warnings"] or None, count),
)


@click.group()
def recoverypoint() -> None:
    """Recovery points: states of an item that can be restored."""


@item_command(name="list")
@click.option("--start-date", metavar="DATE", help="Only those since then (UTC).")
@click.option("--end-date", metavar="DATE", help="Only those until then (UTC).")
def list_points(session: Session, vault: str, item: Document, start_date: str | None, end_date: str | None) -> None:
    """List the recovery points of an item, newest first."""
    from keepstone.cli.client.dates import day

    where = {
        "startDate": day("--start-date", start_date),
        "endDate": day("--end-date", end_date, end=True),
    }
    found = list(session.arm.every(f"{item['id']}/recoveryPoints", where))
    session.show(found, COLUMNS, "no recovery points; `keepstone protection backup-now` makes one")


@item_command(name="show")
@click.option("--name", "-n", required=True, metavar="POINT", help="The point, the beginning of its name, or `latest`.")
def show(session: Session, vault: str, item: Document, name: str) -> None:
    """Show a recovery point."""
    from keepstone.cli.client.finding import find_point

    session.show(session.arm.get(find_point(session, item, name)["id"]), COLUMNS)


for _command in (list_points, show, browse, download, mount, unmount):
    recoverypoint.add_command(_command)
