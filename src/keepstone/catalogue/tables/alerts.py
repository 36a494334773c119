# SPDX-License-Identifier: Apache-2.0
"""What people have to know of, whom to tell, and what they were not told yet."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue.columns import Moment
from keepstone.catalogue.tables.base import metadata

__all__ = ["alerts", "notices", "targets"]

_GOES_ON = sa.text("ended IS NULL")

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    # What it is about (vault/alerts.py, Subject). NULL for the service itself, and for all of a vault. Neither needs to
    # be there any more.
    sa.Column("vault", sa.Uuid),
    sa.Column("item", sa.Uuid),
    sa.Column("kind", sa.String(32), nullable=False),
    # All of that in one text. One alert of a subject goes on at a time.
    sa.Column("subject", sa.String(160), nullable=False),
    # The resource id of the vault, or of the subscription: whoever may see that may see it.
    sa.Column("resource", sa.String(2048), nullable=False),
    # What people call the item; the vault's name where it is about all of it.
    sa.Column("entity", sa.String(1024), nullable=False),
    # What happened last, in a sentence.
    sa.Column("message", sa.Text, nullable=False),
    # What people did about it, and whether it is still so.
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("condition", sa.String(16), nullable=False),
    # How often it happened, and when first and last.
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("raised", Moment, nullable=False),
    sa.Column("last", Moment, nullable=False),
    # When anything of this changed.
    sa.Column("changed", Moment, nullable=False),
    # The job that it happened in last.
    sa.Column("job", sa.Uuid),
    # Since when it is not so any more; from when on the same again is another alert. NULL: it goes on.
    sa.Column("resolved", Moment),
    sa.Column("ended", Moment),
    # Who changed its state, by the name that he logs in with. NULL: nobody did.
    sa.Column("by", sa.String(255)),
    sa.Index(
        "uq_alerts_going_on",
        "subject",
        unique=True,
        sqlite_where=_GOES_ON,
        postgresql_where=_GOES_ON,
    ),
    sa.Index(None, "vault", "changed"),
    sa.Index(None, "vault", "item"),
    sa.Index(None, "changed", "id"),
)

targets = sa.Table(
    "targets",
    metadata,
    # Whom to tell of a vault's alerts. Not in the vault's journal: only this installation can open the address.
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("vault", sa.Uuid, nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    # The address, sealed by the installation's key for such things; and what of it everybody may see.
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("shown", sa.String(255), nullable=False),
    sa.Column("created", Moment, nullable=False),
    # How often in a row it could not be told, when and why last; and when it was told last.
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("error", sa.String(512)),
    sa.Column("failed", Moment),
    sa.Column("delivered", Moment),
    # Nobody tries before. A sender moves it on before he begins, so that no other one begins as well.
    sa.Column("due", Moment, nullable=False),
    sa.UniqueConstraint("vault", "key"),
)

notices = sa.Table(
    "notices",
    metadata,
    # What a target was not told yet, in order: of which alert, and whether it was fired or resolved.
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("target", sa.Uuid, nullable=False),
    sa.Column("alert", sa.Uuid, nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("made", Moment, nullable=False),
    sa.Index(None, "target", "sequence"),
)
