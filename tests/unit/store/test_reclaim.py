# SPDX-License-Identifier: Apache-2.0
"""Reclaim in peace, step by step; tests/explore has it in a crowd, tests/reliability over damage."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from keepstone.errors import CorruptObject, KeepstoneError, LeaseLost, StorageError, StorageFull
from keepstone.objects import MemoryStorage
from keepstone.store import LocalWriter, Store, compact, reclaim
from keepstone.store.footer import DATA, METADATA
from keepstone.store.layout import pack_id, pack_name
from keepstone.store.leases import Leases, Tombs
from keepstone.store.survey import Survey
from tests.unit.store.known import DAY, Failing, Machine, Recorded, finish, heads, items, load, save, submit

pytestmark = pytest.mark.store


def purge(store: Store, commit: str) -> None:
    store.points.purge(store.points.find(commit, deleted=True), now=True)


def packs(memory: MemoryStorage) -> set[str]:
    return {name for name in memory.objects if name.startswith("packs/")}


def needed(store: Store) -> set[str]:
    survey = Survey(store.context)
    return set().union(*(survey.packs_of(point.record) for point in store.points.list(deleted=True)))


def other_process(store: Store, pid: int = 5, **options: object) -> Store:
    machine, storage = store.context.env, store.context.storage
    assert isinstance(machine, Machine)
    assert isinstance(storage, MemoryStorage)
    env = Machine(pid, beside=machine)
    return Store(env, MemoryStorage(env, objects=storage.objects, **options), store.descriptor, store.keyring, None)  # type: ignore[arg-type]


def test_nothing_to_do(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items("ABC"))
    before = dict(memory.objects)

    result = store.reclaim()

    assert (result.packs_deleted, result.bytes_freed, result.packs_compacted, result.waiting) == (0, 0, 0, [])
    assert memory.objects == before
    assert load(store, commit) == items("ABC")


def test_an_empty_store(store: Store, memory: MemoryStorage) -> None:
    before = dict(memory.objects)

    assert store.reclaim().packs_deleted == 0
    assert memory.objects == before


def test_what_only_a_purged_point_needed_goes(store: Store, memory: MemoryStorage) -> None:
    gone = save(store, items("xyz"), "other")
    doomed = packs(memory)
    kept = save(store, items("ABC"))
    purge(store, gone)

    result = store.reclaim()

    assert result.packs_deleted == len(doomed) == 2
    assert packs(memory) == needed(store)
    assert [name for name in memory.objects if name.startswith("tombs/")] == []
    assert load(store, kept) == items("ABC")
    assert store.verify(deep=True).ok


def test_bytes_freed_are_those_of_the_objects(store: Store, memory: MemoryStorage) -> None:
    gone = save(store, items("xyz"))
    size = sum(len(memory.objects[name]) for name in packs(memory))
    purge(store, gone)
    result = store.reclaim()

    assert (result.bytes_freed, result.bytes_dead) == (size, size)


def test_soft_deleted_points_keep_everything_until_their_date(
    store: Store, memory: MemoryStorage, machine: Machine
) -> None:
    commit = save(store, items("ABC"))
    store.points.forget(store.points.find(commit))
    before = packs(memory)
    assert store.reclaim().packs_deleted == 0
    assert packs(memory) == before
    machine.now += 15 * DAY

    result = store.reclaim()

    assert (result.points_purged, result.packs_deleted) == (1, 2)
    assert packs(memory) == set()


def test_packs_of_a_backup_that_failed(store: Store, memory: MemoryStorage) -> None:
    kept = save(store, items("ABC"))
    broken = other_process(store, fail=Failing("put commits/", StorageFull("full")))
    with pytest.raises(StorageFull):
        save(broken, items("xyz"))
    assert len(packs(memory)) == 4

    assert store.reclaim().packs_deleted == 2
    assert packs(memory) == needed(store)
    assert load(store, kept) == items("ABC")


def test_dry_run(store: Store, memory: MemoryStorage, machine: Machine) -> None:
    sparse, gone, due = (
        save(store, items("ABCDEFGHIJ")),
        save(store, items("xyz"), "other"),
        save(store, items("0"), "due"),
    )
    save(store, items("AB"))
    for commit in (sparse, gone):
        purge(store, commit)
    store.points.forget(store.points.find(due))
    machine.now += 15 * DAY
    before = dict(memory.objects)

    result = store.reclaim(dry_run=True)

    assert memory.objects == before
    assert result.dry_run
    assert result.packs_condemned >= 2
    assert result.packs_compacted == 1
    assert result.bytes_dead > 0
    assert result.points_purged == 1  # `due`


def test_dry_run_says_what_a_real_round_does(store: Store, memory: MemoryStorage, machine: Machine) -> None:
    """Only a due point is there to be reclaimed; a locked one and one that can still be taken back are not."""
    locked = save(store, items("xyz"), "locked", lock_until=machine.now + 90 * DAY)
    due, kept = save(store, items("0123"), "due"), save(store, items("ABC"))
    for commit in (due, locked):
        store.points.forget(store.points.find(commit))
    machine.now += 15 * DAY
    store.points.forget(store.points.find(kept))

    tried = store.reclaim(dry_run=True)
    done = store.reclaim()

    assert (tried.points_purged, tried.packs_condemned, tried.bytes_dead) == (1, 2, done.bytes_freed)
    assert (done.points_purged, done.packs_deleted) == (1, 2)
    assert {point.id for point in store.points.list(deleted=True)} == {locked, kept}


# Compaction


def sparse_store(store: Store) -> tuple[str, str]:
    """(the data pack that is mostly dead, a point that needs a fifth of it)."""
    old = save(store, items("0123456789"))
    survey = Survey(store.context)
    (pack,) = [one for one in survey.sizes if survey.packs.footer(one).kind == DATA]
    point = save(store, items("05"))
    purge(store, old)
    return pack_name(pack), point


def test_compaction(store: Store, memory: MemoryStorage) -> None:
    old, point = sparse_store(store)
    size = sum(len(memory.objects[name]) for name in packs(memory))

    result = store.reclaim()

    assert result.packs_compacted == 1
    assert old not in memory.objects
    assert sum(len(memory.objects[name]) for name in packs(memory)) < size / 2
    assert load(store, point) == items("05")
    assert store.verify(deep=True).ok
    assert [head.event for head in heads(store)][-1] == "move"
    again = store.reclaim()
    assert (again.packs_compacted, again.packs_deleted) == (0, 0)


@pytest.mark.parametrize(("below", "compacted"), [(0.0, 0), (0.1, 0), (0.5, 1), (1.0, 1)])
def test_compact_below(store: Store, below: float, compacted: int) -> None:
    _, point = sparse_store(store)

    assert store.reclaim(compact_below=below).packs_compacted == compacted
    assert load(store, point) == items("05")


def test_a_move_record_goes_when_nobody_needs_it(store: Store, memory: MemoryStorage) -> None:
    _, point = sparse_store(store)
    store.reclaim()
    newer = save(store, items("05"))  # names the new places
    assert [name for name in memory.objects if name.startswith("commits/moves-")]
    purge(store, point)
    store.reclaim()
    store.reclaim()

    assert [name for name in memory.objects if name.startswith("commits/moves-")] == []
    assert load(store, newer) == items("05")
    assert packs(memory) == needed(store)
    assert store.verify(deep=True).ok
    assert [head.event for head in heads(store)][-1] == "drop-move"


@pytest.mark.parametrize("step", ["put heads/", "delete commits/moves-", "delete tombs/"])
def test_a_failure_while_a_move_record_goes(store: Store, memory: MemoryStorage, step: str) -> None:
    """Between its entry in the chain and its deletion: verify finds nothing wrong with that, and the next round ends
    it."""
    _, point = sparse_store(store)
    store.reclaim()
    newer = save(store, items("05"))
    purge(store, point)
    broken = other_process(store, fail=Failing(step, StorageError("broken"), times=1))
    with contextlib.suppress(StorageError):
        broken.reclaim()

    assert store.verify(deep=True).findings == []
    for _ in range(2):
        store.reclaim()
    assert [name for name in memory.objects if name.startswith(("commits/moves-", "tombs/"))] == []
    assert load(store, newer) == items("05")
    assert store.verify(deep=True).findings == []


def test_a_compacted_pack_is_compacted_again(store: Store, memory: MemoryStorage) -> None:
    """A manifest of long ago finds its chunks through a chain of moves, a part of which has died on the way."""
    letters = "".join(chr(0x100 + number) for number in range(40))
    commits = [save(store, items(letters[:count])) for count in (40, 20, 10, 5, 2)]
    for commit in commits[:-1]:
        purge(store, commit)
        for _ in range(2):
            store.reclaim(compact_below=0.9)

        for at, other in enumerate(commits):
            if commits.index(commit) < at:
                assert load(store, other) == items(letters[: (40, 20, 10, 5, 2)[at]])
        assert store.verify(deep=True).findings == []
        assert packs(memory) == needed(store)


def test_compaction_copies_no_damage(store: Store, memory: MemoryStorage) -> None:
    """A chunk that is not what it was is not copied under a sound seal; the old pack stays."""
    old, point = sparse_store(store)
    content = bytearray(memory.objects[old])
    content[70] ^= 1
    memory.objects[old] = bytes(content)
    for _ in range(2):
        with contextlib.suppress(CorruptObject):
            store.reclaim()

    assert old in memory.objects
    assert store.verify(deep=True).damaged_points == [point]


def test_damage_in_a_sparse_pack_does_not_keep_the_rest(store: Store, memory: MemoryStorage) -> None:
    """Nothing of what is wholly dead depends on it."""
    old, _ = sparse_store(store)
    gone = save(store, items("xyz"), "other")
    before = packs(memory)
    purge(store, gone)
    content = bytearray(memory.objects[old])
    content[70] ^= 1
    memory.objects[old] = bytes(content)
    for _ in range(3):
        try:
            store.reclaim()
        except KeepstoneError:
            continue

    assert len(packs(memory)) <= len(before) - 2


def test_a_compaction_that_is_aborted(store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another collector took it for dead: nothing is moved, and the next round does it."""
    old, point = sparse_store(store)
    with monkeypatch.context() as patch:

        def lost(*_: object) -> str:
            raise LeaseLost("aborted")

        patch.setattr(reclaim, "compact", lost)
        store.reclaim()
    assert old in memory.objects
    assert load(store, point) == items("05")
    store.reclaim()
    assert old not in memory.objects
    assert load(store, point) == items("05")


