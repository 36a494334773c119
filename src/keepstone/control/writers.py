# SPDX-License-Identifier: Apache-2.0
"""Which machines have brought something into the store of a vault.

Where it was one, all that lies in the store is its own. Then it may read frames as they are: how chunks lie together
tells it of nobody else.

Invariants
* A machine is noted before the first byte that it brings is in the store.
* That is never taken back, for what it brought may be there when its points are gone.
* What came before there were notes, or by a rebuild, is of somebody whom nobody knows.
"""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import writers
from keepstone.control.plane import Plane

__all__ = ["OTHERS", "is_alone", "note"]

OTHERS = UUID(int=0)
"""The service's own workers, and whoever is not known."""
_WRITERS = sa.select(writers.c.machine).where(writers.c.vault == sa.bindparam("its")).limit(2)
"""Two of a vault at most. Made once: readers ask many times a second."""


def note(plane: Plane, vault: UUID, machine: UUID = OTHERS) -> None:
    """It is going to write. On return that is durable."""
    mine = writers.c.vault == vault, writers.c.machine == machine
    with plane.look() as connection:
        if connection.execute(sa.select(writers.c.vault).where(*mine)).first() is not None:
            return
    try:
        with plane.database.change() as connection:
            connection.execute(writers.insert().values(vault=vault, machine=machine))
    except sa.exc.IntegrityError:
        with plane.look() as connection:  # another process was faster, or there is no such vault
            connection.execute(sa.select(writers.c.vault).where(*mine)).one()


def is_alone(plane: Plane, vault: UUID, machine: UUID) -> bool:
    """Whether it has brought all that there is."""
    with plane.look() as connection:
        return list(connection.execute(_WRITERS, {"its": vault}).scalars()) == [machine]
