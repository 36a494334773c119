# SPDX-License-Identifier: Apache-2.0
"""Cells that somebody purges between the refusal of a put and the look at what is there."""

from __future__ import annotations

import pytest

from keepstone.errors import LeaseLost, ObjectExists
from keepstone.objects import MemoryStorage
from keepstone.objects.port import Buffer
from keepstone.store import Store
from keepstone.store.layout import commit_name
from tests.unit.store.known import items, save

pytestmark = pytest.mark.store


@pytest.fixture
def commit(store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> str:
    """A point whose cell goes as soon as a put was refused for it."""
    made = save(store, items("AB"))
    put = memory.put

    def refused(name: str, data: Buffer) -> None:
        try:
            put(name, data)
        except ObjectExists:
            memory.delete(name)
            raise

    monkeypatch.setattr(memory, "put", refused)
    return made


def test_it_is_not_aborted(store: Store, memory: MemoryStorage, commit: str) -> None:
    """It was published; the explorer's seed 3420519 has a reclaim that ends a move at that moment."""
    assert store.commits.abort(commit) is False
    assert commit_name(commit) not in memory.objects


def test_it_is_not_published_again(store: Store, memory: MemoryStorage, commit: str) -> None:
    record = store.commits.get(commit)
    assert record is not None

    with pytest.raises(LeaseLost, match="nothing of it is visible"):
        store.commits.publish(commit, record)

    assert commit_name(commit) not in memory.objects
