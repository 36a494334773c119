# SPDX-License-Identifier: Apache-2.0
"""What is done: jobs, when they fall due, and what clients ask about them."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue.columns import Moment
from keepstone.catalogue.tables.base import metadata

__all__ = ["jobs", "operations", "schedules"]

# Of a hundred jobs more than ninety are backups that went well.
_UNUSUAL = sa.text("status <> 'Completed'")
_NO_BACKUP = sa.text("operation <> 'Backup'")
# Of a million jobs a few thousand are not over.
_OPEN = sa.text("ended IS NULL")

jobs = sa.Table(
    "jobs",
    metadata,
    # The name that clients know it by; never used again.
    sa.Column("id", sa.Uuid, primary_key=True),
    # The vault that it belongs to, and within it the item; no item for work on the whole vault.
    sa.Column("vault", sa.Uuid, nullable=False),
    sa.Column("item", sa.Uuid),
    # The machine (`containers.id`) whose agent is to do it, and nobody else. NULL: a worker of the server.
    sa.Column("machine", sa.Uuid),
    # What is done, and what with: Azure's operation, and what the handler of this operation takes.
    sa.Column("operation", sa.String(64), nullable=False),
    sa.Column("arguments", sa.JSON, nullable=False),
    # What `arguments` call their management, for those who look for jobs of one kind. NULL: they call it nothing.
    sa.Column("management", sa.String(32)),
    # One of jobs.queue.Status. It leaves a final state never.
    sa.Column("status", sa.String(32), nullable=False),
    # Among those that could run now the highest goes first, then the oldest.
    sa.Column("priority", sa.Integer, nullable=False, default=0),
    # When it was asked for, from when on it may run, when a worker first took it, when it came to its end.
    sa.Column("created", Moment, nullable=False),
    sa.Column("due", Moment, nullable=False),
    sa.Column("started", Moment),
    sa.Column("ended", Moment),
    # Who holds it and until when, by the clock of who claimed it; empty while nobody does.
    sa.Column("owner", sa.String(255)),
    sa.Column("lease_until", Moment),
    # Rises with each claim. Whoever writes names the one that he was given: an old one writes nothing.
    sa.Column("token", sa.Integer, nullable=False, default=0),
    # How many workers have had it.
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    # Where the next worker goes on: whatever its handler says. NULL: at the beginning.
    sa.Column("state", sa.JSON),
    # For people: bytes done and expected, and a line.
    sa.Column("progress", sa.JSON),
    # Why it failed: code, message.
    sa.Column("error", sa.JSON),
    # What became of it, step by step: `jobs.log`. NULL: nothing yet.
    sa.Column("log", sa.JSON),
    # The correlation id of the request that asked for it; empty for what a schedule asked for.
    sa.Column("activity", sa.String(64)),
    sa.Index(None, "status", "due"),  # what could run
    # The same of one machine, and which machines have something, asked again and again.
    sa.Index(
        "ix_jobs_open",
        "machine",
        "status",
        "due",
        "lease_until",
        "ended",  # NULL in all of them, but SQLite looks
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    ),
    # A vault's jobs, newest first, page by page: all; those of one kind; and what is rare, with whatever else is asked
    # of it. `control/jobs.py` says which of them it means.
    sa.Index(None, "vault", "created"),
    sa.Index(None, "vault", "management", "created"),
    sa.Index(
        "ix_jobs_unusual",
        "vault",
        "status",
        "created",
        "operation",
        "management",
        sqlite_where=_UNUSUAL,
        postgresql_where=_UNUSUAL,
    ),
    sa.Index(
        "ix_jobs_no_backup",
        "vault",
        "operation",
        "created",
        "status",
        "management",
        sqlite_where=_NO_BACKUP,
        postgresql_where=_NO_BACKUP,
    ),
    sa.Index(None, "item", "created"),
)

schedules = sa.Table(
    "schedules",
    metadata,
    # A protected item, and the part of its policy that this is: Full, Log …
    sa.Column("item", sa.Uuid, primary_key=True),
    sa.Column("part", sa.String(32), primary_key=True),
    sa.Column("vault", sa.Uuid, nullable=False),
    # When it is to run next. Moved on in the transaction that asks for the job.
    sa.Column("due", Moment, nullable=False),
    sa.Index(None, "due"),
)

operations = sa.Table(
    "operations",
    metadata,
    # What a client that was answered 202 asks about, by the last segment of the address that it got.
    sa.Column("id", sa.Uuid, primary_key=True),
    # NULL for work on a resource that is no vault, or that is gone.
    sa.Column("vault", sa.Uuid),
    # The job that the request began. NULL: it made none.
    sa.Column("job", sa.Uuid),
    # Jobs that have to be over besides, for one that is over with them: their ids. NULL: none.
    sa.Column("beside", sa.JSON),
    # InProgress, Succeeded or Failed. The request is over with its answer, so most are Succeeded from the beginning.
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("started", Moment, nullable=False),
    sa.Column("ended", Moment),
    # Why it failed: code, message.
    sa.Column("error", sa.JSON),
    # What else its result says: a document.
    sa.Column("result", sa.JSON),
    sa.Index(None, "ended"),
)
