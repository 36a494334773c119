# SPDX-License-Identifier: Apache-2.0
"""The chunk index: never wrong, whatever its cache says."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepstone.env import Env
from keepstone.errors import AccessDenied
from keepstone.objects import MemoryStorage
from keepstone.store import Store, index
from keepstone.store.context import Context
from keepstone.store.footer import DATA, METADATA
from keepstone.store.index import ChunkIndex
from keepstone.store.layout import pack_name
from keepstone.store.lookup import Lookup
from keepstone.store.pack import PackWriter
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers
from keepstone.store.segment import Segment, read_segment
from tests.tampered import Tampered, fails
from tests.unit.store.known import Machine, Recorded, items, load, new_store, save
from tests.unit.store.test_pack import framed

pytestmark = pytest.mark.store

NONE: frozenset[bytes] = frozenset()


def write_pack(context: Context, name: int, letters: str, kind: int = DATA) -> bytes:
    pack = bytes([name]) * 32
    writer = PackWriter(context, kind, name, pack, check=False)
    for at in range(0, len(letters), 2):
        writer.append(framed(context, items(letters[at : at + 2])))
    writer.finish()
    return pack


def identify(context: Context, letters: str) -> list[bytes]:
    return [context.hashing.keyed(context.keys.id, chunk) for chunk in items(letters)]


def look(context: Context, index: Path | ChunkIndex | None, avoided: frozenset[bytes] = NONE) -> Lookup:
    """What a session sees that begins now; of an index that is opened for it, where only the folder is given."""
    opened = index if isinstance(index, ChunkIndex) else ChunkIndex(context, index)
    return Lookup(opened, Packs(context, PackNumbers()), avoided)


def hints(lookup: Lookup) -> int:
    return sum(map(len, lookup._segments))


def found(index: Lookup, context: Context, letters: str) -> str:
    """Those of these letters that the index finds; the places are checked."""
    places = index.find(identify(context, letters))
    for identity, ref in places.items():
        assert index._packs.chunk_id(ref) == identity
    return "".join(
        letter for letter, identity in zip(letters, identify(context, letters), strict=True) if identity in places
    )


@pytest.mark.parametrize("cached", [False, True])
def test_find(store: Store, tmp_path: Path, cached: bool) -> None:
    context = store.context
    write_pack(context, 1, "ABCDE")
    write_pack(context, 2, "FGA")
    write_pack(context, 3, "nodes", METADATA)
    folder = tmp_path / "cache" if cached else None
    for _ in range(2):
        made = look(context, folder)

        assert found(made, context, "ABCDEFGHIJnodes") == "ABCDEFG"
        assert made.find([]) == {}


def test_a_second_process_reads_no_footers(tmp_path: Path) -> None:
    machine = Machine()
    storage = Recorded(machine)
    store = new_store(machine, objects=storage.objects)
    context = Context(
        env=machine,
        storage=storage,
        store_id=store.context.store_id,
        keys=store.context.keys,
        verify_key=store.context.verify_key,
        hashing=store.context.hashing,
    )
    write_pack(context, 1, "ABCDE")
    look(context, tmp_path)
    write_pack(context, 2, "XY")
    storage.log.clear()

    made = look(context, tmp_path)

    assert {line.split()[1] for line in storage.log if line.startswith("read")} == {pack_name(bytes([2]) * 32)}
    assert found(made, context, "AXZ") == "AX"


def test_a_segment_is_mapped_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one without rows, of a pack that has only nodes; what another process merged is let go."""
    mapped = []

    def read(env: Env, path: str) -> Segment | None:
        mapped.append(path)
        return read_segment(env, path)

    monkeypatch.setattr(index, "read_segment", read)
    context = store.context
    shared = ChunkIndex(context, tmp_path)
    write_pack(context, 1, "nodes", METADATA)
    look(context, shared)
    write_pack(context, 2, "AB")
    for _ in range(3):
        assert found(look(context, shared), context, "ABn") == "AB"
    assert sorted(set(mapped)) == sorted(map(str, tmp_path.iterdir()))
    assert len(mapped) == 2 * 2  # as it was written, and as it was found in the folder
    for path in tmp_path.iterdir():
        path.unlink()

    assert found(look(context, shared), context, "ABn") == "AB"
    assert len(mapped) == 2 * 2 + 1


