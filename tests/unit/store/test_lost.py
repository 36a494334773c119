# SPDX-License-Identifier: Apache-2.0
"""Points whose commit cells are lost: everything waits for a copy, until somebody gives them up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keepstone.errors import AccessDenied, KeepstoneError, PointNotFound, StorageError, UsageError
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.store.commits import ABORTED
from keepstone.store.layout import commit_name, deleted_name
from tests.unit.store.known import Fail, Failing, heads, items, load, save

pytestmark = pytest.mark.store


def gone(memory: MemoryStorage, name: str) -> None:
    del memory.objects[name]


def damaged(memory: MemoryStorage, name: str) -> None:
    content = bytearray(memory.objects[name])
    content[60] ^= 1
    memory.objects[name] = bytes(content)


def aborted(memory: MemoryStorage, name: str) -> None:
    memory.objects[name] = ABORTED


Hurt = Callable[[MemoryStorage, str], None]
HURT = [gone, damaged, aborted]


def packs(memory: MemoryStorage) -> set[str]:
    return {name for name in memory.objects if name.startswith("packs/")}


def failing(store: Store, memory: MemoryStorage, fail: Fail) -> Store:
    storage = MemoryStorage(store.context.env, objects=memory.objects, fail=fail)
    return Store(store.context.env, storage, store.descriptor, store.keyring, None)


def told(store: Store) -> list[str]:
    return [finding.message for finding in store.verify().findings]


@pytest.mark.parametrize("hurt", HURT)
def test_a_lost_point_is_given_up(store: Store, memory: MemoryStorage, hurt: Hurt) -> None:
    """Before, its packs are kept and the way out is named; afterwards reclaim and verify are content."""
    kept = save(store, items("ABC"))
    of_others = packs(memory)
    lost = save(store, items("xyz"), "other")
    dead = save(store, items("0123"), "third")
    store.points.purge(store.points.find(dead), now=True)
    before = packs(memory)
    hurt(memory, commit_name(lost))

    assert any(f"forget --lost {lost}`" in message for message in told(store))
    with pytest.raises(KeepstoneError, match=f"forget --lost {lost}`"):
        store.reclaim()
    assert packs(memory) == before
    assert list(store.points.lost()) == [lost]

    store.points.give_up(lost)

    assert (heads(store)[-1].event, heads(store)[-1].object) == ("purge", commit_name(lost))
    assert commit_name(lost) not in memory.objects
    assert list(store.points.lost()) == []
    assert told(store) == []
    store.reclaim()
    assert packs(memory) == of_others
    assert load(store, kept) == items("ABC")
    assert store.verify(deep=True).findings == []


@pytest.mark.parametrize("hurt", HURT)
def test_a_lost_point_that_was_deleted(store: Store, memory: MemoryStorage, hurt: Hurt) -> None:
    """Its marker goes as well."""
    lost = save(store, items("ABC"))
    store.points.forget(store.points.find(lost))
    hurt(memory, commit_name(lost))
    store.points.give_up(lost)

    assert not {commit_name(lost), deleted_name(lost)} & memory.objects.keys()
    assert told(store) == []
    store.reclaim()
    assert packs(memory) == set()
    assert told(store) == []


@pytest.mark.parametrize("hurt", HURT)
def test_a_lost_move_record(store: Store, memory: MemoryStorage, hurt: Hurt) -> None:
    """A point whose chunks it moved is damaged, and what they are in is kept until that point is purged as well."""
    old = save(store, items("0123456789"))
    point = save(store, items("05"))
    store.points.purge(store.points.find(old), now=True)
    assert store.reclaim().packs_compacted == 1
    (move,) = [name for name in memory.objects if name.startswith("commits/moves-")]
    hurt(memory, move)
    before = packs(memory)
    store.points.give_up(move.removeprefix("commits/"))

    assert (heads(store)[-1].event, heads(store)[-1].object) == ("drop-move", move)
    assert store.verify().damaged_points == [point]
    with pytest.raises(KeepstoneError):
        store.reclaim()
    assert packs(memory) == before

    store.points.purge(store.points.find(point), now=True)

    store.reclaim()
    assert packs(memory) == set()
    assert told(store) == []


def test_a_cell_that_the_chain_does_not_know(store: Store, memory: MemoryStorage) -> None:
    """It was damaged before its writer came to enter it."""
    kept = save(store, items("ABC"))
    lost = f"0123456789abcdef-{32 * '5'}"
    memory.objects[commit_name(lost)] = b"no record"
    with pytest.raises(KeepstoneError, match=f"forget --lost {lost}`"):
        store.reclaim()
    store.points.give_up(lost)

    assert told(store) == []
    store.reclaim()
    assert load(store, kept) == items("ABC")


def test_a_cell_that_cannot_be_read(store: Store, memory: MemoryStorage) -> None:
    """A bad sector beneath it."""
    lost = save(store, items("ABC"))

    def fail(operation: str, name: str) -> Exception | None:
        unreadable = (operation, name) == ("read", commit_name(lost))
        return StorageError(f"{name}: Input/output error") if unreadable else None

    hurt = failing(store, memory, fail)
    hurt.points.give_up(lost)

    assert commit_name(lost) not in memory.objects
    assert told(hurt) == []


def test_a_cell_that_comes_back(store: Store, memory: MemoryStorage) -> None:
    """Out of a copy that was found too late: verify tells what became of it, and it is purged like any other point."""
    lost = save(store, items("ABC"))
    cell = memory.objects.pop(commit_name(lost))
    store.points.give_up(lost)
    memory.objects[commit_name(lost)] = cell

    assert any("was purged and is there again" in message for message in told(store))
    store.points.purge(store.points.find(lost), now=True)
    assert told(store) == []


def test_only_what_is_lost_can_be_given_up(store: Store, memory: MemoryStorage) -> None:
    sound, purged, deleted = save(store, items("A")), save(store, items("B")), save(store, items("C"))
    store.points.purge(store.points.find(purged), now=True)
    store.points.forget(store.points.find(deleted))
    before = dict(memory.objects)
    for name in (sound, purged, deleted, "0123", "", "latest"):
        with pytest.raises(PointNotFound, match="is lost"):
            store.points.give_up(name)

    assert memory.objects == before


def test_what_may_not_be_read_is_not_lost(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items("A"))

    def fail(operation: str, name: str) -> Exception | None:
        return AccessDenied(f"{name}: not yours") if (operation, name) == ("read", commit_name(commit)) else None

    assert list(failing(store, memory, fail).points.lost()) == []


def test_lost_points_are_named_by_any_unambiguous_beginning(store: Store, memory: MemoryStorage) -> None:
    one, other = save(store, items("A")), save(store, items("B"))
    for commit in (one, other):
        gone(memory, commit_name(commit))

    assert store.points.find_lost(one.partition("-")[2][:8]) == one
    assert store.points.find_lost(other) == other
    with pytest.raises(UsageError, match="2 lost recovery points"):
        store.points.find_lost(one.partition("-")[0])


@pytest.mark.parametrize("step", ["put heads/", "delete commits/", "delete deleted/"])
@pytest.mark.parametrize("hurt", [gone, damaged])
def test_a_failure_while_a_point_is_given_up(store: Store, memory: MemoryStorage, step: str, hurt: Hurt) -> None:
    """Nothing is forgotten by halves: what was not entered is still lost, and the same call ends what was begun."""
    lost = save(store, items("ABC"))
    store.points.forget(store.points.find(lost))
    hurt(memory, commit_name(lost))
    with pytest.raises(StorageError):
        failing(store, memory, Failing(step, StorageError("broken"), times=1)).points.give_up(lost)

    if lost in store.points.lost():
        store.points.give_up(lost)

    for _ in range(2):
        store.reclaim()
    assert packs(memory) == set()
    assert told(store) == []
    assert not {commit_name(lost), deleted_name(lost)} & memory.objects.keys()


def test_another_machine_purges_meanwhile(store: Store, memory: MemoryStorage) -> None:
    """Between a look at the chain and a look at the cells: what goes then is not lost."""
    commit = save(store, items("ABC"))
    raced: list[str] = []

    def meanwhile(operation: str, name: str) -> Exception | None:
        if (operation, name) == ("read", commit_name(commit)) and not raced:
            raced.append(name)
            store.points.purge(store.points.find(commit), now=True)
        return None

    assert list(failing(store, memory, meanwhile).points.lost()) == []
    assert raced
