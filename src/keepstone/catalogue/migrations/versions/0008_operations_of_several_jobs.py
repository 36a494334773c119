# SPDX-License-Identifier: Apache-2.0
"""Operations that are over with several jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """None was until now."""
    op.add_column("operations", sa.Column("beside", sa.JSON))