class Slow(Recorded):
    """Its listings stand still until they are let go."""

    def __init__(self, env: Env, objects: dict[str, bytes]) -> None:
        super().__init__(env, objects=objects)
        self.listings = 0
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def names(self, prefix: str = "") -> Iterator[str]:
        found = list(super().names(prefix))
        self.listings += 1
        self.begun.release()
        assert self.go.acquire(timeout=30)
        return iter(found)


class Moments(Iterator[int]):
    """Knows how many there have been."""

    def __init__(self) -> None:
        self.count = 0

    def __next__(self) -> int:
        self.count += 1
        return self.count


def test_whoever_comes_during_a_refresh_waits_for_the_next_one(tmp_path: Path) -> None:
    """The one under way may have listed before; the next one is shared by all that came."""
    machine = Machine()
    context = new_store(machine).context
    assert isinstance(context.storage, MemoryStorage)
    write_pack(context, 1, "A")
    slow = Slow(machine, context.storage.objects)
    context = replace(context, storage=slow)
    shared = ChunkIndex(context, tmp_path)
    shared._moments = moments = Moments()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(look, context, shared)
        assert slow.begun.acquire(timeout=30)
        write_pack(context, 2, "B")
        others = [pool.submit(look, context, shared) for _ in range(8)]
        while moments.count < 2 + len(others):  # until all of them have called
            time.sleep(0.001)
        slow.go.release(2)

        assert found(first.result(30), context, "AB") == "A"
        assert [found(other.result(30), context, "AB") for other in others] == ["AB"] * len(others)
    assert slow.listings == 2


def test_condemned_packs_count_as_absent(store: Store) -> None:
    context = store.context
    first = write_pack(context, 1, "ABC")
    write_pack(context, 2, "CD")
    shared = ChunkIndex(context, None)

    with_less = look(context, shared, frozenset([first]))
    with_all = look(context, shared)
    assert found(with_less, context, "ABCD") == "CD"
    assert found(with_all, context, "ABCD") == "ABCD"
    assert found(with_less, context, "ABCD") == "CD"


@pytest.mark.parametrize("cached", [False, True])
def test_packs_that_are_gone(store: Store, memory: MemoryStorage, tmp_path: Path, cached: bool) -> None:
    context = store.context
    write_pack(context, 1, "ABC")
    write_pack(context, 2, "CD")
    folder = tmp_path if cached else None
    look(context, folder)
    del memory.objects[pack_name(bytes([1]) * 32)]

    again = look(context, folder)

    assert found(again, context, "ABCD") == "CD"


