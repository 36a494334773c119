# SPDX-License-Identifier: Apache-2.0
"""Writing a point: what is durable before what, and what is left where it fails."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from keepstone.errors import (
    KeepstoneError,
    LeaseLost,
    ObjectExists,
    SourceFailed,
    StorageError,
    StorageFull,
    UsageError,
)
from keepstone.objects import FolderStorage, MemoryStorage
from keepstone.store import Chunks, LocalWriter, Scratch, Store, pack, pipeline
from keepstone.store.footer import DATA
from keepstone.store.index import ChunkIndex
from keepstone.store.layout import pack_name
from keepstone.store.leases import Leases, Tomb, Tombs
from keepstone.store.refs import ZERO_REF
from keepstone.store.survey import Survey
from tests.unit.store.known import (
    Failing,
    Machine,
    Recorded,
    finish,
    heads,
    items,
    load,
    new_store,
    opener,
    outcome,
    save,
    submit,
)

pytestmark = pytest.mark.store


def beside(store: Store, storage: MemoryStorage) -> Store:
    """The same store through another storage."""
    return Store(store.context.env, storage, store.descriptor, store.keyring, None)


def parent_places(writing: LocalWriter) -> list[int]:
    return [
        ref
        for root in writing.parent_root()
        for leaf in writing.child_refs(writing.node(root))
        for ref in writing.chunk_refs(writing.node(leaf))
    ]


# The order


def test_what_is_durable_before_what(store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lease, tombstones, packs, barrier over own and borrowed packs, commit cell, head, end of the lease."""
    monkeypatch.setattr(pack, "PACK_TARGET", 300)
    save(store, items("ABC"), "other")
    borrowed = {name for name in memory.objects if name.startswith("packs/")}
    storage = Recorded(store.context.env, objects=memory.objects)

    commit = save(beside(store, storage), items("BC0123456789"))

    log = storage.log
    finished = [line.split()[1] for line in log if line.startswith("finish ")]
    (barrier,) = [line.split()[1:] for line in log if line.startswith("sync ")]
    lent = borrowed & set(barrier)
    order = [
        f"put leases/{commit}",
        "list tombs/",
        f"create {finished[0]}",
        f"finish {finished[-1]}",
        f"sync {' '.join(barrier)}",
        f"put commits/{commit}",
        next(line for line in log if line.startswith("put heads/")),
        f"delete leases/{commit}",
    ]
    assert [log.index(line) for line in order] == sorted(log.index(line) for line in order)
    assert log[0] == order[0]
    assert len(finished) > 3
    assert max(log.index(f"finish {name}") for name in finished) < log.index(order[4])
    assert set(barrier) == {*finished, *lent}
    assert len(lent) == 1  # the other item's data, not its nodes
    assert not [
        line
        for line in log
        if line.startswith(("put ", "finish ", "delete ")) and line not in order and line.split()[1] not in finished
    ]


def test_the_lease_is_there_while_it_writes(store: Store, memory: MemoryStorage) -> None:
    with store.writer("item", "known") as writing:
        assert f"leases/{writing.commit_id}" in memory.objects
        leaf = submit(writing, items("ABC"))
        writing.drain()
        assert not [name for name in memory.objects if name.startswith("commits/")]
        commit = finish(writing, [leaf])

    assert [name for name in memory.objects if name.startswith("leases/")] == []
    assert [point.id for point in store.points.list()] == [commit]


def test_an_empty_point(store: Store) -> None:
    commit = save(store, [])

    assert load(store, commit) == []
    assert store.verify(deep=True).ok


def test_zeros_are_stored_nowhere(store: Store, memory: MemoryStorage) -> None:
    with store.writer("item", "known") as writing:
        root = writing.put_node("leaf", [ZERO_REF] * 1000, [], b"")
        commit = writing.commit(outcome([root]))

    with store.reader(store.points.find(commit)) as reader:
        assert reader.chunk_refs(reader.node(reader.root()[0])) == [ZERO_REF] * 1000
    assert len([name for name in memory.objects if name.startswith("packs/")]) == 1
    assert store.verify(deep=True).ok


# Deduplication


