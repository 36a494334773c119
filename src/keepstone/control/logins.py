# SPDX-License-Identifier: Apache-2.0
"""People who are logged in at the portal, and the forms that they sent.

Invariants
* A browser holds a random token, and the database only its hash: who reads the database is nobody by it.
* A login ends half an hour after it was last used, twelve hours after it began, and with another password, at once.
* A form counts once, however often it is sent: whoever sends it first does it, everybody else is shown what came of
  it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa

from keepstone.catalogue import logins, principals, submissions
from keepstone.catalogue.database import upsert
from keepstone.control.people import KIND_OF_USER
from keepstone.control.plane import Plane
from keepstone.errors import Unauthenticated
from keepstone.identity import Principal

__all__ = ["IDLE", "LONGEST", "Login", "begin", "end", "end_all", "find", "finish", "forget", "submit"]

IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=12)
_NOTED = timedelta(minutes=1)  # how exactly it is known when one was last used
_REMEMBERED = timedelta(days=1)  # a form that is older is refused by its page, which is over by then
_OVER = "nobody is logged in any more; log in again"


@dataclass(frozen=True, slots=True)
class Login:
    """`ends`: when it is over if nothing is done any more."""

    who: Principal
    ends: datetime


def begin(plane: Plane, who: Principal) -> str:
    """Somebody has proved who he is: the token of his browser."""
    token = random_text(plane)
    now = plane.env.utc()
    with plane.database.change() as connection:
        connection.execute(logins.insert().values(key=_key(token), principal=who.id, began=now, seen=now))
    return token


def find(plane: Plane, token: str, *, note: bool = True) -> Login:
    """Whose token this is. `Unauthenticated` for one that is over, or none. `note`: whether this is a use of it."""
    if not token:
        raise Unauthenticated(_OVER)
    now = plane.env.utc()
    columns = logins.c.began, logins.c.seen, principals.c.id, principals.c.login, principals.c.kind, principals.c.name
    query = sa.select(*columns).join(principals, principals.c.id == logins.c.principal)
    with plane.look() as connection:
        row = connection.execute(query.where(logins.c.key == _key(token))).first()
    if row is None or not now < min(row.seen + IDLE, row.began + LONGEST):
        raise Unauthenticated(_OVER)
    if note and now - row.seen > _NOTED:
        with plane.database.change() as connection:
            connection.execute(logins.update().where(logins.c.key == _key(token)).values(seen=now))
    kind = "user" if row.kind == KIND_OF_USER else "app"
    return Login(Principal(row.id, row.login, kind, row.name), min(now + IDLE, row.began + LONGEST))


def end(plane: Plane, token: str) -> None:
    """Log out."""
    with plane.database.change() as connection:
        connection.execute(logins.delete().where(logins.c.key == _key(token)))


def end_all(connection: sa.Connection, principal: str, but: str = "") -> None:
    """Log somebody out wherever he is; `but`: the token of where he is not to be."""
    connection.execute(logins.delete().where(logins.c.principal == principal, logins.c.key != _key(but)))


def random_text(plane: Plane) -> str:
    """What nobody can guess; 43 characters that may stand anywhere."""
    return urlsafe_b64encode(plane.env.random(32)).decode().rstrip("=")


def submit(plane: Plane, who: Principal, form: str) -> str | None:
    """A form is sent, which is told by `form`. None where it is for the caller to do it, and to `finish` it then;
    where it was sent before what came of it, and an empty text where that goes on."""
    with plane.database.change() as connection:
        new = upsert(connection, submissions).values(
            key=_form(form), principal=who.id, sent=plane.env.utc(), outcome=""
        )
        if connection.execute(new.on_conflict_do_nothing()).rowcount:
            return None
        mine = submissions.c.key == _form(form), submissions.c.principal == who.id
        return connection.execute(sa.select(submissions.c.outcome).where(*mine)).scalar() or ""


def finish(plane: Plane, form: str, outcome: str | None) -> None:
    """What came of a form; None where nothing did, and it may be sent again."""
    mine = submissions.c.key == _form(form)
    with plane.database.change() as connection:
        if outcome is None:
            connection.execute(submissions.delete().where(mine))
        else:
            connection.execute(submissions.update().where(mine).values(outcome=outcome))


def forget(connection: sa.Connection, now: datetime) -> None:
    """Forget what is over."""
    connection.execute(logins.delete().where(sa.or_(logins.c.seen <= now - IDLE, logins.c.began <= now - LONGEST)))
    connection.execute(submissions.delete().where(submissions.c.sent <= now - _REMEMBERED))


def _key(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _form(form: str) -> str:
    return sha256(form.encode("utf-8", "surrogatepass")).hexdigest()
