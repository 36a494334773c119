# SPDX-License-Identifier: Apache-2.0
"""A store, and what is looked at in file systems of its points."""

from __future__ import annotations

import pytest

from keepstone.env import Env
from keepstone.store import Store
from keepstone.workloads.guestfiles.worker import Worker
from tests.unit.files.points import new_store

__all__: list[str] = []


@pytest.fixture
def store() -> Store:
    """A new one, in memory."""
    return new_store(Env(threads=2))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(volume, inode) of each directory that any process has to list."""
    asked: list[tuple[int, int]] = []
    real = Worker.items

    def items(self: Worker, volume: int, inode: int) -> object:
        asked.append((volume, inode))
        return real(self, volume, inode)

    monkeypatch.setattr(Worker, "items", items)
    return asked