def test_equal_prefixes(store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that share their first eight bytes are told apart by the footers, in one batch and among packs."""
    ids = [bytes(8) + bytes([number]) * 24 for number in range(6)]
    context = store.context
    for name, mine in ((1, ids[:3]), (2, ids[3:5])):
        writer = PackWriter(context, DATA, name, bytes([name]) * 32, check=False)
        frame = framed(context, [b"x", b"y", b"z"][: len(mine)])
        writer._columns.ids += b"".join(mine)
        writer._columns.frame_lengths.append(20)
        writer._columns.frame_raw.append(frame.raw_length)
        writer._columns.frame_chunks.append(len(mine))
        writer._columns.codecs.append(0)
        writer._columns.digests += bytes(32)
        writer._columns.chunk_lengths.extend(frame.lengths)
        writer._put(bytes(20))
        writer.finish()
    made = look(context, None)

    places = made.find(list(reversed(ids)))

    numbers = made._packs.numbers
    assert {identity: (numbers.ids[ref >> 32][0], ref & 0xFFFFFFFF) for identity, ref in places.items()} == {
        ids[0]: (1, 0),
        ids[1]: (1, 1),
        ids[2]: (1, 2),
        ids[3]: (2, 0),
        ids[4]: (2, 1),
    }


def test_many_small_segments_become_few(store: Store, tmp_path: Path) -> None:
    context = store.context
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for number, letter in enumerate(letters):
        write_pack(context, number + 1, letter)
        made = look(context, tmp_path)

        assert found(made, context, letters) == letters[: number + 1]

    assert len(list(tmp_path.glob("*.segment"))) <= 8
    assert {path.suffix for path in tmp_path.iterdir()} == {".segment"}


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_what_was_merged_is_not_merged_again(store: Store, memory: MemoryStorage, tmp_path: Path, gone: int) -> None:
    """With nothing new in the store, a refresh writes nothing, and a chunk stands in one segment only."""
    context = store.context
    for number in range(9 + gone):
        write_pack(context, number + 1, chr(65 + number) + chr(97 + number))
        if number % 2:
            look(context, tmp_path)
    for number in range(gone):
        del memory.objects[pack_name(bytes([number + 1]) * 32)]
    for number in range(30, 36):
        write_pack(context, number, chr(65 + number))
        look(context, tmp_path)
    look(context, tmp_path)  # this one may still tidy up
    kept = set(tmp_path.iterdir())
    for _ in range(5):
        made = look(context, tmp_path)

        assert set(tmp_path.iterdir()) == kept
        assert 24 <= hints(made) <= 24 + 4 * gone


def test_merging_leaves_out_the_dead(store: Store, memory: MemoryStorage, tmp_path: Path) -> None:
    context = store.context
    for number in range(9):
        write_pack(context, number + 1, chr(65 + number))
        look(context, tmp_path)
    for number in range(8):
        del memory.objects[pack_name(bytes([number + 1]) * 32)]
    for number in range(10, 20):
        write_pack(context, number, chr(97 + number))
        made = look(context, tmp_path)

    assert found(made, context, "ABCDEFGHI") == "I"
    covered = {pack for segment in made._segments for pack in segment.packs}
    assert len(covered & {bytes([number + 1]) * 32 for number in range(8)}) < 8


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.text("ABCDEFGHIJ", min_size=1, max_size=5)),
            st.tuples(st.just("remove"), st.integers(0, 20)),
            st.tuples(st.just("damage"), st.integers(0, 2**30)),
            st.tuples(st.just("condemn"), st.integers(0, 20)),
            st.tuples(st.just("clear"), st.just(0)),
        ),
        max_size=25,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_against_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str | int]]) -> None:
    """Packs come, go and are condemned, segment files are damaged: a hit is always right, and without damage nothing
    is missed."""
    folder = tmp_path_factory.mktemp("cache")
    store = new_store(Machine(fs=Tampered(fsync=lambda fd: None)))
    storage, context = store.context.storage, store.context
    assert isinstance(storage, MemoryStorage)
    kept = ChunkIndex(context, folder)  # of another process, which looks as well
    packs: dict[bytes, str] = {}
    condemned: set[bytes] = set()
    damaged = False
    for number, (what, value) in enumerate(steps, 1):
        if what == "add":
            packs[write_pack(context, number, str(value))] = str(value)
        elif what == "remove" and packs:
            gone = list(packs)[int(value) % len(packs)]
            del packs[gone], storage.objects[pack_name(gone)]
            condemned.discard(gone)
        elif what == "condemn" and packs:
            condemned.add(list(packs)[int(value) % len(packs)])
        elif what == "clear":
            ChunkIndex(context, folder).clear()
            damaged = False
        elif what == "damage":
            chance = random.Random(value)
            for path in sorted(folder.glob("*.segment")):
                content = bytearray(path.read_bytes())
                for _ in range(4):
                    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
                path.unlink()
                path.write_bytes(content)
                damaged = True
        there = {letter for pack, letters in packs.items() if pack not in condemned for letter in letters}

        for made in (folder, kept) if number % 2 else (kept, folder):
            hits = set(found(look(context, made, frozenset(condemned)), context, "ABCDEFGHIJ"))
            assert hits <= there
            assert damaged or hits == there


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "rename", "ftruncate"])
def test_a_cache_that_cannot_be_written(tmp_path: Path, call: str) -> None:
    """Only the time to read the footers again is lost."""
    store = new_store(Machine(fs=Tampered(**{call: fails(28)})), cache=tmp_path)
    first = save(store, items("ABCD"))
    second = save(store, items("ABCX"), "other")

    assert load(store, second) == items("ABCX")
    assert load(store, first) == items("ABCD")


@pytest.mark.parametrize(("call", "code"), [("listdir", errno.EACCES), ("listdir", errno.EIO), ("stat", errno.EIO)])
def test_a_cache_that_cannot_be_read(tmp_path: Path, call: str, code: int) -> None:
    """As one that is not there: the footers are read again."""
    store = new_store(Machine(fs=Tampered(**{call: fails(code)})), cache=tmp_path)
    first = save(store, items("ABCD"))

    assert load(store, save(store, items("ABCX"), "other")) == items("ABCX")
    assert load(store, first) == items("ABCD")


def test_what_cannot_be_removed_of_a_cache(tmp_path: Path) -> None:
    """Rubbish stays where it is and stops nobody, but who wants it gone is told."""
    store = new_store(Machine(fs=Tampered(unlink=fails(errno.EACCES))), cache=tmp_path)
    for letters in ("ABCD", "ABCE"):  # the second session covers the packs of the first
        save(store, items(letters), letters)
    (left,) = tmp_path.rglob("*.segment")
    left.write_bytes(b"rubbish")

    assert load(store, save(store, items("ABCX"), "other")) == items("ABCX")
    assert left.read_bytes() == b"rubbish"
    with pytest.raises(AccessDenied, match=str(tmp_path)):
        store.rebuild_index()


def test_a_file_where_the_cache_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    store = new_store(cache=tmp_path / "cache")

    commit = save(store, items("ABCD"))
    assert store.verify().ok
    assert store.rebuild_index() == 4

    assert load(store, commit) == items("ABCD")


def test_a_damaged_cache_never_stops_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_MERGE_AT", 2)
    store = new_store(Machine(fs=Tampered(fsync=lambda fd: None)), cache=tmp_path)
    for letters in ("AB", "CD", "EF", "GH", "IJ", "KL", "MN"):
        save(store, items(letters), letters)
    paths = sorted(tmp_path.rglob("*.segment"))
    kept = {path: path.read_bytes() for path in paths}
    chance = random.Random(1)
    for turn in range(60):
        for path in tmp_path.rglob("*.segment*"):
            path.unlink()
        for path, content in kept.items():
            at = chance.choice(
                [chance.randrange(60), 4096 + chance.randrange(16), len(content) - 1 - chance.randrange(16)]
            )
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << turn % 8]) + content[at + 1 :])

        commit = save(store, items("ABCDEFG"), f"turn {turn}")

        assert load(store, commit) == items("ABCDEFG")


def test_rebuild(tmp_path: Path) -> None:
    store = new_store(cache=tmp_path)
    save(store, items("ABCD"))
    save(store, items("ABEF"), "other")
    for path in tmp_path.rglob("*.segment"):
        path.write_bytes(b"rubbish")

    assert store.rebuild_index() == 6
    assert {path.read_bytes()[:8] for path in tmp_path.rglob("*.segment")} == {b"KSINDEX1"}


def test_batches_of_footers(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first look at a large store makes several segments, so that its memory is bounded."""
    monkeypatch.setattr(index, "_BATCH", 3)
    context = store.context
    for number in range(5):
        write_pack(context, number + 1, chr(65 + 2 * number) + chr(66 + 2 * number))
    made = look(context, tmp_path)

    assert len(list(tmp_path.glob("*.segment"))) == 3
    assert found(made, context, "ABCDEFGHIJ") == "ABCDEFGHIJ"
