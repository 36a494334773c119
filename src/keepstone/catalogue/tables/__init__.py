# SPDX-License-Identifier: Apache-2.0
"""The tables, and what each column means.

A name that people gave stands twice: as they wrote it, and folded (`key`), because ARM compares names without regard
to case. Documents (`properties`) are kept as they were sent, so that what Keepstone does not know comes back unchanged.
"""

from __future__ import annotations

from keepstone.catalogue.tables.alerts import alerts, notices, targets
from keepstone.catalogue.tables.base import metadata
from keepstone.catalogue.tables.machines import agents, credentials, writers
from keepstone.catalogue.tables.people import assignments, attempts, logins, principals, submissions
from keepstone.catalogue.tables.protection import (
    containers,
    drills,
    footprints,
    items,
    judgements,
    points,
    policies,
    snapshots,
)
from keepstone.catalogue.tables.resources import facts, groups, locks, outbox, resources, vaults
from keepstone.catalogue.tables.work import jobs, operations, schedules

__all__ = [
    "agents",
    "alerts",
    "assignments",
    "attempts",
    "containers",
    "credentials",
    "drills",
    "facts",
    "footprints",
    "groups",
    "items",
    "jobs",
    "judgements",
    "locks",
    "logins",
    "metadata",
    "notices",
    "operations",
    "outbox",
    "points",
    "policies",
    "principals",
    "resources",
    "schedules",
    "snapshots",
    "submissions",
    "targets",
    "vaults",
    "writers",
]
