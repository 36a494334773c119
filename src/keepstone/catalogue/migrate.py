# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to the tables of this version."""

from __future__ import annotations

from keepstone.catalogue.database import Database
from keepstone.catalogue.tables import metadata

__all__ = ["migrate"]


def migrate(database: Database) -> None:
    """Make the tables that are missing."""
    with database.change() as connection:
        metadata.create_all(connection)