def test_nothing_new_stores_no_data(store: Store) -> None:
    first = save(store, items("ABCDEFGH"))
    for item in ("item", "other"):
        with store.writer(item, "known") as writing:
            leaves = [submit(writing, items("ABCD")), submit(writing, items("HGFE"))]
            second = finish(writing, leaves)
            assert (writing.new_bytes, writing.stored_bytes) == (0, 0)

        assert load(store, second) == items("ABCDHGFE")
    assert load(store, first) == items("ABCDEFGH")


def test_what_the_record_says(store: Store) -> None:
    save(store, items("ABCD"))
    commit = save(store, items("ABxy"))

    record = store.points.find(commit).record

    assert (record.item, record.kind, record.host, record.source) == ("item", "known", "machine", b"/")
    assert (record.logical, record.added) == (400, 200)
    assert 0 < record.stored < 200
    assert record.parent == store.points.list()[0].id
    assert record.started < record.finished


@pytest.mark.parametrize("threads", [0, 3])
def test_spilling_what_does_not_fit_in_a_dict(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Ids beyond `_SPILL` go into sorted columns, with packs still open, finishing and finished: every chunk is stored
    about once."""
    monkeypatch.setattr(pipeline, "_SPILL", 7)
    monkeypatch.setattr(pack, "PACK_TARGET", 3000)
    store = new_store(Machine(threads=threads))
    letters = [chr(0x100 + number) for number in range(150)]
    chunks = [items(letter)[0] for letter in [*letters, *reversed(letters), *letters]]

    with store.writer("item", "known") as writing:
        leaves = []
        for at in range(0, len(chunks), 5):
            leaves.append(submit(writing, chunks[at : at + 5]))
            assert len(writing._pipeline._claims) <= 7 + 5 * (2 * threads + 2)
        writing.drain()
        assert writing._pipeline._spilled is not None
        commit = finish(writing, leaves)

    assert load(store, commit) == chunks
    survey = Survey(store.context)
    stored = sum(footer.chunks for footer in map(survey.packs.footer, survey.sizes) if footer.kind == DATA)
    assert (
        150 <= stored <= (150 if threads == 0 else 160)
    )  # two workers may claim a chunk in the moment that it is spilled
    assert store.verify(deep=True).ok


def test_two_writers_of_one_item(store: Store, memory: MemoryStorage) -> None:
    """Neither waits for the other; both points are whole, and both have the same parent."""
    parent = save(store, items("ABC"))
    other = beside(store, MemoryStorage(store.context.env, objects=memory.objects))
    first, second = store.writer("item", "known"), other.writer("item", "known")
    one, two = submit(first, items("ABX")), submit(second, items("AYC"))
    later, earlier = finish(second, [two]), finish(first, [one])

    assert load(store, later) == items("AYC")
    assert load(store, earlier) == items("ABX")
    assert {store.points.find(name).record.parent for name in (later, earlier)} == {parent}
    assert [head.event for head in heads(store)].count("commit") == 3


# The parent


def test_the_parent_is_the_newest_of_its_item_and_kind(store: Store) -> None:
    save(store, items("A"), kind="known")
    newest = save(store, items("B"), kind="known")
    save(store, items("C"), kind="another")
    save(store, items("D"), "other item")

    with store.writer("item", "known") as writing:
        assert writing.parent_id == newest
        assert writing.parent is not None
    with store.writer("third", "known") as writing:
        assert (writing.parent_id, writing.parent, writing.parent_root()) == ("", None, [])


def test_hints(store: Store) -> None:
    save(store, items("ABCD"))
    with store.writer("item", "known") as writing:
        places = parent_places(writing)
        leaf = submit(writing, items("AXCD"), places)
        writing.drain()

        assert leaf[0] == places[0]
        assert leaf[2:] == places[2:]
        assert leaf[1] != places[1]
        assert writing._index is not None  # for the X


def condemn(store: Store, commit: str, *, data: bool) -> list[bytes]:
    """Publish a tombstone for the data packs, or the metadata packs, of a point."""
    survey = Survey(store.context)
    names = survey.packs_of(store.points.find(commit).record)
    packs = [one for one in survey.sizes if pack_name(one) in names and (survey.packs.footer(one).kind == DATA) == data]
    Tombs(store.context).publish(Tomb(packs=packs, moves=[]))
    return packs


@pytest.mark.parametrize("after", ["", "put leases/"])
def test_a_writer_that_repeats_anothers_id(store: Store, memory: MemoryStorage, after: str) -> None:
    """A machine that was cloned with its random state: the lease is the other one's, and stays, whatever fails."""
    machine = store.context.env
    assert isinstance(machine, Machine)

    def cloned(fail: Failing | None = None) -> Store:
        env = Machine(5, beside=machine)
        storage = MemoryStorage(env, objects=memory.objects, fail=fail)
        return Store(env, storage, store.descriptor, store.keyring, None)

    writing = cloned().writer("item", "known")
    leases = {name for name in memory.objects if name.startswith("leases/")}
    fail = Failing(after, StorageError("broken")) if after else None
    with pytest.raises(StorageError if after else ObjectExists):
        cloned(fail).writer("item", "known")

    assert {name for name in memory.objects if name.startswith("leases/")} == leases
    leaf = submit(writing, items("AB"))
    assert load(store, finish(writing, [leaf])) == items("AB")


def test_condemned_packs_count_as_absent(store: Store, memory: MemoryStorage) -> None:
    """A writer that began after the tombstone: no collector waits for it, so it must not refer to what is condemned,
    whoever hints at it."""
    parent = save(store, items("ABCD"))
    packs = condemn(store, parent, data=True)
    writing = store.writer("item", "known")
    places = parent_places(writing)

    assert writing.usable(places) is None
    assert not any(
        writing.shareable(writing.node(leaf))
        for root in writing.parent_root()
        for leaf in writing.child_refs(writing.node(root))
    )
    leaf = submit(writing, items("ABCD"), places)
    commit = finish(writing, [leaf])
    store.points.purge(store.points.find(parent), now=True)
    for one in packs:
        del memory.objects[pack_name(one)]  # the sweep

    assert load(store, commit) == items("ABCD")


def test_condemned_nodes_are_not_shared(store: Store) -> None:
    parent = save(store, items("ABCD"))
    condemn(store, parent, data=False)

    with store.writer("item", "known") as writing:
        assert writing.usable(writing.parent_root()) is None
        (root,) = writing.parent_root()
        assert not writing.shareable(writing.node(root))
        assert writing.usable(parent_places(writing)) is not None


def test_nodes_whose_chunks_moved_into_a_condemned_pack_are_not_shared(store: Store) -> None:
    """The node still names the old pack, which is gone; where its chunks are now is about to go as well."""
    old = save(store, items("ABCDEFGHIJ"))
    parent = save(store, items("AB"))
    store.points.purge(store.points.find(old), now=True)
    assert store.reclaim().packs_compacted
    survey = Survey(store.context)
    (moved,) = [one for one in survey.sizes if survey.packs.footer(one).kind == DATA]
    with store.writer("item", "known") as writing:
        leaves = [leaf for root in writing.parent_root() for leaf in writing.child_refs(writing.node(root))]
        assert all(writing.shareable(writing.node(leaf)) for leaf in leaves)
    Tombs(store.context).publish(Tomb(packs=[moved], moves=[]))

    with store.writer("item", "known") as writing:
        assert writing.parent_id == parent
        leaves = [leaf for root in writing.parent_root() for leaf in writing.child_refs(writing.node(root))]
        assert not any(writing.shareable(writing.node(leaf)) for leaf in leaves)


def test_nodes_are_not_shared_where_the_old_pack_is_still_there(store: Store, memory: MemoryStorage) -> None:
    """A restore looks where the chunks were moved to, whether or not they are in the old place as well."""
    old = save(store, items("ABCDEFGHIJ"))
    parent = save(store, items("AB"))
    store.points.purge(store.points.find(old), now=True)
    before = {name: content for name, content in memory.objects.items() if name.startswith("packs/")}
    assert store.reclaim().packs_compacted
    survey = Survey(store.context)
    (moved,) = [one for one in survey.sizes if survey.packs.footer(one).kind == DATA]
    memory.objects.update(before)
    Tombs(store.context).publish(Tomb(packs=[moved], moves=[]))

    with store.writer("item", "known") as writing:
        assert writing.parent_id == parent
        leaves = [leaf for root in writing.parent_root() for leaf in writing.child_refs(writing.node(root))]
        assert not any(writing.shareable(writing.node(leaf)) for leaf in leaves)


def test_usable_places_are_where_the_chunks_are_now(store: Store) -> None:
    """After a compaction the parent names places that moved; a new node names the new ones."""
    old = save(store, items("ABCDEFGHIJ"))
    save(store, items("AB"))
    store.points.purge(store.points.find(old), now=True)
    assert store.reclaim().packs_compacted

    with store.writer("item", "known") as writing:
        before = parent_places(writing)
        usable = writing.usable(before)
        assert usable is not None
        assert not set(before) & set(usable)
        assert {writing._session.packs.chunk_id(ref) for ref in usable} == {
            writing.identify(chunk) for chunk in items("AB")
        }
        commit = finish(writing, [usable])

    assert load(store, commit) == items("AB")


# Failures


class Scene:
    """A store with a point, in a storage that can fail; and the means to look at what is left."""

    def __init__(self, folder: Path | None, *, threads: int = 0) -> None:
        self.machine = Machine(threads=threads)
        self.storage: MemoryStorage | FolderStorage
        if folder is None:
            self.storage = MemoryStorage(self.machine)
        else:
            self.storage = FolderStorage(self.machine, folder, create=True)
        self.folder = folder
        self.store = Store.init(self.machine, self.storage, [opener()])
        self.point = save(self.store, items("ABCD"))
        self.before = self.names()

    def names(self) -> set[str]:
        return {info.name for info in self.storage.list()}

    def litter(self) -> list[str]:
        """Unfinished uploads."""
        names = [path.name for path in (self.folder / "tmp").iterdir()] if self.folder is not None else []
        return sorted(name for name in names if name != "reserve")  # room to delete on a full disk

    def still_good(self) -> None:
        """What was there before is whole, and the store goes on."""
        assert load(self.store, self.point) == items("ABCD")
        assert self.store.verify(deep=True).findings == []
        again = save(self.store, items("ABXY"))
        assert load(self.store, again) == items("ABXY")
        self.store.reclaim()
        self.store.reclaim()
        assert self.store.verify(deep=True).findings == []
        assert load(self.store, again) == items("ABXY")


@pytest.fixture(params=["memory", "folder", "folder, threads"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    folder = tmp_path / "store" if "folder" in request.param else None
    return Scene(folder, threads=2 if "threads" in request.param else 0)


def test_abort_leaves_nothing(scene: Scene) -> None:
    writing = scene.store.writer("item", "known")
    submit(writing, items("0123"))
    writing.drain()
    writing.put_node("leaf", [], [], b"x" * 2_000_000)
    writing.abort()
    writing.abort()

    assert scene.names() == scene.before
    assert scene.litter() == []
    scene.still_good()


def test_leaving_the_block_aborts(scene: Scene) -> None:
    def write() -> None:
        with scene.store.writer("item", "known") as writing:
            submit(writing, items("0123"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()

    assert scene.names() == scene.before
    assert scene.litter() == []


def test_abort_while_packs_are_being_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several packs are on their way to the disk, one of them has not begun: none of them leaves a file."""
    scene = Scene(tmp_path / "store", threads=1)
    monkeypatch.setattr(pack, "PACK_TARGET", 500)
    held = threading.Event()
    real = pack.PackWriter.finish

    def slowly(self: pack.PackWriter) -> None:
        held.wait(0.3)
        real(self)

    monkeypatch.setattr(pack.PackWriter, "finish", slowly)
    writing = scene.store.writer("item", "known")
    for _ in range(2):
        submit(writing, [os.urandom(300), os.urandom(300)])
    writing.drain()
    assert len(writing._session._finishing) == 2
    threading.Timer(0.05, held.set).start()
    writing.abort()

    assert scene.litter() == []
    assert [name for name in scene.names() - scene.before if not name.startswith("packs/")] == []


def test_no_thread_stays(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # of other tests in this process
    scene = Scene(tmp_path / "store", threads=2)
    for end in ("commit", "abort"):
        writing = scene.store.writer("item", "known")
        leaf = submit(writing, items("0123"))
        if end == "commit":
            finish(writing, [leaf])
        else:
            writing.abort()

    assert [one.name for one in set(threading.enumerate()) - before if one.name.startswith("keepstone")] == []


def test_a_source_that_fails(scene: Scene) -> None:
    def read(scratch: Scratch) -> Chunks:
        raise SourceFailed("/dev/x cannot be read")

    def write() -> None:
        with scene.store.writer("item", "known") as writing:
            leaf = submit(writing, items("0123"))
            writing.submit(read, lambda refs, _: None)
            finish(writing, [leaf])

    with pytest.raises(SourceFailed):
        write()

    assert scene.names() == scene.before
    assert scene.litter() == []
    scene.still_good()


def test_a_source_that_fails_and_a_workload_that_goes_on(scene: Scene) -> None:
    """The workload swallows the error and commits what it has: its point would lack data that it believes to be
    stored."""

    def read(scratch: Scratch) -> Chunks:
        raise SourceFailed("/dev/x cannot be read")

    with scene.store.writer("item", "known") as writing:
        leaf = submit(writing, items("0123"))
        with contextlib.suppress(SourceFailed):
            writing.submit(read, lambda refs, _: None)
            writing.drain()
        with pytest.raises(KeepstoneError):
            finish(writing, [leaf])

    assert scene.names() == scene.before


def test_lease_lost(scene: Scene) -> None:
    """A collector was first at the commit cell."""
    writing = scene.store.writer("item", "known")
    leaf = submit(writing, items("0123"))
    Leases(scene.store.context, scene.store.commits)
    assert scene.store.commits.abort(writing.commit_id)

    with pytest.raises(LeaseLost, match="Start it again"):
        finish(writing, [leaf])

    assert [name for name in scene.names() if name.startswith("leases/")] == []
    assert [point.id for point in scene.store.points.list()] == [scene.point]
    assert scene.litter() == []
    scene.still_good()
    assert scene.store.commits.get(writing.commit_id) is None


FULL = StorageFull("there is no room left; make room there, then try again")
BROKEN = StorageError("the disk does not answer")


@pytest.fixture(params=["full", "broken"])
def error(request: pytest.FixtureRequest) -> StorageError:
    return FULL if request.param == "full" else BROKEN


STEPS = {
    "lease": ("put leases/", 0),
    "tombstones": ("list tombs/", 0),
    "first pack": ("create packs/", 0),
    "second pack": ("create packs/", 1),
    "end of the first pack": ("finish packs/", 0),
    "end of the last pack": ("finish packs/", 1),
    "barrier": ("sync", 0),
    "commit cell": ("put commits/", 0),
}


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_storage_that_fails_before_the_commit(
    store: Store, memory: MemoryStorage, error: StorageError, step: str, threads: int
) -> None:
    """Nothing is visible, what was there is untouched, the lease is gone, and when there is room again all goes on."""
    point = save(store, items("ABCD"))
    start, after = STEPS[step]
    fault = Failing(start, error, after=after)
    env = Machine(5, threads=threads, beside=store.context.env)  # type: ignore[arg-type]
    broken = Store(env, MemoryStorage(env, objects=memory.objects, fail=fault), store.descriptor, store.keyring, None)

    with pytest.raises(StorageError) as caught:
        save(broken, items("0123"))

    assert caught.value is error
    assert [found.id for found in store.points.list()] == [point]
    leases = [name for name in memory.objects if name.startswith("leases/")]
    unknown = step == "commit cell" and error is BROKEN  # the cell may still appear: the lease says so until the end
    assert len(leases) == (1 if unknown else 0)
    assert store.verify(deep=True).ok
    fault.times = 0
    commit = save(broken, items("0123"))
    assert load(store, commit) == items("0123")
    env.dead.add(5)
    for _ in range(3):
        store.reclaim()
    assert Survey(store.context).dead() == []
    assert load(store, commit) == items("0123")


def commits_of(store: Store) -> set[str]:
    """What the chain says was committed."""
    return {head.object.removeprefix("commits/") for head in heads(store) if head.event == "commit"}


@pytest.mark.parametrize(
    ("lost", "error"),
    [("put heads/", FULL), ("put heads/", BROKEN), ("put reply heads/", BROKEN), ("put reply commits/", BROKEN)],
    ids=str,
)
def test_a_storage_that_fails_after_the_commit(
    store: Store, memory: MemoryStorage, error: StorageError, lost: str
) -> None:
    """The point is there, though the caller is told of an error: then it is whole, and later it stands in the chain
    like any other."""
    fault = Failing(lost, error, times=1)
    env = Machine(5, beside=store.context.env)  # type: ignore[arg-type]
    broken = Store(env, MemoryStorage(env, objects=memory.objects, fail=fault), store.descriptor, store.keyring, None)

    with pytest.raises(StorageError):
        save(broken, items("0123"))

    (point,) = store.points.list()
    assert load(store, point) == items("0123")
    assert store.verify(deep=True).ok
    env.dead.add(5)
    for _ in range(2):
        save(store, items("0124"), "other")
        store.reclaim()
    assert load(store, point) == items("0123")
    assert store.verify(deep=True).ok
    assert point.id in commits_of(store)


def test_a_lease_that_cannot_be_released(store: Store, memory: MemoryStorage) -> None:
    """The point counts: the lease of a process that is gone hurts nobody, and reclaim removes it."""
    env = Machine(5, beside=store.context.env)  # type: ignore[arg-type]
    fault = Failing("delete leases/", BROKEN)
    broken = Store(env, MemoryStorage(env, objects=memory.objects, fail=fault), store.descriptor, store.keyring, None)

    commit = save(broken, items("0123"))

    assert load(store, commit) == items("0123")
    assert f"leases/{commit}" in memory.objects
    env.dead.add(5)
    doomed = save(store, items("xyz"), "other")
    store.points.purge(store.points.find(doomed), now=True)
    store.reclaim()
    assert f"leases/{commit}" not in memory.objects
    assert load(store, commit) == items("0123")
    assert store.verify(deep=True).ok


def test_the_dead_leave_no_lease_for_ever(store: Store, memory: MemoryStorage) -> None:
    """Also where there is nothing to reclaim."""
    env = Machine(5, beside=store.context.env)  # type: ignore[arg-type]
    dying = Store(env, MemoryStorage(env, objects=memory.objects), store.descriptor, store.keyring, None)
    dying.writer("item", "known")
    env.dead.add(5)

    store.reclaim()

    assert [name for name in memory.objects if name.startswith("leases/")] == []


def test_many_workers_and_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything at once, for real: threads, packs finishing beside, spilling, a folder and an index in a cache."""
    monkeypatch.setattr(pack, "PACK_TARGET", 20_000)
    monkeypatch.setattr(pipeline, "_SPILL", 100)
    machine = Machine(threads=4)
    storage = FolderStorage(machine, tmp_path / "store", create=True)
    store = Store.init(machine, storage, [opener()], cache=tmp_path / "cache")
    letters = [chr(0x400 + number % 700) for number in range(1500)]
    chunks = [items(letter, 150)[0] for letter in letters]

    def write(item: str, chunks: list[bytes]) -> str:
        with store.writer(item, "known", level=1) as writing:
            leaves = [submit(writing, chunks[at : at + 20]) for at in range(0, len(chunks), 20)]
            return finish(writing, leaves)

    first = write("one", chunks)
    second = write("two", list(reversed(chunks)))

    assert load(store, first) == chunks
    assert load(store, second) == list(reversed(chunks))
    segments, _ = ChunkIndex(store.context, None).refresh()
    assert 700 <= sum(map(len, segments)) <= 720
    assert store.verify(deep=True).ok


def test_a_tag_that_is_not_unicode_begins_nothing(store: Store, memory: MemoryStorage) -> None:
    before = dict(memory.objects)

    with pytest.raises(UsageError, match=r"the tag 'a\\udcff' is not UTF-8"):
        store.writer("item", "known", tags=["a\udcff"])

    assert memory.objects == before


def test_whatever_fails_the_lease_goes(store: Store) -> None:
    """A mistake of a workload shows when the record is encoded, after the packs were written."""
    with store.writer("item", "known") as writing:
        places = submit(writing, items("ABC"))
        writing.drain()
        root = writing.put_node("root", places, [], b"")
        with pytest.raises(TypeError):
            writing.commit(replace(outcome([root]), detail=object()))  # type: ignore[arg-type]

    assert Leases(store.context, store.commits).names() == []
    assert store.points.list() == []
