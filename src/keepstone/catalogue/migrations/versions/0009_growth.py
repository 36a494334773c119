# SPDX-License-Identifier: Apache-2.0
"""What points take is asked by the time that they were made, items by how they are, and drills by their time."""

from __future__ import annotations

from alembic import op

__all__ = ["upgrade"]

revision = "0009"
down_revision = "0008"
_SIZES = "ix_points_sizes"


def upgrade() -> None:
    """Indexes alone."""
    op.drop_index(_SIZES, "points")
    op.create_index(_SIZES, "points", ["vault", "made", "deleted", "logical", "fresh", "stored"])
    op.create_index("ix_items_health", "items", ["vault", "deleted", "policy", "state", "workload", "newest"])
    op.create_index("ix_drills_began_level_item", "drills", ["began", "level", "item"])