def test_a_full_disk_while_compacting(store: Store, memory: MemoryStorage) -> None:
    """There is no room for copies: what is wholly dead goes all the same."""
    old, point = sparse_store(store)
    gone = save(store, items("xyz"), "other")
    purge(store, gone)
    before = packs(memory)
    full = other_process(store, fail=Failing("finish packs/", StorageFull("full")))

    full.reclaim()

    assert old in memory.objects
    assert len(packs(memory)) <= len(before) - 2
    assert load(store, point) == items("05")
    assert [name for name in memory.objects if name.startswith("leases/")] == []
    assert store.verify(deep=True).ok


class Flaky(MemoryStorage):
    """Gives the objects in `bad` wrong once: bad memory, or a bad cable."""

    bad: set[str] = frozenset()  # type: ignore[assignment]

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = super().read(name, offset, length)
        if name in self.bad:
            self.bad.discard(name)
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


@pytest.mark.parametrize("rounds", [1, 3])
def test_damage_that_goes_away_again(store: Store, memory: MemoryStorage, rounds: int) -> None:
    """A pack is misread once while reclaim looks at it, and then it is as it should be: it must not be taken for
    garbage."""
    commit = save(store, items("ABC"))
    doomed = save(store, items("xyz"), "other")
    purge(store, doomed)
    for name in sorted(needed(store)):
        flaky = Flaky(store.context.env, objects=memory.objects)
        flaky.bad = {name}
        other = Store(store.context.env, flaky, store.descriptor, store.keyring, None)
        for _ in range(rounds):
            with contextlib.suppress(KeepstoneError):
                other.reclaim()

        assert load(store, commit) == items("ABC")
    assert store.verify(deep=True).findings == []


