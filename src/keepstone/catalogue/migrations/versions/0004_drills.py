# SPDX-License-Identifier: Apache-2.0
"""Restore drills: points that were started to see whether they do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """None has been until now."""
    op.create_table(
        "drills",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("item", sa.Uuid, nullable=False),
        sa.Column("point", sa.String(32), nullable=False),
        sa.Column("began", sa.BigInteger, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("outcome", sa.JSON, nullable=False),
        sa.Column("screenshot", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_drills"),
        sa.ForeignKeyConstraint(["item"], ["items.id"], name="fk_drills_item", ondelete="CASCADE"),
    )
    op.create_index("ix_drills_item_began", "drills", ["item", "began"])
