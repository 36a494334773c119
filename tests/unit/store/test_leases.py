# SPDX-License-Identifier: Apache-2.0
"""Leases and tombstones, one by one; tests/explore has them all at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keepstone.env import Process
from keepstone.errors import CorruptObject, LeaseLost, ObjectExists, ObjectMissing, StorageError
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.store.commits import ABORTED
from keepstone.store.leases import Leases, Tomb, Tombs
from tests.unit.store.known import DAY, Failing, Machine, finish, heads, items, load, save, submit

pytestmark = pytest.mark.store

COMMIT = "0123456789abcdef-" + "0" * 32
WEEK = 7 * DAY


def process(store: Store, pid: int) -> Store:
    """The same store in another process of the same machine."""
    machine = store.context.env
    assert isinstance(machine, Machine)
    storage = store.context.storage
    assert isinstance(storage, MemoryStorage)
    env = Machine(pid, beside=machine)
    return Store(env, MemoryStorage(env, objects=storage.objects), store.descriptor, store.keyring, None)


def leases(store: Store) -> Leases:
    return Leases(store.context, store.commits)


def test_publish_and_release(store: Store) -> None:
    mine = leases(store)
    mine.publish(COMMIT)

    assert mine.names() == [COMMIT]
    with pytest.raises(ObjectExists):
        mine.publish(COMMIT)
    mine.release(COMMIT)
    mine.release(COMMIT)
    assert mine.names() == []


def test_a_running_writer_is_waited_for(store: Store) -> None:
    other = process(store, 5)
    leases(other).publish(COMMIT)

    assert leases(store).drain([COMMIT], abort_after=WEEK) == [COMMIT]
    assert leases(store).names() == [COMMIT]
    assert not store.commits.decided(COMMIT)


def test_a_dead_writer_is_aborted(store: Store, machine: Machine) -> None:
    other = process(store, 5)
    leases(other).publish(COMMIT)
    machine.dead.add(5)

    assert leases(store).drain([COMMIT], abort_after=WEEK) == []
    assert leases(store).names() == []
    assert store.commits.get(COMMIT) is None
    assert store.commits.decided(COMMIT)


def test_an_old_writer_is_aborted_and_told(store: Store, machine: Machine) -> None:
    """It only seemed dead: it loses, cleanly."""
    other = process(store, 5)
    writing = other.writer("item", "known")
    leaf = submit(writing, items("ABC"))
    machine.now += WEEK + DAY

    assert leases(store).drain([writing.commit_id], abort_after=WEEK) == []
    with pytest.raises(LeaseLost):
        finish(writing, [leaf])
    assert store.points.list() == []
    assert store.verify().ok


def test_a_lease_that_was_released_meanwhile(store: Store) -> None:
    assert leases(store).drain([COMMIT, "moves-" + "1" * 32], abort_after=WEEK) == []
    assert not store.commits.decided(COMMIT)


def test_a_writer_that_died_after_its_commit(store: Store, memory: MemoryStorage, machine: Machine) -> None:
    """What it did not come to is done: the commit is entered in the chain, the lease goes."""
    other = process(store, 5)
    storage = other.context.storage
    assert isinstance(storage, MemoryStorage)

    class Gone(BaseException):
        pass

    def fail(operation: str, name: str) -> Exception | None:
        if name.startswith(("heads/", "leases/")) and operation in ("put", "delete") and writing:
            raise Gone
        return None

    writing = other.writer("item", "known")
    leaf = submit(writing, items("ABC"))
    storage._fail = fail
    with pytest.raises(Gone):
        finish(writing, [leaf])
    machine.dead.add(5)
    assert leases(store).names() == [writing.commit_id]

    assert leases(store).drain(leases(store).names(), abort_after=WEEK) == []
    assert leases(store).names() == []
    assert [head.object for head in heads(store) if head.event == "commit"] == [f"commits/{writing.commit_id}"]
    assert load(store, writing.commit_id) == items("ABC")
    assert store.verify().ok


def test_a_running_writer_that_has_committed_is_not_waited_for(store: Store) -> None:
    """Nor is its lease taken away: it will do so itself, after its head."""
    commit = save(store, items("A"))
    leases(process(store, 5)).publish(commit)

    assert leases(store).drain([commit], abort_after=WEEK) == []
    assert leases(store).names() == [commit]


def test_a_writer_of_another_machine(store: Store, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here can know whether it runs: it is waited for, a week at most."""
    other = process(store, 5)
    monkeypatch.setattr(other.context.env, "process", lambda: Process("elsewhere", "other boot", 5, 1))
    leases(other).publish(COMMIT)
    monkeypatch.setattr(machine, "is_running", lambda process: None if process.host == "elsewhere" else True)

    assert leases(store).drain([COMMIT], abort_after=WEEK) == [COMMIT]
    machine.now += WEEK + DAY
    assert leases(store).drain([COMMIT], abort_after=WEEK) == []


@pytest.mark.parametrize("data", [b"", b"rubbish", ABORTED])
def test_a_damaged_lease_is_nobodys(store: Store, memory: MemoryStorage, data: bytes) -> None:
    memory.objects[f"leases/{COMMIT}"] = data

    assert [name for name, _ in leases(store).check()] == [f"leases/{COMMIT}"]
    assert leases(store).drain([COMMIT], abort_after=WEEK) == []
    assert leases(store).names() == []
    assert store.commits.get(COMMIT) is None


