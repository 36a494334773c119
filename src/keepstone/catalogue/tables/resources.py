# SPDX-License-Identifier: Apache-2.0
"""The resources of ARM: groups, vaults, and what stands around them."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.catalogue.columns import Moment
from keepstone.catalogue.tables.base import metadata

__all__ = ["facts", "groups", "locks", "outbox", "resources", "vaults"]

facts = sa.Table(
    "facts",
    metadata,
    # What this installation is: its tenant, subscription and location. Written at the first start, never changed.
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("subscription", sa.String(36), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("location", sa.String(64), nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("created", Moment, nullable=False),
)

vaults = sa.Table(
    "vaults",
    metadata,
    # Names its store, its keys and its rows elsewhere; never used again.
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("subscription", sa.String(36), nullable=False),
    # The resource group that it is in, folded. There is one of this key.
    sa.Column("group_key", sa.String(255), nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("group_name", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("location", sa.String(64), nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("sku", sa.JSON, nullable=False),
    # NULL: the vault has no managed identity.
    sa.Column("identity", sa.JSON),
    sa.Column("properties", sa.JSON, nullable=False),
    # Settings that have resources of their own beneath the vault: vaultconfig, extended information …, by their names.
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("created", Moment, nullable=False),
    # When it was last changed, from which its etag is made.
    sa.Column("changed", Moment, nullable=False),
    # When it was deleted, and from when on its store may go. NULL: it lives.
    sa.Column("deleted", Moment),
    sa.Column("purge", Moment),
    # The number of the last entry of its journal.
    sa.Column("journal", sa.BigInteger, nullable=False, default=0),
    # One vault of a name lives in a group; those that are deleted do not count.
    sa.Index(
        "uq_vaults_living",
        "subscription",
        "group_key",
        "key",
        unique=True,
        sqlite_where=sa.text("deleted IS NULL"),
        postgresql_where=sa.text("deleted IS NULL"),
    ),
)

resources = sa.Table(
    "resources",
    metadata,
    # What stands around a vault: virtual machines, storage accounts, networks. The whole path, folded.
    sa.Column("key", sa.String(2048), primary_key=True),
    sa.Column("subscription", sa.String(36), nullable=False),
    sa.Column("group_key", sa.String(255), nullable=False),
    sa.Column("group_name", sa.String(255), nullable=False),
    # Such as Microsoft.Compute/virtualMachines, as it was written.
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("location", sa.String(64), nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    # What else its makers say beside the properties; NULL where they do not.
    sa.Column("sku", sa.JSON(none_as_null=True)),
    sa.Column("kind", sa.String(255)),
    sa.Column("zones", sa.JSON(none_as_null=True)),
    sa.Column("created", Moment, nullable=False),
    sa.Index(None, "subscription", "group_key"),
)

locks = sa.Table(
    "locks",
    metadata,
    # The scope that it holds for, folded, with everything beneath, and its name there.
    sa.Column("scope", sa.String(2048), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    # CanNotDelete or ReadOnly.
    sa.Column("level", sa.String(32), nullable=False),
    sa.Column("notes", sa.String(512)),
)

outbox = sa.Table(
    "outbox",
    metadata,
    # Entries of a vault's journal that are not in its store yet, in order; they go when they are.
    sa.Column("vault", sa.Uuid, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    # Whether the entry says everything, and not only what changed.
    sa.Column("snapshot", sa.Boolean, nullable=False),
    # msgpack; see `catalogue/journal.py`.
    sa.Column("body", sa.LargeBinary, nullable=False),
)
