# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to the tables of this version of Keepstone.

Each release that changes tables adds a step to `migrations/versions`; a step that was released is never changed. Steps
go one way: what a newer version has changed is not taken back, and an older one does not touch it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from keepstone.catalogue.database import Database
from keepstone.catalogue.tables import metadata
from keepstone.errors import UnsupportedFormat

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["check", "migrate", "version"]

_LOCK = 0x6B656570  # of PostgreSQL; whoever else brings this database to a version takes the same one


def migrate(database: Database) -> None:
    """Take the steps that are missing, all of them in one transaction; several processes may do it at once.

    `UnsupportedFormat` for a database of a newer version, and for one whose tables are not Keepstone's.
    """
    from alembic import command
    from alembic.script import ScriptDirectory

    with database.change() as connection:
        if not database.is_sqlite:  # where a transaction that writes has the whole database anyway
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        config = _config(connection)
        known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
        _check(connection, known)
        command.upgrade(config, "head")


def check(database: Database) -> None:
    """`UnsupportedFormat` where a database is not at the newest step. Cheap: whoever opens a database looks."""
    newest = max(path.name.partition("_")[0] for path in Path(__file__).with_name("migrations").glob("versions/*.py"))
    with database.look() as connection:
        has = sa.inspect(connection).has_table("alembic_version")
        current = connection.execute(sa.text("select version_num from alembic_version")).scalar() if has else None
    if current != newest:
        raise UnsupportedFormat(
            f"the database is at step {current or 'none'}, and this Keepstone works with step {newest}; `keepstone up` "
            "takes the steps that are missing, and for a newer one install the Keepstone that it belongs to"
        )


def version(database: Database) -> str | None:
    """The number of the last step that a database has taken; None for an empty one."""
    with database.look() as connection:
        return _version(connection)


def _version(connection: sa.Connection) -> str | None:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _check(connection: sa.Connection, known: set[str]) -> None:
    """Whether the known steps can be taken from here."""
    current = _version(connection)
    if current is not None and current not in known:
        raise UnsupportedFormat(
            f"the database is of version {current}, and this Keepstone knows versions up to {max(known)}; install the "
            "newer Keepstone that it belongs to"
        )
    foreign = set(sa.inspect(connection).get_table_names()) & set(metadata.tables)
    if current is None and foreign:
        raise UnsupportedFormat(
            f"the database has a table '{min(foreign)}' that is not of Keepstone; give Keepstone a database of its own"
        )


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config
