# SPDX-License-Identifier: Apache-2.0
"""What a server remembers in its database. For recovery points it is a cache of their stores."""

from __future__ import annotations

from keepstone.catalogue.database import Database
from keepstone.catalogue.rows import RECORDS, every, first, insert, one, save
from keepstone.catalogue.tables import (
    alerts,
    assignments,
    containers,
    facts,
    footprints,
    groups,
    items,
    jobs,
    locks,
    metadata,
    notices,
    operations,
    outbox,
    points,
    policies,
    principals,
    resources,
    schedules,
    targets,
    vaults,
)

__all__ = [
    "RECORDS",
    "Database",
    "alerts",
    "assignments",
    "containers",
    "every",
    "facts",
    "first",
    "footprints",
    "groups",
    "insert",
    "items",
    "jobs",
    "locks",
    "metadata",
    "notices",
    "one",
    "operations",
    "outbox",
    "points",
    "policies",
    "principals",
    "resources",
    "save",
    "schedules",
    "targets",
    "vaults",
]
