# SPDX-License-Identifier: Apache-2.0
"""Reading points: many chunks at a time, in any order, each compared with its id."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, StorageFull
from keepstone.objects import MemoryStorage
from keepstone.store import LocalReader, Store, reader
from keepstone.store.layout import pack_name
from tests.unit.store.known import Machine, Recorded, items, load, new_store, outcome, save, submit

pytestmark = pytest.mark.store

LETTERS = "".join(chr(0x100 + number) for number in range(60))


def places(reading: LocalReader) -> list[int]:
    """The places of a point's chunks."""
    leaves = [leaf for root in reading.root() for leaf in reading.child_refs(reading.node(root))]
    return [ref for leaf in leaves for ref in reading.chunk_refs(reading.node(leaf))]


@pytest.mark.parametrize("threads", [0, 3])
def test_load(threads: int) -> None:
    store = new_store(Machine(threads=threads))
    commit = save(store, items(LETTERS))

    assert load(store, commit) == items(LETTERS)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(0, len(LETTERS) - 1), max_size=80),
    st.sampled_from([0, 100, 1000, 1 << 20]),
    st.sampled_from([1, 500, 8 << 20]),
    st.sampled_from([0, 2]),
)
def test_fetch_in_any_order(asked: list[int], gap: int, most: int, threads: int) -> None:
    """The same chunk asked for twice, gaps between them, and ranged reads of any length."""
    store = new_store(Machine(threads=threads))
    save(store, items(LETTERS[::3]), "other")  # so that the chunks lie in two packs
    commit = save(store, items(LETTERS))
    found: dict[int, bytes] = {}
    with pytest.MonkeyPatch.context() as patch, store.reader(store.points.find(commit)) as reading:
        patch.setattr(reader, "GAP", gap)
        patch.setattr(reader, "_READ", most)
        refs = places(reading)
        reading.fetch(
            [(refs[at], cookie) for cookie, at in enumerate(asked)],
            lambda cookie, chunk: found.update({cookie: bytes(chunk)}),
        )

    expected = items(LETTERS)
    assert found == {cookie: expected[at] for cookie, at in enumerate(asked)}


def test_neighbours_are_read_at_once(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items(LETTERS))
    storage = Recorded(store.context.env, objects=memory.objects)
    other = Store(store.context.env, storage, store.descriptor, store.keyring, None)
    with other.reader(store.points.find(commit)) as reading:
        refs = places(reading)
        storage.log.clear()
        reading.fetch([(ref, None) for ref in random.Random(1).sample(refs, len(refs))], lambda _, chunk: None)

    assert len([line for line in storage.log if line.startswith("read_into ")]) == 1


def test_what_is_known_without_reading(store: Store) -> None:
    commit = save(store, [b"", b"x", *items("AB", 700)])
    with store.reader(store.points.find(commit)) as reading:
        refs = places(reading)

        assert [reading.chunk_length(ref) for ref in refs] == [0, 1, 700, 700]
        assert [reading.chunk_id(ref) for ref in refs] == [
            reading.identify(chunk) for chunk in [b"", b"x", *items("AB", 700)]
        ]
        for call in (reading.chunk_length, reading.chunk_id):
            with pytest.raises(CorruptObject, match="has no chunk"):
                call(refs[0] | 4000)


def test_a_place_beyond_its_pack(store: Store) -> None:
    commit = save(store, items("AB"))
    with store.reader(store.points.find(commit)) as reading:
        first, _ = places(reading)
        with pytest.raises(CorruptObject, match="has no chunk"):
            reading.fetch([(first, 0), (first + 2, 1)], lambda _, chunk: None)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_sink_that_fails(threads: int) -> None:
    """Its error comes out as it is, and the reader goes on."""
    store = new_store(Machine(threads=threads))
    commit = save(store, items(LETTERS))
    error = KeepstoneError("the target is full")

    def sink(cookie: int, chunk: memoryview) -> None:
        if cookie == 7:
            raise error

    with store.reader(store.points.find(commit)) as reading:
        refs = places(reading)
        requests = list(zip(refs, range(len(refs)), strict=True))
        with pytest.raises(KeepstoneError) as caught:
            reading.fetch(requests, sink)
        assert caught.value is error

        found: dict[int, bytes] = {}
        reading.fetch(requests, lambda cookie, chunk: found.update({cookie: bytes(chunk)}))
        assert [found[at] for at in range(len(refs))] == items(LETTERS)


