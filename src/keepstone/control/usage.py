# SPDX-License-Identifier: Apache-2.0
"""How much a vault is used: counts of what it holds, of its jobs, and bytes.

Names are Azure's (azure-rest-api-specs, example `ListUsages` of Usages_ListByVaults 2024-04-01); there is one for all
that Keepstone has. What is soft-deleted is not protected any more, so it is not counted among the items; its bytes are
there until it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from keepstone.catalogue import containers, items, jobs, points
from keepstone.jobs import Status
from keepstone.vault import Vault

__all__ = ["MANAGEMENT", "Usage", "of_containers", "of_items", "of_vault"]

MANAGEMENT = ("AzureIaasVM", "AzureSql", "AzureStorage", "AzureWorkload", "MAB", "DPM", "AzureBackupServer")
"""The kinds of management that a vault counts by."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """`label`: for people. `unit`: Count or Bytes. `period`: how far a count goes back, as ISO 8601 has it."""

    name: str
    label: str
    value: int
    unit: str = "Count"
    period: str | None = None


def of_items(connection: sa.Connection, vault: Vault) -> dict[str, int]:
    """Protected items by their management; 0 where there are none."""
    return _by_management(connection, items, items.c.vault == vault.id, items.c.deleted.is_(None))


def of_containers(connection: sa.Connection, vault: Vault) -> dict[str, int]:
    """Registered containers by their management; 0 where there are none."""
    return _by_management(connection, containers, containers.c.vault == vault.id)


def of_vault(connection: sa.Connection, vault: Vault, now: datetime) -> list[Usage]:
    """All of it; jobs of the last day. Bytes: what was written for the points that there are."""
    held, machines = of_items(connection, vault), of_containers(connection, vault)
    mine = jobs.c.vault == vault.id, jobs.c.created > now - _DAY
    query = sa.select(jobs.c.status, sa.func.count()).where(*mine).group_by(jobs.c.status)
    states = {Status(status): count for status, count in connection.execute(query).all()}
    going = sum(states.get(status, 0) for status in (Status.QUEUED, Status.RUNNING, Status.CANCELLING))
    written = sa.select(sa.func.coalesce(sa.func.sum(points.c.stored), 0)).where(points.c.vault == vault.id)
    return [
        Usage(name="MABContainersCount", label="Machines with an agent", value=machines["MAB"]),
        Usage(name="ProtectedItemCount", label="Backup items", value=sum(held.values())),
        Usage(name="IaaSVMProtectedItemCount", label="Virtual machines", value=held["AzureIaasVM"]),
        Usage(name="MABProtectedItemCount", label="Files and folders", value=held["MAB"]),
        Usage(name="InProgressJobsCount", label="Jobs in progress", value=going, period="P1D"),
        Usage(name="FailedJobsCount", label="Failed jobs", value=states.get(Status.FAILED, 0), period="P1D"),
        Usage(
            name="LRSStorageUsage", label="Stored", value=int(connection.execute(written).scalar_one()), unit="Bytes"
        ),
    ]


def _by_management(connection: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> dict[str, int]:
    query = sa.select(table.c.management, sa.func.count()).where(*where).group_by(table.c.management)
    return dict.fromkeys(MANAGEMENT, 0) | dict(connection.execute(query).all())
