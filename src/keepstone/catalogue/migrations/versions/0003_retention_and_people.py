# SPDX-License-Identifier: Apache-2.0
"""When retention judges an item again, logins that failed, and what else clients say of roles and resources."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Every item is judged at the next run, for none has been until now."""
    op.create_table(
        "judgements",
        sa.Column("item", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.PrimaryKeyConstraint("item", name="pk_judgements"),
        sa.ForeignKeyConstraint(["item"], ["items.id"], name="fk_judgements_item", ondelete="CASCADE"),
    )
    op.create_table(
        "attempts",
        sa.Column("login", sa.LargeBinary, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("login", name="pk_attempts"),
    )
    op.create_index("ix_attempts_last", "attempts", ["last"])
    op.create_index("ix_points_sizes", "points", ["vault", "deleted", "logical", "fresh", "stored"])
    op.add_column("assignments", sa.Column("description", sa.String(1024)))
    op.add_column("resources", sa.Column("sku", sa.JSON))
    op.add_column("resources", sa.Column("kind", sa.String(255)))
    op.add_column("resources", sa.Column("zones", sa.JSON))
