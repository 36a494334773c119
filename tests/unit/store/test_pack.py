# SPDX-License-Identifier: Apache-2.0
"""Writing packs: what goes in comes out, and what bad memory breaks is found before anything is committed."""

from __future__ import annotations

import os
from typing import Any

import pytest

from keepstone.crypto import seal_frame
from keepstone.errors import KeepstoneError, WriterFailed
from keepstone.objects import MemoryStorage
from keepstone.store import Store, pack
from keepstone.store.chunking import FILE_CHUNKS
from keepstone.store.context import Context
from keepstone.store.footer import DATA
from keepstone.store.frame import MAX_FRAME, Frame, make_frame
from keepstone.store.layout import pack_name
from keepstone.store.pack import SAMPLE, PackWriter
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers
from keepstone.store.scrub import scrub
from tests.unit.store.known import finish, items, load, outcome, piece, save

pytestmark = pytest.mark.store

PACK = bytes(range(32))


def framed(context: Context, chunks: list[bytes]) -> Frame:
    ids = [context.hashing.keyed(context.keys.id, chunk) for chunk in chunks]
    return make_frame(context.hashing, 1, b"".join(chunks), ids, [len(chunk) for chunk in chunks])


def written(context: Context, frames: list[list[bytes]], *, check: bool = False) -> list[int]:
    writer = PackWriter(context, DATA, 0, PACK, check)
    places = [writer.append(framed(context, chunks)) for chunks in frames]
    writer.finish()
    return places


def test_what_goes_in_comes_out(store: Store) -> None:
    frames = [items("ABC"), items("D"), items("0123"), [b"", b"x"]]

    places = written(store.context, frames, check=True)

    numbers = PackNumbers()
    numbers.number(PACK)
    packs = Packs(store.context, numbers)
    chunks = [chunk for frame in frames for chunk in frame]
    assert places == [0, 3, 4, 8]
    assert [bytes(packs.chunk(ref)) for ref in range(len(chunks))] == chunks
    size = store.context.storage.size(pack_name(PACK))
    assert dict(packs.listing()) == {PACK: size}
    (scrubbed,) = scrub(store.context, packs, {PACK: size})
    assert (scrubbed.read, scrubbed.lost, scrubbed.error) == (sum(map(len, chunks)), None, None)


def test_size_is_that_of_the_object(store: Store) -> None:
    writer = PackWriter(store.context, DATA, 0, PACK, check=False)
    writer.append(framed(store.context, items("ABC")))
    writer.finish()

    assert writer.size == store.context.storage.size(pack_name(PACK))


def test_nothing_is_visible_before_the_end(store: Store, memory: MemoryStorage) -> None:
    writer = PackWriter(store.context, DATA, 0, PACK, check=False)
    writer.append(framed(store.context, items("ABC")))

    assert pack_name(PACK) not in memory.objects
    writer.abort()
    writer.abort()
    assert pack_name(PACK) not in memory.objects


def test_the_same_chunks_twice_share_no_ciphertext(store: Store, memory: MemoryStorage) -> None:
    """Equal frames at two positions of one pack are sealed under two keys."""
    written(store.context, [items("000"), items("000")])

    content = memory.objects[pack_name(PACK)]
    first, second = content[64:380], content[380:696]
    assert len(first) == len(second) == 316
    assert first != second
    assert not any(items("0")[0][at : at + 8] in content for at in range(0, 90, 8))


def test_the_largest_chunk_that_does_not_compress(store: Store) -> None:
    """What `cut_file` may cut can be stored."""
    chunk = os.urandom(FILE_CHUNKS[2])
    with store.writer("item", "known") as writer:
        places: list[int] = []
        writer.submit(piece([chunk]), lambda refs, _: places.extend(refs))
        commit = finish(writer, [places], len(chunk))

    assert load(store, commit) == [chunk]


@pytest.mark.parametrize("noise", [False, True], ids=["zeros", "noise"])
@pytest.mark.parametrize("size", [3 << 20, 4 << 20, MAX_FRAME + 1])
@pytest.mark.parametrize("before", [0, 1], ids=["first frame", "second frame"])
def test_a_large_node_is_stored_or_refused(store: Store, noise: bool, size: int, before: int) -> None:
    """Never is one committed that cannot be read again."""
    body = os.urandom(size) if noise else bytes(size)
    try:
        with store.writer("item", "known") as writer:
            small = [writer.put_node("small", [], [], bytes(1 << 20)) for _ in range(before)]
            root = writer.put_node("large", [], small, body)
            commit = writer.commit(outcome([root]))
    except KeepstoneError:
        assert store.points.list() == []
        return

    with store.reader(store.points.find(commit)) as reader:
        assert reader.node(reader.root()[0]).body == body


class BadMemory:
    """Seals frames as `seal_frame` does, and lets one bit of the `nth` fall over."""

    def __init__(self, nth: int, *, before: bool) -> None:
        self.nth, self.before, self.count = nth, before, -1

    def __call__(self, key: bytes, data: Any, aad: bytes, into: memoryview) -> None:
        self.count += 1
        if self.count == self.nth and self.before:
            data = bytearray(data)
            data[len(data) // 2] ^= 1
        seal_frame(key, data, aad, into)
        if self.count == self.nth and not self.before:
            into[len(into) // 2] ^= 1


@pytest.mark.parametrize("before", [False, True], ids=["after sealing", "before sealing"])
@pytest.mark.parametrize(("nth", "check"), [(0, False), (SAMPLE, False), (0, True), (1, True), (5, True)])
def test_bad_memory_is_found(
    store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch, nth: int, check: bool, before: bool
) -> None:
    """A frame of the sample (or, with check, any) does not open as it was written: nothing is committed, nothing
    stays."""
    kept = dict(memory.objects)
    chunks = [os.urandom(300) for _ in range(SAMPLE + 4)]
    monkeypatch.setattr(pack, "seal_frame", BadMemory(nth, before=before))

    def write() -> None:
        with store.writer("item", "known", check=check) as writer:
            places: list[int] = []
            for chunk in chunks:
                writer.submit(piece([chunk]), lambda refs, _: places.extend(refs))
            finish(writer, [places])

    with pytest.raises(WriterFailed, match=r"packs/.*Nothing was committed"):
        write()

    assert memory.objects == kept


def test_bad_memory_beside_the_sample_is_found_by_verify(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sample leaves out, a deep verify still finds: nobody restores it for right."""
    with monkeypatch.context() as patched:
        patched.setattr(pack, "seal_frame", BadMemory(1, before=False))
        commit = save(store, items("0123456789"))

    report = store.verify(deep=True)

    assert report.damaged_points == [commit]
    with pytest.raises(KeepstoneError):
        load(store, commit)


def test_a_wrong_id_is_found(store: Store) -> None:
    """The id was computed over other bytes than those that were compressed."""
    frame = framed(store.context, items("AB"))
    frame.ids.reverse()
    writer = PackWriter(store.context, DATA, 0, PACK, check=True)

    with pytest.raises(WriterFailed):
        writer.append(frame)


@pytest.mark.parametrize(("limit", "value"), [("PACK_TARGET", 1000), ("MOST_CHUNKS", 6)])
def test_a_full_pack_is_closed(
    store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(pack, limit, value)

    commit = save(store, items("0123456789ABCDEFGHIJ"))

    packs = [content for name, content in memory.objects.items() if name.startswith("packs/")]
    assert len(packs) >= 3
    assert load(store, commit) == items("0123456789ABCDEFGHIJ")
