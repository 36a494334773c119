# SPDX-License-Identifier: Apache-2.0
"""Logins that failed: after some in a row the next ones have to wait, ever longer, so that nobody guesses a password.

Invariants
* An attempt is counted before anybody looks whether it is right. So many at once, in several processes, are as many as
  one after another.
* Names of nobody are slowed down like those of users: so nobody learns which are which.

What a program logs in with is made up by the service and cannot be guessed. It is not slowed down, or whoever reaches
the port could keep a program out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa

from keepstone.catalogue import attempts
from keepstone.catalogue.database import upsert
from keepstone.control.plane import Plane
from keepstone.errors import Unauthenticated
from keepstone.vault import folded

__all__ = ["begin", "forget", "pardon"]

_FREE = 10
"""Attempts in a row that wait for nothing."""
_LONGEST = timedelta(minutes=1)
_MEMORY = timedelta(hours=1)
"""After this time without an attempt there was none."""


def begin(plane: Plane, login: str) -> None:
    """Count an attempt. `Unauthenticated` where it comes too early, and is not looked at."""
    key, now = _key(login), plane.env.utc()
    mine = attempts.c.login == key
    with plane.database.change() as connection:
        connection.execute(attempts.delete().where(mine, attempts.c.last <= now - _MEMORY))
        new = upsert(connection, attempts).values(login=key, count=0, last=now)
        connection.execute(new.on_conflict_do_nothing())
        query = sa.select(attempts.c.count, attempts.c.last).where(mine).with_for_update()
        count, last = connection.execute(query).one()
        left = _wait(count) - (now - last)
        if left > timedelta() and last <= now:  # a clock that was set back keeps nobody out
            raise Unauthenticated(
                f"AADSTS50053: there were {count} wrong attempts for this name; try again in "
                f"{left.total_seconds():.0f} seconds, or have the password reset: `keepstone user reset-password`"
            )
        connection.execute(attempts.update().where(mine).values(count=attempts.c.count + 1, last=now))


def pardon(connection: sa.Connection, login: str) -> None:
    """The attempts of somebody who has proved himself, or has another password now, are forgotten."""
    connection.execute(attempts.delete().where(attempts.c.login == _key(login)))


def forget(connection: sa.Connection, now: datetime) -> None:
    """Forget what nobody is slowed down by any more."""
    connection.execute(attempts.delete().where(attempts.c.last <= now - _MEMORY))


def _wait(count: int) -> timedelta:
    """How long the next attempt has to wait after so many: 1, 2, 4 … seconds."""
    if count < _FREE:
        return timedelta()
    return min(timedelta(seconds=1 << min(count - _FREE, 10)), _LONGEST)


def _key(login: str) -> bytes:
    return sha256(folded(login).encode("utf-8", "surrogatepass")).digest()
