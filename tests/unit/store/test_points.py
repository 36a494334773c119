# SPDX-License-Identifier: Apache-2.0
"""Points as people handle them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial

import pytest

from keepstone.errors import (
    CorruptObject,
    GuardRefused,
    KeepstoneError,
    PointNotFound,
    StorageFull,
    UsageError,
)
from keepstone.objects import MemoryStorage
from keepstone.store import Point, Store
from keepstone.store.points import item_tag
from tests.unit.store.known import DAY, Failing, Machine, heads, items, load, new_store, save

pytestmark = pytest.mark.store


def ids(points: list[Point]) -> list[str]:
    return [point.id for point in points]


def test_oldest_first(store: Store) -> None:
    commits = [save(store, items(letter), letter) for letter in "CAB"]

    assert ids(store.points.list()) == commits
    assert [point.record.item for point in store.points.list()] == ["C", "A", "B"]


def test_find_by_the_beginning_of_an_id(store: Store) -> None:
    commit = save(store, items("A"))
    tag, _, name = commit.partition("-")

    for beginning in (commit, commit[:4], f"{tag}-{name[:3]}", name, name[:10], name[:1]):
        assert store.points.find(beginning).id == commit
    assert store.points.find(commit).short == name[:10]


@pytest.mark.parametrize("name", ["", "zz", "moves", "-", "latest-", "*", "../x", "\0"])
def test_find_nothing(store: Store, name: str) -> None:
    save(store, items("A"))

    with pytest.raises(PointNotFound):
        store.points.find(name)


def test_find_too_much(store: Store) -> None:
    commits = [save(store, items(letter)) for letter in "ABC"]  # one item, so one tag
    tag = commits[0].partition("-")[0]

    with pytest.raises(UsageError, match="3 recovery points"):
        store.points.find(tag)
    assert store.points.find(commits[1]).id == commits[1]


def test_find_the_latest(store: Store) -> None:
    with pytest.raises(PointNotFound, match="no recovery point yet"):
        store.points.find("latest")
    first, second = save(store, items("A"), "one"), save(store, items("B"), "two")

    assert store.points.find("latest").id == second
    assert store.points.find("latest", item="one").id == first
    with pytest.raises(PointNotFound):
        store.points.find("latest", item="three")
    with pytest.raises(PointNotFound):
        store.points.find(first, item="two")
    store.points.forget(store.points.find(second))
    assert store.points.find("latest").id == first
    assert store.points.find("latest", deleted=True).id == first
    assert store.points.find(second, deleted=True).id == second
    with pytest.raises(PointNotFound, match="undelete"):
        store.points.find(second)
    store.points.forget(store.points.find(first))
    with pytest.raises(PointNotFound, match="all recovery points are deleted"):
        store.points.find("latest", deleted=True)


def test_tags_tell_nobody_the_item(store: Store) -> None:
    commit = save(store, items("A"), "a secret name")

    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{32}", commit)
    assert commit.startswith(item_tag(store.context, "a secret name"))
    assert store.points.tag("a secret name") == item_tag(store.context, "a secret name")
    assert item_tag(store.context, "a") != item_tag(new_store(Machine(3)).context, "a")


@pytest.mark.parametrize("item", ["", "größer", "a/b\nc", "x" * 10_000, "nul\0"])
def test_any_name_of_an_item(store: Store, item: str) -> None:
    commit = save(store, items("A"), item)

    assert store.points.find(commit).record.item == item
    assert load(store, commit) == items("A")


def test_a_name_that_is_not_utf8(store: Store) -> None:
    """It is kept in a readable form, and the next backup of the same item finds its parent."""
    first, second = (save(store, items("A"), "\udcff") for _ in range(2))

    assert store.points.find(second).record.item == "\\xff"
    assert store.points.find(second).record.parent == first


# Soft delete


def test_forget_and_undelete(store: Store, machine: Machine) -> None:
    commit = save(store, items("A"))
    before = machine.now
    until = store.points.forget(store.points.find(commit))

    assert before + 14 * DAY < until < machine.now + 14 * DAY
    assert store.points.list() == []
    (point,) = store.points.list(deleted=True)
    assert point.deleted_until == until
    assert load(store, commit) == items("A")
    with pytest.raises(PointNotFound):
        store.points.find(commit)

    store.points.undelete(point)
    assert [found.deleted_until for found in store.points.list()] == [None]
    events = [head.event for head in heads(store)]
    assert events[events.index("commit") :][:3] == ["commit", "forget", "undelete"]


def test_forgetting_again_changes_nothing(store: Store, machine: Machine) -> None:
    commit = save(store, items("A"))
    point = store.points.find(commit)
    until = store.points.forget(point)
    machine.now += 3 * DAY

    assert store.points.forget(point) == until
    assert [head.event for head in heads(store)].count("forget") == 1


def test_undeleting_gives_a_new_date(store: Store, machine: Machine) -> None:
    commit = save(store, items("A"))
    first = store.points.forget(store.points.find(commit))
    store.points.undelete(store.points.find(commit, deleted=True))
    machine.now += DAY

    assert store.points.forget(store.points.find(commit)) > first


@pytest.mark.parametrize("days", [0, 1, 14, 3650])
def test_the_days_of_the_store(days: int) -> None:
    machine = Machine()
    store = new_store(machine, soft_delete_days=days)
    commit = save(store, items("A"))
    store.points.forget(store.points.find(commit))

    machine.now += days * DAY - 10**9
    assert [point.id for point in store.points.purge_due()] == []
    machine.now += 2 * 10**9
    assert [point.id for point in store.points.purge_due()] == [commit]
    assert store.points.list(deleted=True) == []


def test_purge(store: Store, machine: Machine, memory: MemoryStorage) -> None:
    commit = save(store, items("A"))
    with pytest.raises(UsageError, match="forget it first"):
        store.points.purge(store.points.find(commit))
    store.points.forget(store.points.find(commit))
    with pytest.raises(GuardRefused, match="can still be undeleted"):
        store.points.purge(store.points.find(commit, deleted=True))
    machine.now += 15 * DAY
    store.points.purge(store.points.find(commit, deleted=True))

    assert store.points.list(deleted=True) == []
    assert [name for name in memory.objects if commit in name] == []
    assert store.verify().ok


@pytest.mark.parametrize("forgotten", [False, True])
def test_purge_now(store: Store, memory: MemoryStorage, forgotten: bool) -> None:
    commit = save(store, items("A"))
    if forgotten:
        store.points.forget(store.points.find(commit))
    store.points.purge(store.points.find(commit, deleted=True), now=True)

    assert [name for name in memory.objects if commit in name] == []
    assert [head.event for head in heads(store)][-2:] == ["forget", "purge"]
    assert store.verify().ok


def test_a_purge_by_a_stale_look(store: Store, machine: Machine) -> None:
    """Somebody undeleted the point since it was listed: its date has no meaning any more."""
    commit = save(store, items("A"))
    store.points.forget(store.points.find(commit))
    stale = store.points.find(commit, deleted=True)
    machine.now += 15 * DAY
    store.points.undelete(store.points.find(commit, deleted=True))

    with pytest.raises(KeepstoneError):
        store.points.purge(stale)
    assert ids(store.points.list()) == [commit]


# Locks


def test_a_locked_point(store: Store, machine: Machine) -> None:
    """It can be soft-deleted and undeleted; purged it cannot be, not even at once, before its lock ends."""
    commit = save(store, items("A"), lock_until=machine.now + 30 * DAY)
    point = store.points.find(commit)
    with pytest.raises(GuardRefused, match="locked"):
        store.points.purge(point, now=True)
    store.points.forget(point)
    machine.now += 20 * DAY
    for now in (False, True):
        with pytest.raises(GuardRefused, match="locked"):
            store.points.purge(store.points.find(commit, deleted=True), now=now)
    assert store.points.purge_due() == []
    store.reclaim()
    assert load(store, commit) == items("A")
    machine.now += 11 * DAY

    assert ids(list(store.points.purge_due())) == [commit]


# Damage and a full disk


def test_a_damaged_cell(store: Store, memory: MemoryStorage) -> None:
    good, bad = save(store, items("A")), save(store, items("B"))
    memory.objects[f"commits/{bad}"] = b"rubbish"
    fresh = Store(store.context.env, memory, store.descriptor, store.keyring, None)
    damaged: list[tuple[str, KeepstoneError]] = []

    with pytest.raises(CorruptObject, match=bad):
        fresh.points.list()
    assert ids(fresh.points.list(damaged=damaged)) == [good]
    assert [commit for commit, _ in damaged] == [bad]
    assert fresh.points.find("latest").id == good


def test_a_damaged_marker(store: Store, memory: MemoryStorage, machine: Machine) -> None:
    """A soft-deleted point whose date cannot be read stays deleted and restorable, and is never purged on a date."""
    good, bad = save(store, items("A")), save(store, items("B"))
    for commit in (good, bad):
        store.points.forget(store.points.find(commit))
    memory.objects[f"deleted/{bad}"] = b"rubbish"

    assert store.points.list() == []
    assert load(store, good) == items("A")
    assert load(store, bad) == items("B")
    machine.now += 15 * DAY
    assert ids(list(store.points.purge_due())) == [good]
    assert load(store, bad) == items("B")
    store.points.undelete(store.points.find(bad, deleted=True))
    assert ids(store.points.list()) == [bad]


class Reserve(MemoryStorage):
    """A full disk: nothing can be put before the reserve is spent."""

    held = True

    def spend_reserve(self) -> bool:
        held, self.held = self.held, False
        return held


@pytest.mark.parametrize("full", ["put deleted/", "put heads/"])
def test_deleting_on_a_full_disk(store: Store, memory: MemoryStorage, full: str) -> None:
    """The reserve gives the room; the log is as complete as otherwise."""
    commit = save(store, items("A"))
    fault = Failing(full, StorageFull("full"))
    storage = Reserve(
        store.context.env, objects=memory.objects, fail=lambda o, n: fault(o, n) if storage.held else None
    )
    other = Store(store.context.env, storage, store.descriptor, store.keyring, None)

    other.points.forget(other.points.find(commit))

    assert store.points.list() == []
    assert [head.event for head in heads(store)][-2:] == ["commit", "forget"]
    assert store.verify().ok


@pytest.mark.parametrize("step", ["put deleted/", "put heads/", "delete commits/", "delete deleted/"])
@pytest.mark.parametrize("what", ["forget", "undelete", "purge"])
def test_a_failure_in_the_middle_can_be_repeated(store: Store, memory: MemoryStorage, what: str, step: str) -> None:
    commit = save(store, items("A"))
    if what != "forget":
        store.points.forget(store.points.find(commit))
    fault = Failing(step, StorageFull("full"))
    storage = MemoryStorage(store.context.env, objects=memory.objects, fail=fault)
    other = Store(store.context.env, storage, store.descriptor, store.keyring, None)

    def work() -> None:
        point = other.points.find(commit, deleted=True)
        if what == "forget":
            other.points.forget(point)
        elif what == "undelete":
            other.points.undelete(point)
        else:
            other.points.purge(point, now=True)

    try:
        work()
    except StorageFull:
        assert store.verify().findings == []
        fault.times = 0
        try:
            work()
        except PointNotFound:
            assert what == "purge"

    assert ids(store.points.list()) == ([commit] if what == "undelete" else [])
    assert ids(store.points.list(deleted=True)) == ([] if what == "purge" else [commit])
    assert store.verify().findings == []
    assert [head.event for head in heads(store)].count(what) >= 1


# Two at once


def racing(store: Store, memory: MemoryStorage, operation: str, kind: str, act: Callable[[], object]) -> Store:
    """The same store for somebody who is overtaken right before this operation on an object of this kind, once."""
    raced: list[str] = []

    def fail(asked: str, name: str) -> Exception | None:
        if (asked, name.partition("/")[0]) == (operation, kind) and not raced:
            raced.append(name)
            act()
        return None

    storage = MemoryStorage(store.context.env, objects=memory.objects, fail=fail)
    return Store(store.context.env, storage, store.descriptor, store.keyring, None)


def test_forgotten_while_it_is_purged(store: Store, memory: MemoryStorage) -> None:
    """Its marker was there a moment ago."""
    point = store.points.find(save(store, items("A")))
    store.points.forget(point)
    late = racing(store, memory, "read", "deleted", lambda: store.points.purge(point, now=True))
    with pytest.raises(PointNotFound, match="purged meanwhile"):
        late.points.forget(point)

    assert store.verify().findings == []


def test_forgotten_while_it_is_undeleted(store: Store, memory: MemoryStorage) -> None:
    point = store.points.find(save(store, items("A")))
    store.points.forget(point)
    until = racing(store, memory, "read", "deleted", lambda: store.points.undelete(point)).points.forget(point)

    assert [known.deleted_until for known in store.points.list(deleted=True)] == [until]
    assert store.verify().findings == []


@pytest.mark.parametrize("kind", ["deleted", "heads"])
def test_purged_while_it_is_forgotten(store: Store, memory: MemoryStorage, kind: str) -> None:
    """Before its marker, or between that and the entry: neither is missed when it is gone."""
    point = store.points.find(save(store, items("A")))
    racing(store, memory, "put", kind, lambda: store.points.purge(point, now=True)).points.forget(point)

    assert store.verify().findings == []
    save(store, items("B"))
    for _ in range(2):
        store.reclaim()
        assert store.verify().findings == []


def test_purged_by_two(store: Store, memory: MemoryStorage) -> None:
    """However far the one has come when the other one does all of it."""
    for operation, kind in (("put", "deleted"), ("put", "heads"), ("delete", "commits"), ("delete", "deleted")):
        point = store.points.find(save(store, items("A")))
        late = racing(store, memory, operation, kind, partial(store.points.purge, point, now=True))
        with contextlib.suppress(PointNotFound):
            late.points.purge(point, now=True)

        assert store.points.list(deleted=True) == []
        assert store.verify().findings == []
        assert [name for name in memory.objects if name.startswith("deleted/")] == []
