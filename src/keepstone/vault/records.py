# SPDX-License-Identifier: Apache-2.0
"""What a server knows of its resources, as plain values. Fields mean what the columns of the same name mean
(`catalogue/tables`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

__all__ = [
    "Agent",
    "Container",
    "Credential",
    "Group",
    "Identity",
    "Item",
    "Lock",
    "RecoveryPoint",
    "Resource",
    "RoleAssignment",
    "StoredPolicy",
    "Vault",
    "folded",
]

Document = dict[str, Any]


def folded(name: str) -> str:
    """A name as it is compared: ARM's names and paths do not depend on case."""
    return name.casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A resource group."""

    subscription: str
    name: str
    location: str
    created: datetime
    tags: Document = field(default_factory=dict)
    key: str = ""

    @property
    def path(self) -> str:
        """Its resource id."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """A Recovery Services vault."""

    id: UUID
    subscription: str
    group_name: str
    name: str
    location: str
    created: datetime
    changed: datetime
    properties: Document
    settings: Document = field(default_factory=dict)
    sku: Document = field(default_factory=dict)
    tags: Document = field(default_factory=dict)
    identity: Document | None = None
    deleted: datetime | None = None
    purge: datetime | None = None
    journal: int = 0
    group_key: str = ""
    key: str = ""

    @property
    def path(self) -> str:
        """Its resource id."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.group_name}"
        return f"{group}/providers/Microsoft.RecoveryServices/vaults/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """A protection policy as it was sent."""

    id: UUID
    vault: UUID
    name: str
    management: str
    properties: Document
    changed: datetime
    workload: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A registered machine, or whatever else holds items."""

    id: UUID
    vault: UUID
    name: str
    friendly: str
    management: str
    kind: str
    registered: datetime
    properties: Document = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Vault credentials: who has the key of the certificate may register a machine."""

    thumbprint: str
    vault: UUID
    name: str
    certificate: bytes
    created: datetime
    until: datetime
    used: datetime | None = None
    container: UUID | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What a registered machine is known by."""

    container: UUID
    vault: UUID
    key: str
    until: datetime
    version: str
    system: Document
    former: str | None = None
    revoked: datetime | None = None
    seen: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A protected item."""

    id: UUID
    vault: UUID
    container: UUID
    name: str
    friendly: str
    management: str
    workload: str
    state: str
    source: Document
    created: datetime
    policy: UUID | None = None
    properties: Document = field(default_factory=dict)
    backed_up: datetime | None = None
    outcome: str | None = None
    newest: datetime | None = None
    deleted: datetime | None = None
    purge: datetime | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPoint:
    """A restorable state of an item."""

    item: UUID
    vault: UUID
    name: str
    commit_id: str
    made: datetime
    type: str
    consistency: str
    logical: int
    fresh: int
    stored: int
    warnings: int = 0
    own: datetime | None = None
    until: datetime | None = None
    rule: str | None = None
    locked: datetime | None = None
    deleted: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something that stands around a vault: a virtual machine, a storage account, a network. `type` with its
    namespace, such as `Microsoft.Compute/virtualMachines`."""

    subscription: str
    group_name: str
    type: str
    name: str
    location: str
    created: datetime
    properties: Document = field(default_factory=dict)
    tags: Document = field(default_factory=dict)
    sku: Document | None = None
    kind: str | None = None
    zones: list[str] | None = None
    group_key: str = ""
    key: str = ""

    @property
    def path(self) -> str:
        """Its resource id."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.group_name}"
        return f"{group}/providers/{self.type}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody who may log in. `kind`: `app`, `user` or `identity`."""

    id: str
    kind: str
    login: str
    name: str
    created: datetime
    secret: str | None = field(default=None, repr=False)
    expires: datetime | None = None
    changed: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAssignment:
    """Somebody has a role at a scope."""

    id: str
    principal: str
    role: str
    scope: str
    created: datetime
    creator: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A management lock. `scope` is folded. `level`: CanNotDelete or ReadOnly."""

    scope: str
    name: str
    level: str
    notes: str | None = None
    key: str = ""