class Room:
    """A sink with memory for frames of at most `most` bytes; notes which chunks lie there."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: dict[int, bytes] = {}
        self.inside: set[int] = set()
        self.asked: list[int] = []
        self.memory = threading.local()

    def room(self, count: int) -> memoryview | None:
        self.asked.append(count)
        self.memory.given = None if count > self.most else memoryview(bytearray(b"?" * count))
        given: memoryview | None = self.memory.given
        return given

    def __call__(self, cookie: int, chunk: memoryview) -> None:
        self.found[cookie] = bytes(chunk)
        if self.memory.given is not None and chunk.obj is self.memory.given.obj:
            self.inside.add(cookie)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("stored", ["compressed", "as it is"])
def test_chunks_are_put_into_the_room_of_a_sink(threads: int, stored: str) -> None:
    store = new_store(Machine(threads=threads))
    chunks = items(LETTERS, 5000) if stored == "compressed" else [os.urandom(5000) for _ in LETTERS]
    commit = save(store, chunks)
    with store.reader(store.points.find(commit)) as reading:
        requests = [(ref, at) for at, ref in enumerate(places(reading))]
        for most, inside in ((1 << 20, len(chunks)), (0, 0)):
            sink = Room(most)
            reading.fetch(requests, sink)

            assert [sink.found[at] for at in range(len(chunks))] == chunks
            assert len(sink.inside) == inside
            assert sum(sink.asked) == 5000 * len(chunks)


@pytest.mark.parametrize("stored", ["compressed", "as it is"])
def test_no_damaged_chunk_is_handed_on_in_the_room_of_a_sink(store: Store, memory: MemoryStorage, stored: str) -> None:
    chunks = items("ABC", 5000) if stored == "compressed" else [os.urandom(5000) for _ in range(3)]
    commit = save(store, chunks)
    with store.reader(store.points.find(commit)) as reading:
        refs = places(reading)
        name = pack_name(reading._numbers.ids[refs[0] >> 32])
        footer, position = reading._footer(refs[0])
        at = footer.offsets[footer.frame_of(position)] + 5
        data = bytearray(memory.objects[name])
        data[at] ^= 1
        memory.objects[name] = bytes(data)
        sink = Room(1 << 20)

        with pytest.raises(CorruptObject, match="is damaged"):
            reading.fetch([(ref, number) for number, ref in enumerate(refs)], sink)
        assert sink.asked
        assert sink.found == {}


class Turns:
    """A sink that one thread has at a time; notes how many chunks and bytes came in each turn, and were said to."""

    def __init__(self, fails: int = -1) -> None:
        self.found: dict[int, bytes] = {}
        self.said: list[tuple[int, int]] = []
        self.came: list[tuple[int, int]] = []
        self.fails = fails
        self.lock = threading.Lock()
        self.whose = -1

    @contextmanager
    def turn(self, count: int, size: int) -> Iterator[None]:
        with self.lock:
            self.whose = threading.get_ident()
            self.said.append((count, size))
            self.came.append((0, 0))
            yield
            self.whose = -1

    def __call__(self, cookie: int, chunk: memoryview) -> None:
        assert self.whose == threading.get_ident()
        if cookie == self.fails:
            raise StorageFull("no more")
        self.found[cookie] = bytes(chunk)
        count, size = self.came[-1]
        self.came[-1] = count + 1, size + len(chunk)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_sink_that_is_taken_in_turns(threads: int) -> None:
    """A frame is a turn."""
    store = new_store(Machine(threads=threads))
    chunks = items(LETTERS, 70)  # several in a frame
    commit = save(store, chunks)
    with store.reader(store.points.find(commit)) as reading:
        requests = [(ref, at) for at, ref in enumerate(places(reading)) if at % 5]
        sink = Turns()
        reading.fetch(requests, sink)

        assert sink.found == {at: chunks[at] for _, at in requests}
        assert sink.came == sink.said
        assert 1 < len(sink.said) < len(requests)

        with pytest.raises(StorageFull):
            reading.fetch(requests, Turns(fails=1))
        reading.fetch(requests, Turns())


@pytest.mark.parametrize("threads", [0, 2])
def test_a_sink_that_reads_on(threads: int) -> None:
    """While it holds a chunk it reads a node, as a restore of folders may: the chunk that it holds stays what it
    was."""
    store = new_store(Machine(threads=threads))
    chunks = [os.urandom(1000) for _ in range(30)]
    with store.writer("item", "known") as writing:
        leaves = [submit(writing, chunks[at : at + 5]) for at in range(0, 30, 5)]
        writing.drain()
        nodes = [writing.put_node("leaf", places, [], os.urandom(400_000)) for places in leaves]  # stored as they are
        commit = writing.commit(outcome([writing.put_node("root", [], nodes, b"")]))
    found: dict[int, bytes] = {}
    with store.reader(store.points.find(commit)) as reading:
        (root,) = reading.root()
        children = reading.child_refs(reading.node(root))
        refs = [ref for leaf in children for ref in reading.chunk_refs(reading.node(leaf))]
        reading._packs._frames.clear()

        def sink(cookie: int, chunk: memoryview) -> None:
            reading.node(children[cookie % len(children)])
            found[cookie] = bytes(chunk)

        reading.fetch(list(zip(refs, range(30), strict=True)), sink)

    assert [found[at] for at in range(30)] == chunks


# While the store changes


def test_a_compaction_while_reading(store: Store) -> None:
    """The packs that a reader began with are moved away and swept: it finds the chunks where they are now."""
    old = save(store, items(LETTERS))
    commit = save(store, items(LETTERS[:9]))
    with store.reader(store.points.find(commit)) as reading:
        refs = places(reading)
        store.points.purge(store.points.find(old), now=True)
        for _ in range(2):
            store.reclaim(compact_below=1.0)
        found: dict[int, bytes] = {}
        reading.fetch([(ref, at) for at, ref in enumerate(refs)], lambda at, chunk: found.update({at: bytes(chunk)}))

        assert [found[at] for at in range(9)] == items(LETTERS[:9])
        assert reading.chunk_length(refs[3]) == 100
        assert reading.chunk_id(refs[3]) == reading.identify(items(LETTERS[3])[0])


def test_lengths_after_a_compaction(store: Store) -> None:
    """The same where the first thing that a reader asks for is a length."""
    old = save(store, items(LETTERS))
    commit = save(store, items(LETTERS[:9]))
    with store.reader(store.points.find(commit)) as reading:
        refs = places(reading)
        store.points.purge(store.points.find(old), now=True)
        for _ in range(2):
            store.reclaim(compact_below=1.0)

        assert reading.chunk_length(refs[3]) == 100
        assert reading.chunk_id(refs[4]) == reading.identify(items(LETTERS[4])[0])


def test_a_pack_that_is_gone(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items("ABC"))
    with store.reader(store.points.find(commit)) as reading:
        refs = places(reading)
        name = pack_name(reading._numbers.ids[refs[0] >> 32])
        del memory.objects[name]

        with pytest.raises(ObjectMissing, match=name):
            reading.fetch([(ref, 0) for ref in refs], lambda _, chunk: None)