def test_damage_that_comes_between_two_looks(store: Store, memory: MemoryStorage) -> None:
    """A pack that the first look found needed is not garbage because the second one cannot read its footer."""
    save(store, items("ABC"))
    for name in sorted(packs(memory)):
        flaky = Flaky(store.context.env, objects=memory.objects)
        survey = Survey(Store(store.context.env, flaky, store.descriptor, store.keyring, None).context)
        for pack in survey.sizes:
            survey.packs.forget(pack)  # as when there are many
        flaky.bad = {name}
        survey.refresh()
        assert not flaky.bad
        assert survey.dead() == []
        assert survey.removable(list(survey.sizes)) == []

        survey.packs.forget(pack_id(name))
        sound = memory.objects[name]
        memory.objects[name] = sound[:-1]
        with pytest.raises(CorruptObject):
            survey.refresh()
        memory.objects[name] = sound


# Writers under way


def test_what_a_running_writer_may_refer_to_waits(store: Store, memory: MemoryStorage) -> None:
    gone = save(store, items("xyz"), "other")
    other = other_process(store)
    writing = other.writer("item", "known")
    purge(store, gone)
    before = packs(memory)

    first = store.reclaim()

    assert (first.packs_deleted, first.waiting) == (0, [writing.commit_id])
    assert first.packs_condemned == 2
    assert packs(memory) == before
    leaf = submit(writing, items("xyz"))  # found in the condemned packs: this writer began before the tombstone
    commit = finish(writing, [leaf])
    second = store.reclaim()
    assert second.waiting == []
    assert load(store, commit) == items("xyz")
    store.reclaim()
    assert packs(memory) == needed(store)
    assert load(store, commit) == items("xyz")
    assert store.verify(deep=True).ok


