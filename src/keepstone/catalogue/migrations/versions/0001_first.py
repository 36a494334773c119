# SPDX-License-Identifier: Apache-2.0
"""The tables of version 0.3, as they were then. What the columns mean is said in `catalogue/tables`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0001"
down_revision = None


def upgrade() -> None:
    """An empty database gets its tables."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid),
        sa.Column("item", sa.Uuid),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(160), nullable=False),
        sa.Column("resource", sa.String(2048), nullable=False),
        sa.Column("entity", sa.String(1024), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("condition", sa.String(16), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("raised", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("job", sa.Uuid),
        sa.Column("resolved", sa.BigInteger),
        sa.Column("ended", sa.BigInteger),
        sa.Column("by", sa.String(255)),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
    )
    op.create_index(
        "uq_alerts_going_on",
        "alerts",
        ["subject"],
        unique=True,
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    )
    op.create_index("ix_alerts_vault_changed", "alerts", ["vault", "changed"])
    op.create_index("ix_alerts_vault_item", "alerts", ["vault", "item"])
    op.create_index("ix_alerts_changed_id", "alerts", ["changed", "id"])
    op.create_table(
        "assignments",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("principal", sa.String(36), nullable=False),
        sa.Column("role", sa.String(36), nullable=False),
        sa.Column("scope", sa.String(2048), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String(36)),
        sa.PrimaryKeyConstraint("id", name="pk_assignments"),
    )
    op.create_index("ix_assignments_principal", "assignments", ["principal"])
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_facts"),
    )
    op.create_table(
        "groups",
        sa.Column("subscription", sa.String(36), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("location", sa.String(64), nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subscription", "key", name="pk_groups"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("item", sa.Uuid),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("management", sa.String(32)),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger),
        sa.Column("ended", sa.BigInteger),
        sa.Column("owner", sa.String(255)),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.JSON),
        sa.Column("progress", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("activity", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_item_created", "jobs", ["item", "created"])
    op.create_index("ix_jobs_status_due", "jobs", ["status", "due"])
    op.create_index("ix_jobs_vault_created", "jobs", ["vault", "created"])
    op.create_index("ix_jobs_vault_management_created", "jobs", ["vault", "management", "created"])
    for name, columns, where in (
        ("no_backup", ["operation", "created", "status", "management"], sa.text("operation <> 'Backup'")),
        ("unusual", ["status", "created", "operation", "management"], sa.text("status <> 'Completed'")),
    ):
        op.create_index(f"ix_jobs_{name}", "jobs", ["vault", *columns], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "locks",
        sa.Column("scope", sa.String(2048), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("level", sa.String(32), nullable=False),
        sa.Column("notes", sa.String(512)),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_locks"),
    )
    op.create_table(
        "notices",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        sa.Column("target", sa.Uuid, nullable=False),
        sa.Column("alert", sa.Uuid, nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("made", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_notices"),
    )
    op.create_index("ix_notices_target_sequence", "notices", ["target", "sequence"])
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid),
        sa.Column("job", sa.Uuid),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger),
        sa.Column("error", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
    )
    op.create_index("ix_operations_ended", "operations", ["ended"])
    op.create_table(
        "outbox",
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("snapshot", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("vault", "sequence", name="pk_outbox"),
    )
    op.create_table(
        "principals",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("login", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("secret", sa.String(255)),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_principals"),
        sa.UniqueConstraint("login", name="uq_principals_login"),
    )
    op.create_table(
        "resources",
        sa.Column("key", sa.String(2048), nullable=False),
        sa.Column("subscription", sa.String(36), nullable=False),
        sa.Column("group_key", sa.String(255), nullable=False),
        sa.Column("group_name", sa.String(255), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("location", sa.String(64), nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_resources"),
    )
    op.create_index("ix_resources_subscription_group_key", "resources", ["subscription", "group_key"])
    op.create_table(
        "schedules",
        sa.Column("item", sa.Uuid, nullable=False),
        sa.Column("part", sa.String(32), nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("item", "part", name="pk_schedules"),
    )
    op.create_index("ix_schedules_due", "schedules", ["due"])
    op.create_table(
        "targets",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("shown", sa.String(255), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("error", sa.String(512)),
        sa.Column("failed", sa.BigInteger),
        sa.Column("delivered", sa.BigInteger),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_targets"),
        sa.UniqueConstraint("vault", "key", name="uq_targets_vault_key"),
    )
    op.create_table(
        "vaults",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("subscription", sa.String(36), nullable=False),
        sa.Column("group_key", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("group_name", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("location", sa.String(64), nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("sku", sa.JSON, nullable=False),
        sa.Column("identity", sa.JSON),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.BigInteger),
        sa.Column("purge", sa.BigInteger),
        sa.Column("journal", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vaults"),
    )
    op.create_index(
        "uq_vaults_living",
        "vaults",
        ["subscription", "group_key", "key"],
        unique=True,
        sqlite_where=sa.text("deleted IS NULL"),
        postgresql_where=sa.text("deleted IS NULL"),
    )
    op.create_table(
        "containers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("friendly", sa.String(255), nullable=False),
        sa.Column("management", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("registered", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["vault"], ["vaults.id"], name="fk_containers_vault"),
        sa.PrimaryKeyConstraint("id", name="pk_containers"),
        sa.UniqueConstraint("vault", "key", name="uq_containers_vault_key"),
    )
    op.create_table(
        "footprints",
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.Column("found", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["vault"], ["vaults.id"], name="fk_footprints_vault", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("vault", name="pk_footprints"),
    )
    op.create_table(
        "policies",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("management", sa.String(32), nullable=False),
        sa.Column("workload", sa.String(64)),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["vault"], ["vaults.id"], name="fk_policies_vault"),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sa.UniqueConstraint("vault", "key", name="uq_policies_vault_key"),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("container", sa.Uuid, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("friendly", sa.String(1024), nullable=False),
        sa.Column("management", sa.String(32), nullable=False),
        sa.Column("workload", sa.String(64), nullable=False),
        sa.Column("policy", sa.Uuid),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("source", sa.JSON, nullable=False),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("backed_up", sa.BigInteger),
        sa.Column("outcome", sa.String(32)),
        sa.Column("newest", sa.BigInteger),
        sa.Column("deleted", sa.BigInteger),
        sa.Column("purge", sa.BigInteger),
        sa.ForeignKeyConstraint(["container"], ["containers.id"], name="fk_items_container"),
        sa.ForeignKeyConstraint(["policy"], ["policies.id"], name="fk_items_policy"),
        sa.ForeignKeyConstraint(["vault"], ["vaults.id"], name="fk_items_vault"),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        sa.UniqueConstraint("container", "key", name="uq_items_container_key"),
    )
    op.create_index("ix_items_policy", "items", ["policy"])
    op.create_index("ix_items_vault_key", "items", ["vault", "key"])
    op.create_table(
        "points",
        sa.Column("item", sa.Uuid, nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("commit_id", sa.String(64), nullable=False),
        sa.Column("made", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("consistency", sa.String(32), nullable=False),
        sa.Column("own", sa.BigInteger),
        sa.Column("until", sa.BigInteger),
        sa.Column("rule", sa.String(32)),
        sa.Column("locked", sa.BigInteger),
        sa.Column("deleted", sa.BigInteger),
        sa.Column("logical", sa.BigInteger, nullable=False),
        sa.Column("fresh", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.BigInteger, nullable=False),
        sa.Column("warnings", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["item"], ["items.id"], name="fk_points_item"),
        sa.PrimaryKeyConstraint("item", "name", name="pk_points"),
    )
    op.create_index("ix_points_item_made", "points", ["item", "made"])
