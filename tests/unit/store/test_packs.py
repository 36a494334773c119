# SPDX-License-Identifier: Apache-2.0
"""Reading packs, and what is kept of them in memory."""

from __future__ import annotations

import threading

import pytest

from keepstone.errors import CorruptObject, ObjectMissing
from keepstone.objects import MemoryStorage
from keepstone.store import Store, packs
from keepstone.store.context import Context
from keepstone.store.footer import DATA
from keepstone.store.layout import pack_name
from keepstone.store.pack import PackWriter
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers
from tests.unit.store.known import Machine, Recorded, items, new_store
from tests.unit.store.test_pack import framed

pytestmark = pytest.mark.store

LETTERS = "0123456789ABCDEF"


@pytest.fixture
def recorded() -> Recorded:
    return Recorded(Machine())


@pytest.fixture
def context(recorded: Recorded) -> Context:
    """A store with eight packs of two frames, each of which has one chunk."""
    store = new_store(objects=recorded.objects)
    context = Context(
        env=store.context.env,
        storage=recorded,
        store_id=store.context.store_id,
        keys=store.context.keys,
        verify_key=store.context.verify_key,
        hashing=store.context.hashing,
    )
    for number in range(8):
        writer = PackWriter(context, DATA, number, bytes([number]) * 32, check=False)
        for chunk in items(LETTERS[2 * number : 2 * number + 2], 5000):
            writer.append(framed(context, [chunk]))
        writer.finish()
    recorded.log.clear()
    return context


def read(context: Context) -> tuple[Packs, list[int]]:
    numbers = PackNumbers()
    reading = Packs(context, numbers)
    return reading, [numbers.number(bytes([number]) * 32) << 32 | at for number in range(8) for at in range(2)]


def test_every_chunk(context: Context) -> None:
    reading, places = read(context)

    assert [bytes(reading.chunk(ref)) for ref in places] == items(LETTERS, 5000)
    assert [reading.chunk_id(ref) for ref in places] == [
        context.hashing.keyed(context.keys.id, chunk) for chunk in items(LETTERS, 5000)
    ]


def test_what_was_read_is_not_read_again(context: Context, recorded: Recorded) -> None:
    reading, places = read(context)
    for ref in places:
        reading.chunk(ref)
    recorded.log.clear()

    for ref in places:
        reading.chunk(ref)
        reading.chunk_id(ref)

    assert recorded.log == []


def test_the_caches_are_bounded(context: Context, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two footers and three frames everything still comes out right, and no more than that is held."""
    reading, places = read(context)
    monkeypatch.setattr(packs, "_FOOTER_MEMORY", 2 * reading.footer(bytes(32)).memory)
    monkeypatch.setattr(packs, "_FRAME_MEMORY", 15_000)

    for _ in range(2):
        assert [bytes(reading.chunk(ref)) for ref in places] == items(LETTERS, 5000)

    assert len(reading._footers) == 2
    assert len(reading._frames) == 3
    assert reading._frame_memory == 15_000
    assert reading._footer_memory == sum(footer.memory for footer in reading._footers.values())


def test_one_frame_larger_than_the_cache_is_read_all_the_same(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "_FRAME_MEMORY", 10)
    reading, places = read(context)

    assert [bytes(reading.chunk(ref)) for ref in places] == items(LETTERS, 5000)


def test_several_threads(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "_FRAME_MEMORY", 15_000)
    monkeypatch.setattr(packs, "_FOOTER_MEMORY", 1500)
    reading, places = read(context)
    wrong: list[object] = []

    def work(step: int) -> None:
        expected = dict(zip(places, items(LETTERS, 5000), strict=True))
        for at in range(200):
            ref = places[at * step % len(places)]
            if bytes(reading.chunk(ref)) != expected[ref]:
                wrong.append(ref)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert reading._frame_memory == sum(len(data) for data, _ in reading._frames.values())


def test_a_long_footer_takes_a_second_read(
    context: Context, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "_TAIL", 100)
    reading, places = read(context)

    assert bytes(reading.chunk(places[3])) == items(LETTERS, 5000)[3]


def test_positions_beyond_the_pack(context: Context) -> None:
    reading, places = read(context)

    with pytest.raises(CorruptObject, match=pack_name(bytes(32))):
        reading.chunk(places[1] + 1)
    assert reading.chunk_id(places[1] + 1) is None


def test_a_pack_that_is_gone(context: Context, recorded: Recorded) -> None:
    reading, places = read(context)
    del recorded.objects[pack_name(bytes(32))]

    with pytest.raises(ObjectMissing, match=pack_name(bytes(32))):
        reading.chunk(places[0])
    assert reading.chunk_id(places[0]) is None
    assert reading.chunk_id(places[2]) is not None


def test_forget(context: Context, recorded: Recorded) -> None:
    """After `forget` a pack that was deleted is seen to be gone."""
    reading, places = read(context)
    reading.chunk_id(places[0])
    del recorded.objects[pack_name(bytes(32))]
    reading.forget(bytes(32))

    assert reading.chunk_id(places[0]) is None
    assert reading._footer_memory == 0


def test_a_pack_of_another_store(context: Context, recorded: Recorded) -> None:
    other = new_store(Machine(7))
    writer = PackWriter(other.context, DATA, 0, b"x" * 32, check=False)
    writer.append(framed(other.context, items("A")))
    writer.finish()
    storage = other.context.storage
    assert isinstance(storage, MemoryStorage)
    recorded.objects[pack_name(b"x" * 32)] = storage.objects[pack_name(b"x" * 32)]

    with pytest.raises(CorruptObject, match="belongs elsewhere"):
        Packs(context, PackNumbers()).footer(b"x" * 32)


def test_a_frame_that_its_footer_gives_another_content(store: Store) -> None:
    """The seal is right and the id is not: a writer with a bug. Reading finds it."""
    frame = framed(store.context, items("AB"))
    frame.ids.reverse()
    writer = PackWriter(store.context, DATA, 0, bytes(32), check=False)
    writer.append(framed(store.context, items("C")))  # the first frame is opened again, the second is not
    writer.append(frame)
    writer.finish()
    numbers = PackNumbers()
    numbers.number(bytes(32))
    reading = Packs(store.context, numbers)

    assert bytes(reading.chunk(0)) == items("C")[0]
    with pytest.raises(CorruptObject, match="not what was stored"):
        reading.chunk(1)
