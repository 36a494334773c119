# SPDX-License-Identifier: Apache-2.0
"""Settings beneath a vault: those that are its properties by another name, and what else clients keep with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from keepstone.catalogue import first, vaults
from keepstone.control import locks
from keepstone.control import vaults as control
from keepstone.control.plane import Change
from keepstone.errors import NotFound
from keepstone.vault import Vault
from keepstone.vault.settings import check_encryption, extended, from_security, from_storage

__all__ = ["extended_information", "keep_extended_information", "set_encryption", "set_security", "set_storage"]

_EXTENDED = "vaultExtendedInfo"


def set_security(change: Change, vault: Vault, sent: Mapping[str, Any]) -> Vault:
    """Soft delete and enhanced security. `InvalidRequest`, `GuardRefused`, `Conflict` under a lock."""
    current = _current(change.connection, vault)
    return control.update(change, current, properties=from_security(sent, current.properties))


def set_storage(change: Change, vault: Vault, sent: Mapping[str, Any]) -> Vault:
    """Redundancy. `InvalidRequest`, `Unsupported`, `Conflict` under a lock."""
    return control.update(change, vault, properties=from_storage(sent))


def set_encryption(change: Change, vault: Vault, sent: Mapping[str, Any]) -> None:
    """What there is may be said again. `InvalidRequest`, `Unsupported`, `Conflict` under a lock."""
    locks.check_write(change.connection, vault.path)
    check_encryption(sent)


def extended_information(vault: Vault) -> dict[str, Any]:
    """`NotFound` where nobody has kept some: clients tell it by its code, and keep theirs then."""
    if _EXTENDED not in vault.settings:
        error = NotFound(f"The vault '{vault.name}' has no extended information; PUT some first")
        error.code = "ResourceExtendedInfoNotFound"
        raise error
    return dict(vault.settings[_EXTENDED])


def keep_extended_information(
    change: Change, vault: Vault, sent: Mapping[str, Any], *, over: bool = False
) -> dict[str, Any]:
    """Keep it; with `over` lay it over what there is. What is kept then. `InvalidRequest`, `Conflict` under a lock."""
    locks.check_write(change.connection, vault.path)
    current = _current(change.connection, vault)
    before = current.settings.get(_EXTENDED, {}) if over else {}
    kept = {**before, **extended(sent)}
    change.save(replace(current, settings={**current.settings, _EXTENDED: kept}, changed=change.now))
    return kept


def _current(connection: sa.Connection, vault: Vault) -> Vault:
    """The vault as it is in this transaction."""
    current = first(connection, Vault, vaults.c.id == vault.id, vaults.c.deleted.is_(None))
    if current is None:
        raise NotFound(f"the vault '{vault.name}' was deleted meanwhile")
    return current
