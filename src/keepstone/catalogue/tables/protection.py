# SPDX-License-Identifier: Apache-2.0
"""What a vault holds: policies, containers, items and their recovery points."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue.columns import Moment
from keepstone.catalogue.tables.base import metadata

__all__ = ["containers", "drills", "footprints", "items", "judgements", "points", "policies"]


def _vault() -> sa.Column[object]:
    return sa.Column("vault", sa.Uuid, sa.ForeignKey("vaults.id"), nullable=False)


policies = sa.Table(
    "policies",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    _vault(),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    # backupManagementType, spelled as in Azure: it says what kinds of items may have this policy.
    sa.Column("management", sa.String(32), nullable=False),
    # workLoadType, where there is one.
    sa.Column("workload", sa.String(64)),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("changed", Moment, nullable=False),
    sa.UniqueConstraint("vault", "key"),
)

containers = sa.Table(
    "containers",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    _vault(),
    sa.Column("key", sa.String(255), nullable=False),
    # Such as `Windows;host.example` or `IaasVMContainer;iaasvmcontainerv2;group;name`.
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("friendly", sa.String(255), nullable=False),
    sa.Column("management", sa.String(32), nullable=False),
    # containerType, which tells clients what it is.
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("registered", Moment, nullable=False),
    sa.UniqueConstraint("vault", "key"),
)

items = sa.Table(
    "items",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    _vault(),
    sa.Column("container", sa.Uuid, sa.ForeignKey("containers.id"), nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("friendly", sa.String(1024), nullable=False),
    sa.Column("management", sa.String(32), nullable=False),
    # What kind of datasource it is: FileFolder, VM …
    sa.Column("workload", sa.String(64), nullable=False),
    # NULL while nothing makes new points.
    sa.Column("policy", sa.Uuid, sa.ForeignKey("policies.id")),
    # protectionState, spelled as in Azure.
    sa.Column("state", sa.String(32), nullable=False),
    # What its workload needs to find and read it.
    sa.Column("source", sa.JSON, nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("created", Moment, nullable=False),
    # The newest run of a backup: its end and how it went; and the time of the newest point.
    sa.Column("backed_up", Moment),
    sa.Column("outcome", sa.String(32)),
    sa.Column("newest", Moment),
    # When it was deleted, and from when on its points may go. NULL: it is not deleted.
    sa.Column("deleted", Moment),
    sa.Column("purge", Moment),
    sa.UniqueConstraint("container", "key"),
    sa.Index(None, "vault", "key"),
    sa.Index(None, "policy"),
    # How many of a vault are well, out of the index alone.
    sa.Index("ix_items_health", "vault", "deleted", "policy", "state", "workload", "newest"),
)

points = sa.Table(
    "points",
    metadata,
    sa.Column("item", sa.Uuid, sa.ForeignKey("items.id"), primary_key=True),
    # What clients call it: digits, made out of `commit_id`.
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("vault", sa.Uuid, nullable=False),
    # What the vault's store calls it. The store is right about which points there are; this table is a cache of it.
    sa.Column("commit_id", sa.String(64), nullable=False),
    # The moment whose state it is.
    sa.Column("made", Moment, nullable=False),
    # A type of backup: Full, Differential … and how the data hangs together: CrashConsistent …
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("consistency", sa.String(32), nullable=False),
    # Until when it is kept: the date that its maker gave to it (NULL: none), and the one that retention last found
    # (NULL: it was not judged yet).
    sa.Column("own", Moment),
    sa.Column("until", Moment),
    # Why: a rule of its policy, for people.
    sa.Column("rule", sa.String(32)),
    # Until when nobody can delete it (NULL: no lock).
    sa.Column("locked", Moment),
    # Until when it can be taken back (NULL: it is not deleted).
    sa.Column("deleted", Moment),
    # Bytes: of the source; new to the store; written for them.
    sa.Column("logical", sa.BigInteger, nullable=False),
    sa.Column("fresh", sa.BigInteger, nullable=False),
    sa.Column("stored", sa.BigInteger, nullable=False),
    sa.Column("warnings", sa.Integer, nullable=False, default=0),
    sa.Index(None, "item", "made"),
    # What the points of a vault take together, of all times or since some moment, out of the index alone.
    sa.Index("ix_points_sizes", "vault", "made", "deleted", "logical", "fresh", "stored"),
)

judgements = sa.Table(
    "judgements",
    metadata,
    # When retention looks at the points of an item again. No row: it has never done so.
    sa.Column("item", sa.Uuid, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    # Rises whenever something changes that the verdicts depend on: what was judged before does not count then.
    sa.Column("version", sa.Integer, nullable=False),
    # From when on it is worth while. NULL: at once.
    sa.Column("due", Moment),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    # A point whose snapshot is still on its hypervisor, as it was when somebody last looked. Its point may be gone.
    sa.Column("item", sa.Uuid, sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("point", sa.String(32), primary_key=True),
    # What the hypervisor knows it by: seconds since 1970.
    sa.Column("stamp", sa.BigInteger, nullable=False),
    # When its time is over.
    sa.Column("until", Moment, nullable=False),
)

footprints = sa.Table(
    "footprints",
    metadata,
    # What the items of a vault cost, as it was last counted. A count is one row: its parts belong together.
    sa.Column("vault", sa.Uuid, sa.ForeignKey("vaults.id", ondelete="CASCADE"), primary_key=True),
    # From when on it is worth while to count again.
    sa.Column("due", Moment, nullable=False),
    # A document; see `control/footprint.py`.
    sa.Column("found", sa.JSON, nullable=False),
)

drills = sa.Table(
    "drills",
    metadata,
    # A point that was started to see whether it does. Its point may be gone.
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("item", sa.Uuid, sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
    sa.Column("point", sa.String(32), nullable=False),
    sa.Column("began", Moment, nullable=False),
    # How far it came: agent, login, screen or none.
    sa.Column("level", sa.String(16), nullable=False),
    # Until it was up; NULL where it never was.
    sa.Column("seconds", sa.Float),
    # What else was seen, see `workloads/running/outcome.py`; and a PNG, empty where there is none.
    sa.Column("outcome", sa.JSON, nullable=False),
    sa.Column("screenshot", sa.LargeBinary, nullable=False),
    sa.Index(None, "item", "began"),
    # Those of the last days, of all items.
    sa.Index(None, "began", "level", "item"),
)
