# SPDX-License-Identifier: Apache-2.0
"""Points whose snapshots are still on their hypervisors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """None is until now."""
    op.create_table(
        "snapshots",
        sa.Column("item", sa.Uuid, nullable=False),
        sa.Column("point", sa.String(32), nullable=False),
        sa.Column("stamp", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("item", "point", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["item"], ["items.id"], name="fk_snapshots_item", ondelete="CASCADE"),
    )
