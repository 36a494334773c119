# SPDX-License-Identifier: Apache-2.0
"""When a password was changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Nobody knows it of those that there are: they count as never changed."""
    op.add_column("principals", sa.Column("changed", sa.BigInteger))
