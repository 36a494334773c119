# SPDX-License-Identifier: Apache-2.0
"""Machines with an agent, and jobs that belong to one. What the columns mean is said in `catalogue/tables`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """All jobs that there are belong to the server's workers."""
    op.create_table(
        "credentials",
        sa.Column("thumbprint", sa.String(64), nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger),
        sa.Column("container", sa.Uuid),
        sa.ForeignKeyConstraint(["vault"], ["vaults.id"], name="fk_credentials_vault", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("thumbprint", name="pk_credentials"),
    )
    op.create_index("ix_credentials_vault_key", "credentials", ["vault", "key"])
    op.create_table(
        "agents",
        sa.Column("container", sa.Uuid, nullable=False),
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("former", sa.String(64)),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.BigInteger),
        sa.Column("seen", sa.BigInteger),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("system", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["container"], ["containers.id"], name="fk_agents_container", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["vault"], ["vaults.id"], name="fk_agents_vault", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("container", name="pk_agents"),
        sa.UniqueConstraint("key", name="uq_agents_key"),
    )
    op.create_index("ix_agents_former", "agents", ["former"])
    op.create_index("ix_agents_vault", "agents", ["vault"])
    op.add_column("jobs", sa.Column("machine", sa.Uuid))
    still_open = sa.text("ended IS NULL")
    op.create_index(
        "ix_jobs_open",
        "jobs",
        ["machine", "status", "due", "lease_until", "ended"],
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
