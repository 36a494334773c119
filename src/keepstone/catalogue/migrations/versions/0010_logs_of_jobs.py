# SPDX-License-Identifier: Apache-2.0
"""What became of jobs, step by step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["upgrade"]

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Those that there are have none."""
    op.add_column("jobs", sa.Column("log", sa.JSON))
