# SPDX-License-Identifier: Apache-2.0
"""Machines with an agent: what they may register with, and what they are known by then.

And which of them wrote into a vault's store. None of it is in a vault's journal: see `catalogue/journal.py`.
"""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue.columns import Moment
from keepstone.catalogue.tables.base import metadata

__all__ = ["agents", "credentials", "writers"]


def _vault() -> sa.Column[object]:
    return sa.Column("vault", sa.Uuid, sa.ForeignKey("vaults.id", ondelete="CASCADE"), nullable=False)


credentials = sa.Table(
    "credentials",
    metadata,
    # SHA-256 of the certificate, in hexadecimal. Who has its key may register one machine, once.
    sa.Column("thumbprint", sa.String(64), primary_key=True),
    _vault(),
    # What whoever made them called them. Others of this name take the place of those that nobody has used.
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    # DER.
    sa.Column("certificate", sa.LargeBinary, nullable=False),
    # When they came, and until when a machine may register with them.
    sa.Column("created", Moment, nullable=False),
    sa.Column("until", Moment, nullable=False),
    # When a machine registered with them, and as which container. NULL: none has.
    sa.Column("used", Moment),
    sa.Column("container", sa.Uuid),
    sa.Index(None, "vault", "key"),
)

writers = sa.Table(
    "writers",
    metadata,
    # Which machines have brought something into the store of a vault: containers, also after they are gone, or nil for
    # the service's own workers and for whoever did so before there were notes.
    sa.Column("vault", sa.Uuid, sa.ForeignKey("vaults.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("machine", sa.Uuid, primary_key=True),
)

agents = sa.Table(
    "agents",
    metadata,
    # The machine. It has one agent at most; where that is revoked, the next one to register takes the row over.
    sa.Column("container", sa.Uuid, sa.ForeignKey("containers.id", ondelete="CASCADE"), primary_key=True),
    _vault(),
    # SHA-256 of its public key (SubjectPublicKeyInfo, DER), in hexadecimal: what a connection proves to have.
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    # The key that it had before its last renewal, which may only ask for that renewal's answer again. NULL: none.
    sa.Column("former", sa.String(64), index=True),
    # The end of its newest certificate.
    sa.Column("until", Moment, nullable=False),
    # When somebody took its identity away. NULL: it has it.
    sa.Column("revoked", Moment),
    # When it last spoke to the service, and the version of Keepstone that it was then. NULL: never.
    sa.Column("seen", Moment),
    sa.Column("version", sa.String(64), nullable=False),
    # What it said of its machine as it registered: os, release, python, cpus, capabilities.
    sa.Column("system", sa.JSON, nullable=False),
    sa.Index(None, "vault"),
)