def test_a_pack_that_was_pardoned_keeps_no_dead_copies(store: Store, memory: MemoryStorage) -> None:
    """Chunks were moved out of a pack that a running backup then needs: the copies stay as long as that pack does, and
    when nobody needs them any more, what is left in it is moved as well."""
    first = save(store, items("abce"))
    late = other_process(store)
    writing = late.writer("item", "known")
    leaf = submit(writing, items("bce"))
    other = save(store, items("a"), "other")
    purge(store, first)
    assert store.reclaim().packs_compacted >= 1
    purge(store, other)
    commit = finish(writing, [leaf])

    for _ in range(4):
        store.reclaim()

    assert packs(memory) == needed(store)
    assert load(store, commit) == items("bce")
    assert store.verify(deep=True).findings == []
    assert store.reclaim().packs_compacted == 0


def test_a_writer_that_began_after_the_tombstone_is_not_waited_for(store: Store, memory: MemoryStorage) -> None:
    gone = save(store, items("xyz"), "other")
    early = other_process(store, 5).writer("item", "known")
    purge(store, gone)
    store.reclaim()  # publishes the tombstone and waits for the early one
    late = other_process(store, 6).writer("late", "known")
    leaf = submit(late, items("xyz"))
    early.abort()

    result = store.reclaim()

    assert result.waiting == []
    assert result.packs_deleted >= 2
    commit = finish(late, [leaf])
    assert load(store, commit) == items("xyz")
    assert store.verify(deep=True).ok


def test_the_order_of_a_round(store: Store, memory: MemoryStorage) -> None:
    """Tombstone, then the list of leases, then what was committed since, then the deletion, then the tombstone's
    end."""
    gone = save(store, items("xyz"))
    purge(store, gone)
    doomed = packs(memory)
    storage = Recorded(store.context.env, objects=memory.objects)
    Store(store.context.env, storage, store.descriptor, store.keyring, None).reclaim()

    log = storage.log
    published = next(at for at, line in enumerate(log) if line.startswith("put tombs/"))
    leases = log.index("list leases/", published)
    records = log.index("list commits/", leases)
    swept = next(at for at, line in enumerate(log) if line.startswith("delete") and doomed & set(line.split()))
    ended = next(at for at, line in enumerate(log) if line.startswith("delete tombs/"))
    assert published < leases < records < swept < ended


def test_two_collectors(store: Store, memory: MemoryStorage) -> None:
    """The second one comes while the first waits; it finishes what the first one began, and the first finds nothing
    left."""
    old, point = sparse_store(store)
    writing = other_process(store).writer("item", "known")
    store.reclaim()
    writing.abort()
    again = other_process(store, 6)

    assert again.reclaim().packs_deleted >= 1
    assert store.reclaim().packs_deleted == 0
    assert old not in memory.objects
    assert load(store, point) == items("05")
    assert Tombs(store.context).names() == []


