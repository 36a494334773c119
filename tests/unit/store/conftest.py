# SPDX-License-Identifier: Apache-2.0
"""Stores over memory and over a folder, opened by a passphrase that costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.crypto import PassphraseProvider
from keepstone.objects import FolderStorage, MemoryStorage, ObjectStorage
from keepstone.store import Store
from tests.unit.store.known import Machine, opener


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def provider() -> PassphraseProvider:
    return opener()


@pytest.fixture
def memory(machine: Machine) -> MemoryStorage:
    return MemoryStorage(machine)


@pytest.fixture
def store(machine: Machine, memory: MemoryStorage, provider: PassphraseProvider) -> Store:
    """A new store in memory, without a cache."""
    return Store.init(machine, memory, [provider])


@pytest.fixture(params=["memory", "folder"])
def storage(request: pytest.FixtureRequest, machine: Machine, tmp_path: Path) -> ObjectStorage:
    """Each backend in turn."""
    return (
        MemoryStorage(machine) if request.param == "memory" else FolderStorage(machine, tmp_path / "store", create=True)
    )