def test_a_cell_that_was_purged_is_not_written_again(store: Store, memory: MemoryStorage, machine: Machine) -> None:
    """A dead writer's point has been purged; its lease is still there. Ending it must bring nothing back."""
    commit = save(store, items("A"))
    leases(process(store, 5)).publish(commit)
    machine.dead.add(5)
    store.points.purge(store.points.find(commit), now=True)

    leases(store).drain([commit], abort_after=WEEK)

    assert leases(store).names() == []
    assert store.points.list(deleted=True) == []
    assert store.verify().findings == []


# Tombstones


PACKS = [bytes([number]) * 32 for number in range(3)]


def test_condemned(store: Store) -> None:
    tombs = Tombs(store.context)
    assert tombs.condemned() == frozenset()
    first = tombs.publish(Tomb(packs=PACKS[:2], moves=[]))
    second = tombs.publish(Tomb(packs=PACKS[1:], moves=["moves-" + "1" * 32]))

    assert tombs.condemned() == frozenset(PACKS)
    assert tombs.names() == sorted([first, second])
    assert tombs.read(second) == Tomb(packs=PACKS[1:], moves=["moves-" + "1" * 32])
    tombs.remove(first)
    tombs.remove(first)
    assert tombs.condemned() == frozenset(PACKS[1:])
    with pytest.raises(ObjectMissing):
        tombs.read(first)


def test_the_first_collector_settles_whom_to_wait_for(store: Store) -> None:
    tombs = Tombs(store.context)
    name = tombs.publish(Tomb(packs=[], moves=[]))
    assert tombs.waits(name) is None

    assert tombs.wait_for(name, ["a", "b"]) == ["a", "b"]
    assert tombs.wait_for(name, ["c"]) == ["a", "b"]
    assert tombs.waits(name) == ["a", "b"]
    assert tombs.names() == [name]


def test_waits_that_are_left_over(store: Store, memory: MemoryStorage) -> None:
    """Of a tombstone that another collector finished between two steps of this one."""
    tombs = Tombs(store.context)
    kept, gone = (tombs.publish(Tomb(packs=[], moves=[])) for _ in range(2))
    for name in (kept, gone):
        tombs.wait_for(name, [])
        assert tombs.decide(name, Tomb(packs=[], moves=[])) is not None
    memory.objects.pop(f"tombs/{gone}")
    tombs.sweep_leftovers()

    assert sorted(name for name in memory.objects if name.startswith("tombs/")) == [
        f"tombs/{kept}",
        f"tombs/{kept}.verdict",
        f"tombs/{kept}.waits",
    ]


def test_the_first_collector_decides(store: Store, memory: MemoryStorage) -> None:
    tombs = Tombs(store.context)
    name = tombs.publish(Tomb(packs=PACKS, moves=[]))
    some, others = Tomb(packs=PACKS[:1], moves=[]), Tomb(packs=PACKS[1:], moves=[])
    assert tombs.verdict(name) is None

    assert tombs.decide(name, some) == some
    assert tombs.decide(name, others) == some
    assert tombs.verdict(name) == some
    assert tombs.names() == [name]
    assert tombs.condemned() == frozenset(PACKS)
    tombs.remove(name)
    assert tombs.decide(name, others) is None  # it was finished meanwhile: nobody may act on what he thinks of it
    tombs.sweep_leftovers()
    assert [name for name in memory.objects if name.startswith("tombs/")] == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_verdict_outlives_its_tombstone(store: Store, memory: MemoryStorage, times: int) -> None:
    """However far its removal came: a collector that is late decides nothing else."""
    tombs = Tombs(store.context)
    name = tombs.publish(Tomb(packs=PACKS, moves=[]))
    tombs.wait_for(name, [])
    some, others = Tomb(packs=PACKS[:1], moves=[]), Tomb(packs=PACKS[1:], moves=[])
    tombs.decide(name, some)
    fail = Failing("delete tombs/", StorageError("broken"), after=times)
    broken = replace(store.context, storage=MemoryStorage(store.context.env, objects=memory.objects, fail=fail))
    with pytest.raises(StorageError):
        Tombs(broken).remove(name)

    assert tombs.verdict(name) == some
    assert tombs.decide(name, others) is None


@pytest.mark.parametrize("suffix", ["", ".waits", ".verdict"])
def test_damaged_tombstones(store: Store, memory: MemoryStorage, suffix: str) -> None:
    tombs = Tombs(store.context)
    name = tombs.publish(Tomb(packs=PACKS, moves=[]))
    tombs.wait_for(name, [])
    tombs.decide(name, Tomb(packs=[], moves=[]))
    memory.objects[f"tombs/{name}{suffix}"] = b"rubbish"

    with pytest.raises(CorruptObject, match=name):
        {"": lambda _: tombs.condemned(), ".waits": tombs.waits, ".verdict": tombs.verdict}[suffix](name)
    assert f"tombs/{name}" in {finding.object for finding in store.verify().findings}


def test_two_tombstones_do_not_swap(store: Store, memory: MemoryStorage) -> None:
    """A list of nobody, moved to a tombstone that waits for somebody, would let its packs go at once."""
    tombs = Tombs(store.context)
    first, second = (tombs.publish(Tomb(packs=[pack], moves=[])) for pack in PACKS[:2])
    tombs.wait_for(first, [])
    memory.objects[f"tombs/{second}.waits"] = memory.objects[f"tombs/{first}.waits"]

    with pytest.raises(CorruptObject):
        tombs.waits(second)