def test_two_collectors_that_do_not_need_the_same(store: Store, memory: MemoryStorage) -> None:
    """One looked while a point was still there that needs the condemned packs, and pardons them; the other one looked
    when it was purged, and is about to delete them. Who begins when the tombstone is gone may refer to them or find
    them gone, and nothing else."""
    gone = save(store, items("xyz"), "other")
    writing = other_process(store).writer("item", "known")
    purge(store, gone)
    assert store.reclaim().waiting == [writing.commit_id]
    places = submit(writing, items("xyz"))
    point = finish(writing, [places])
    deleting, go_on = threading.Event(), threading.Event()

    def before_it_deletes(operation: str, name: str) -> Exception | None:
        if operation == "delete_many" and name.startswith("packs/"):
            deleting.set()
            assert go_on.wait(30)
        return None

    second = other_process(store, 7, fail=before_it_deletes)
    thread = threading.Thread(target=lambda: second.reclaim(compact_below=0))
    looked: list[bool] = []

    def after_its_look(operation: str, name: str) -> Exception | None:
        if operation == "list" and name == "tombs/" and not looked:
            looked.append(True)
            purge(store, point)
            thread.start()
            assert deleting.wait(30)
        return None

    other_process(store, 6, fail=after_its_look).reclaim(compact_below=0)
    late = other_process(store, 8).writer("late", "known")
    leaf = submit(late, items("xyz"))
    late.drain()
    go_on.set()
    thread.join()

    commit = finish(late, [leaf])

    assert load(store, commit) == items("xyz")
    for _ in range(2):
        store.reclaim()
    assert load(store, commit) == items("xyz")
    assert packs(memory) == needed(store)
    assert store.verify(deep=True).findings == []
    assert [name for name in memory.objects if name.startswith("tombs/")] == []


@pytest.mark.parametrize(
    "step", ["put tombs/", "delete_many packs/", "put commits/moves-", "delete tombs/", "list leases/", "list packs/"]
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_failure_at_any_step(store: Store, memory: MemoryStorage, step: str, after: int) -> None:
    """The round stops with the error; nothing that is needed is gone, and the next one ends the work."""
    _, point = sparse_store(store)
    gone = save(store, items("xyz"), "other")
    purge(store, gone)
    broken = other_process(store, fail=Failing(step, StorageError("broken"), after=after, times=1))
    with contextlib.suppress(StorageError):
        broken.reclaim()
    machine = store.context.env
    assert isinstance(machine, Machine)
    machine.dead.add(5)

    assert load(store, point) == items("05")
    assert store.verify(deep=True).findings == []
    for _ in range(3):
        store.reclaim()
    assert load(store, point) == items("05")
    assert packs(memory) == needed(store)
    assert store.verify(deep=True).findings == []
    assert Leases(store.context, store.commits).names() == []
    assert Tombs(store.context).names() == []


def test_a_writer_that_begins_between_a_copy_and_its_record(store: Store, memory: MemoryStorage) -> None:
    """A collector has copied chunks and not yet said where they went; to another one the copy is garbage, and it
    condemns it. Who begins now refers to the old pack, and the tombstone that names the copy does not wait for it. The
    point goes that the chunks were copied for; then it is said where they went, and the tombstone is due."""
    _, point = sparse_store(store)
    started: list[LocalWriter] = []
    swept: list[int] = []

    def meanwhile(operation: str, name: str) -> Exception | None:
        if (operation, name.partition("-")[0]) == ("put", "commits/moves") and not started:
            assert other_process(store, 6).reclaim(compact_below=0).packs_condemned
            started.append(other_process(store, 7).writer("item", "known"))
            purge(store, point)
        elif (operation, name.partition("/")[0]) == ("put", "heads") and started and not swept:
            swept.append(other_process(store, 8).reclaim(compact_below=0).packs_deleted)
        return None

    assert other_process(store, 5, fail=meanwhile).reclaim().packs_compacted == 1
    (writing,) = started
    places = submit(writing, items("05"))
    writing.drain()
    assert writing.new_bytes == 0
    commit = finish(writing, [places])

    assert load(store, commit) == items("05")
    for _ in range(3):
        store.reclaim()
    assert load(store, commit) == items("05")
    assert packs(memory) == needed(store)
    assert store.verify(deep=True).findings == []


@pytest.mark.parametrize(("kind", "limit", "most"), [(DATA, "FRAME_LIMIT", 250), (METADATA, "NODE_FRAME_LIMIT", 100)])
def test_frames_of_a_compaction_are_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: int, limit: str, most: int
) -> None:
    """Those of nodes by a bound of their own."""
    point = save(store, items("0123456789"))
    survey = Survey(store.context)
    (old,) = [pack for pack in survey.sizes if survey.packs.footer(pack).kind == kind]
    monkeypatch.setattr(compact, limit, most)

    footer = survey.packs.footer(old)
    compact.compact(store.context, survey.packs, [(footer, np.ones(footer.chunks, np.bool_))], 3)

    survey.refresh()
    (new,) = [pack for pack in survey.sizes if survey.packs.footer(pack).kind == kind and pack != old]
    assert max(footer.frame_raw) > most >= max(survey.packs.footer(new).frame_raw)
    assert load(store, point) == items("0123456789")
