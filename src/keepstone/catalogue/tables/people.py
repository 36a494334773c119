# SPDX-License-Identifier: Apache-2.0
"""Who may ask, and what they may do."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue.columns import Moment
from keepstone.catalogue.tables.base import metadata

__all__ = ["assignments", "attempts", "logins", "principals", "submissions"]

principals = sa.Table(
    "principals",
    metadata,
    # The object id, which role assignments name.
    sa.Column("id", sa.String(36), primary_key=True),
    # `app` (a service principal), `user`, or `identity` (the managed identity of a machine).
    sa.Column("kind", sa.String(16), nullable=False),
    # What it logs in with, folded: the application's id, or the user's name.
    sa.Column("login", sa.String(255), nullable=False, unique=True),
    # For people.
    sa.Column("name", sa.String(255), nullable=False),
    # Argon2id of what it proves itself by, PHC format; empty where it has no secret.
    sa.Column("secret", sa.String(255)),
    sa.Column("created", Moment, nullable=False),
    # After this moment its secret does not count any more; empty: for ever.
    sa.Column("expires", Moment),
    # When its secret was changed last. NULL: it has the one that it began with.
    sa.Column("changed", Moment),
)

assignments = sa.Table(
    "assignments",
    metadata,
    # The name of the assignment, a GUID that its maker chose.
    sa.Column("id", sa.String(36), primary_key=True),
    # An object id. There need not be such a principal: that one may do nothing.
    sa.Column("principal", sa.String(36), nullable=False, index=True),
    # The GUID of a role definition.
    sa.Column("role", sa.String(36), nullable=False),
    # The path of a resource, as it was written; it holds for everything beneath.
    sa.Column("scope", sa.String(2048), nullable=False),
    sa.Column("created", Moment, nullable=False),
    # Who made it; empty for those of the first start.
    sa.Column("creator", sa.String(36)),
    # What for, in its maker's words; NULL where he said nothing.
    sa.Column("description", sa.String(1024)),
)

attempts = sa.Table(
    "attempts",
    metadata,
    # Logins that failed, or have not come to their end. SHA-256 of what somebody logged in with, folded: it may be
    # anything, also the name of nobody.
    sa.Column("login", sa.LargeBinary, primary_key=True),
    # How many in a row, and the moment of the last one.
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("last", Moment, nullable=False),
    sa.Index(None, "last"),
)

logins = sa.Table(
    "logins",
    metadata,
    # People who are logged in at the portal. SHA-256 of what their browser proves itself by.
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("principal", sa.ForeignKey("principals.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("began", Moment, nullable=False),
    # When it was last used, to a minute.
    sa.Column("seen", Moment, nullable=False),
    sa.Index(None, "seen"),
)

submissions = sa.Table(
    "submissions",
    metadata,
    # Forms of the portal that were sent: each counts once. What the form is told by, made up with it.
    sa.Column("key", sa.String(64), primary_key=True),
    # The principal who sent it.
    sa.Column("principal", sa.String(36), nullable=False),
    sa.Column("sent", Moment, nullable=False),
    # The page that shows what came of it; empty while it is being done.
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Index(None, "sent"),
)
