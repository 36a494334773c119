# SPDX-License-Identifier: Apache-2.0
"""Which machines have brought something into the store of a vault."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Into those that there are somebody has whom nobody knows."""
    writers = op.create_table(
        "writers",
        sa.Column("vault", sa.Uuid, nullable=False),
        sa.Column("machine", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("vault", "machine", name="pk_writers"),
        sa.ForeignKeyConstraint(["vault"], ["vaults.id"], name="fk_writers_vault", ondelete="CASCADE"),
    )
    vaults = sa.table("vaults", sa.column("id", sa.Uuid))
    known = sa.select(vaults.c.id, sa.literal(UUID(int=0), sa.Uuid))
    op.execute(writers.insert().from_select(["vault", "machine"], known))
