# SPDX-License-Identifier: Apache-2.0
"""The journal of a vault, through an entry that says everything: what is read of it is what the catalogue has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepstone.catalogue import every, outbox, vaults
from keepstone.catalogue.journal import Journalist
from keepstone.catalogue.replay import State, read_state
from keepstone.control.plane import Plane
from keepstone.identity import Principal
from keepstone.vault import Container, Group, Identity, Item, Lock, Resource, RoleAssignment, StoredPolicy

from .client import Client
from .protecting import Vault

pytestmark = pytest.mark.service

ENTRIES = 256
_ASSIGNMENTS = "providers/Microsoft.Authorization/roleAssignments"


@pytest.fixture
def vault(
    client: Client, plane: Plane, tmp_path: Path, principal: Callable[..., Principal], request: pytest.FixtureRequest
) -> Vault:
    """With something of each kind in it and around it."""
    made = Vault(client, plane, request.node.name)
    made.protect(tmp_path)
    storage = f"{made.group}/providers/Microsoft.Storage/storageAccounts/account"
    client.arm("PUT", storage, {"location": "onprem1", "kind": "StorageV2", "zones": ["1"]}, status=201)
    other = Vault(client, plane, f"{request.node.name}-other")
    for scope in (made.path, made.group, other.path):
        principal("Backup Reader", scope=scope)
    for scope in (made.path, other.path):
        lock = {"properties": {"level": "CanNotDelete", "notes": "ours"}}
        client.arm("PUT", f"{scope}/providers/Microsoft.Authorization/locks/keep", lock, status=201)
    return made


def change(vault: Vault, until: int) -> None:
    """Change it until its journal has so many entries."""
    while number(vault) < until:
        vault.client.arm("PATCH", vault.path, {"tags": {"number": str(number(vault))}})


def number(vault: Vault) -> int:
    """Of the last entry."""
    with vault.plane.look() as connection:
        query = sa.select(vaults.c.journal).where(vaults.c.id == vault.uuid)
        return int(connection.execute(query).scalar_one())


def read(vault: Vault) -> State:
    return read_state(vault.plane.stores.open(vault.uuid).journal)


def entries(vault: Vault) -> list[int]:
    return [sequence for sequence, _ in vault.plane.stores.open(vault.uuid).journal.entries()]


def expected(vault: Vault) -> dict[type[Any], list[Any]]:
    """What the catalogue has of the vault and of what is around it."""
    plane = vault.plane
    kinds: tuple[type[Any], ...] = (Group, StoredPolicy, Container, Item, Identity, RoleAssignment, Lock, Resource)
    with plane.look() as connection:
        found = {
            kind: [one for one in every(connection, kind) if vault.uuid in plane.journal.concerned(connection, one)]
            for kind in kinds
        }
    return found


def check(vault: Vault) -> None:
    """The journal says of each kind what the catalogue has."""
    state = read(vault)
    assert state.entry == number(vault)
    for kind, wanted in expected(vault).items():
        assert wanted, kind
        assert shown(kind, state.records[kind]) == shown(kind, wanted)
    assert state.facts["subscription"] == vault.plane.place.subscription


def shown(kind: type[Any], records: list[Any]) -> list[str]:
    left_out = {"backed_up", "outcome", "newest"}
    return sorted(str({name: getattr(one, name) for name in kind.__slots__ if name not in left_out}) for one in records)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What to do the next time that everything is read."""
    meanwhile: list[Callable[[], None]] = []
    real = Journalist._everything

    def everything(self: Journalist, connection: sa.Connection, vault: Any) -> Any:
        found = real(self, connection, vault)
        if meanwhile:
            meanwhile.pop()()
        return found

    monkeypatch.setattr(Journalist, "_everything", everything)
    return meanwhile


def test_one_entry_stands_for_all_before_it(vault: Vault) -> None:
    change(vault, ENTRIES)
    assert entries(vault) == list(range(1, ENTRIES + 1))
    check(vault)
    vault.client.arm("PATCH", vault.path, {"tags": {"a": "b"}})
    assert entries(vault) == [ENTRIES + 2]
    check(vault)
    change(vault, ENTRIES + 5)
    assert entries(vault) == list(range(ENTRIES + 2, ENTRIES + 6))
    check(vault)


def test_nobody_waits_while_everything_is_read(vault: Vault, watched: list[Callable[[], None]]) -> None:
    """Somebody changes the vault meanwhile, which waits for nothing; so it is tried again after the next change."""
    change(vault, ENTRIES)

    def meanwhile() -> None:
        vault.client.arm("PATCH", vault.path, {"tags": {"from": "elsewhere"}})

    # once for the change here, and once more for the one that comes in between, which would say everything itself
    watched += [meanwhile]
    vault.client.arm("PATCH", vault.path, {"tags": {"a": "b"}})
    assert not watched
    check(vault)
    vault.client.arm("PATCH", vault.path, {"tags": {"at": "last"}})
    check(vault)
    assert len(entries(vault)) <= 3
    with vault.plane.look() as connection:
        assert connection.execute(sa.select(outbox.c.sequence).where(outbox.c.vault == vault.uuid)).all() == []


def test_what_changes_meanwhile_is_not_lost(vault: Vault, watched: list[Callable[[], None]]) -> None:
    """By another process, which does not know that everything is due."""
    change(vault, ENTRIES)

    def meanwhile() -> None:
        plane = vault.plane
        before, plane.journal = plane.journal, Journalist(plane.database, plane.stores)
        vault.client.arm("PATCH", vault.path, {"tags": {"from": "elsewhere"}})
        plane.journal = before

    watched += [meanwhile]
    vault.client.arm("PATCH", vault.path, {"tags": {"a": "b"}})
    assert number(vault) == ENTRIES + 2
    assert entries(vault) == list(range(1, ENTRIES + 3))
    check(vault)
    vault.client.arm("PATCH", vault.path, {"tags": {"c": "d"}})
    assert entries(vault) == [ENTRIES + 4]
    check(vault)
