# SPDX-License-Identifier: Apache-2.0
"""People who are logged in at the portal, and the forms that they sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nobody has been until now."""
    op.create_table(
        "logins",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("principal", sa.String(36), nullable=False),
        sa.Column("began", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_logins"),
        sa.ForeignKeyConstraint(["principal"], ["principals.id"], name="fk_logins_principal", ondelete="CASCADE"),
    )
    op.create_index("ix_logins_principal", "logins", ["principal"])
    op.create_index("ix_logins_seen", "logins", ["seen"])
    op.create_table(
        "submissions",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("principal", sa.String(36), nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_submissions"),
    )
    op.create_index("ix_submissions_sent", "submissions", ["sent"])
