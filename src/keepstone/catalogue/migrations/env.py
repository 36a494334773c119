# SPDX-License-Identifier: Apache-2.0
"""Runs the steps of `versions` on the connection of `catalogue/migrate.py`, within its transaction. Alembic calls this
file by its name; there is no ini file beside it."""

from __future__ import annotations

from alembic import context

__all__: list[str] = []

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
