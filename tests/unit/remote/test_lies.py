# SPDX-License-Identifier: Apache-2.0
"""A machine that lies, session by session: it is told so, nothing of its point is visible, its session is over, and
others go on."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.env import Env
from keepstone.errors import Conflict, CorruptObject, InvalidRequest, KeepstoneError
from keepstone.objects import MemoryStorage
from keepstone.remote.places import ZEROS
from keepstone.remote.wire import (
    FRAME,
    LARGEST_RECORD,
    NODE,
    Commit,
    NodeRecord,
    Wanted,
    decode,
    encode,
    frame_record,
    handle_record,
    node_record,
)
from keepstone.store import Store
from keepstone.store.frame import CODEC_RAW, CODEC_ZSTD, MAX_FRAME
from keepstone.workloads.files.page import NODE_KIND
from tests.unit.files.points import new_store, provider
from tests.unit.store.known import items

from .far import Direct, Far

pytestmark = pytest.mark.agents

MIB = 1 << 20
CHUNKS = items("ab1", 1000)


@pytest.fixture
def env() -> Env:
    return Env(threads=2)


@pytest.fixture
def store(env: Env) -> Store:
    return new_store(env)


@pytest.fixture
def far(env: Env, store: Store) -> Far:
    return Far(env, store)


def frame(
    far: Far,
    chunks: Sequence[bytes],
    *,
    codec: int | None = None,
    raw: int | None = None,
    lengths: Sequence[int] | None = None,
    ids: Sequence[bytes] | None = None,
    payload: bytes | None = None,
) -> bytes:
    """A record with these chunks, and the lies about them."""
    data = b"".join(chunks)
    lengths = [len(chunk) for chunk in chunks] if lengths is None else lengths
    ids = [far.veil(far.begun).identify(chunk) for chunk in chunks] if ids is None else ids
    packed = zstandard.compress(data)
    if codec is None:
        codec = CODEC_ZSTD if payload is not None or len(packed) < len(data) else CODEC_RAW
    if payload is None:
        payload = packed if codec == CODEC_ZSTD else data
    return b"".join(frame_record(codec, len(data) if raw is None else raw, lengths, ids, payload))


def node(
    chunks: Sequence[tuple[int, int, int]] = (), children: Sequence[tuple[int, int, int]] = (), *, kind: str = NODE_KIND
) -> bytes:
    """A record of a node with these runs."""
    columns = [b"".join([struct.pack("<III", *run) for run in runs]) for runs in (chunks, children)]
    return node_record(NodeRecord(kind, columns[0], columns[1], b"body"))


def finish(direct: Direct, records: int, root: bytes = struct.pack("<III", 0, 0, 1), **more: Any) -> str:
    """Commit the first node that was sent."""
    said: dict[str, Any] = {"detail": b"", "source": b"/", "logical": 1, "read": 1, "files": 1, "warnings": 0, **more}
    return direct.commit(Commit(records=records, root=root, **said))


def test_the_truth(far: Far, store: Store) -> None:
    """What the lies below are told instead of."""
    direct = far.session()
    data = frame(far, CHUNKS) + node([(0, 0, 3)])

    assert direct.session.receive(0, memoryview(data)) == 2

    point = store.points.find(finish(direct, 2))
    with store.reader(point) as reader:
        (root,) = reader.root()
        found: dict[int, bytes] = {}
        refs = reader.chunk_refs(reader.node(root))
        reader.fetch(
            [(ref, index) for index, ref in enumerate(refs)], lambda at, chunk: found.update({at: bytes(chunk)})
        )
    assert [found[index] for index in range(3)] == CHUNKS
    assert store.verify(deep=True).ok


LIES: dict[str, Callable[[Far], bytes]] = {
    "wrong id": lambda far: frame(far, CHUNKS, ids=[bytes(32)] * 3),
    "ids in another order": lambda far: frame(far, CHUNKS[::-1], ids=[far.veil(far.begun).identify(c) for c in CHUNKS]),
    "unknown codec": lambda far: frame(far, CHUNKS, codec=7),
    "raw, and another length": lambda far: frame(far, CHUNKS, codec=CODEC_RAW, payload=b"".join(CHUNKS)[:-1]),
    "not zstd": lambda far: frame(far, CHUNKS, payload=b"garbage" * 10),
    "cut off": lambda far: frame(far, CHUNKS, payload=zstandard.compress(b"".join(CHUNKS))[:-3]),
    "trailing garbage": lambda far: frame(far, CHUNKS, payload=zstandard.compress(b"".join(CHUNKS)) + b"garbage"),
    "two frames": lambda far: frame(far, CHUNKS, payload=zstandard.compress(b"".join(CHUNKS)) * 2),
    "a bomb": lambda far: frame(far, CHUNKS, payload=zstandard.compress(bytes(64 * MIB))),
    "a bomb that hides its size": lambda far: frame(far, CHUNKS, payload=hidden(bytes(64 * MIB))),
    "a bomb that lies about its size": lambda far: frame(far, CHUNKS, payload=lying(bytes(64 * MIB), 3000)),
    "an honest bomb": lambda far: frame(
        far, [bytes(1000)], raw=64 * MIB, lengths=[64 * MIB], payload=zstandard.compress(bytes(64 * MIB))
    ),
    "longer than its content": lambda far: frame(
        far, [b"x"], payload=zstandard.compress(b"x") + b"\x50\x2a\x4d\x18\x02\0\0\0no"
    ),
    "no chunks": lambda far: frame(far, [], raw=1),
    "empty chunks": lambda far: frame(far, [*CHUNKS, b""]),
    "lengths that do not add up": lambda far: frame(far, CHUNKS, lengths=[1000, 1000, 1001]),
    "more chunks than it has room for": lambda far: record(FRAME, struct.pack("<B3xII", 1, 3000, 1 << 31) + bytes(99)),
    "no head": lambda far: record(FRAME, b"\1"),
    "an empty record": lambda far: record(FRAME, b""),
    "an empty node": lambda far: record(NODE, b""),
    "a node that is none": lambda far: record(NODE, encode({"kind": "x"})),
    "text that is none": lambda far: record(NODE, b"\x94\xa2\xff\xfe\xc4\0\xc4\0\xc4\0"),
    "an unknown kind of record": lambda far: record(9, b""),
    "a record without end": lambda far: struct.pack("<IB", LARGEST_RECORD + 1, FRAME) + bytes(100),
    "a short handle": lambda far: record(2, b"1234"),
    "a handle that hangs on nothing": lambda far: b"".join([handle_record(5, 0)]),
    "a handle that hangs on itself": lambda far: handle_record(1, 0),
    "a node of another workload": lambda far: node(kind="images/root"),
    "a node of no workload": lambda far: node(kind=""),
    "chunks that were not sent": lambda far: frame(far, CHUNKS) + node([(0, 0, 5)]),
    "chunks that come later": lambda far: node([(0, 0, 3)]) + frame(far, CHUNKS),
    "nodes that were not sent": lambda far: node(children=[(0, 1, 1)]),
    "a child that is zeros": lambda far: node(children=[(ZEROS, 0, 1)]),
    "a child that was looked for": lambda far: node(children=[(1, 0, 1)]),
    "a handle that was not told": lambda far: node([(3, 0, 1)]),
    "a node that the point has not": lambda far: handle_record(0, 77) + node([(3, 0, 1)]),
    "chunks of the point itself": lambda far: node([(2, 0, 1)]),
    "children that the point has not": lambda far: node(children=[(2, 5, 1)]),
    "what was never looked for": lambda far: node([(1, 0, 1)]),
    "runs of nothing": lambda far: node([(0, 0, 0)]),
    "runs past all bounds": lambda far: node([(0, 0xFFFFFFFF, 0xFFFFFFFF)]),
    "half a run": lambda far: node_record(NodeRecord(NODE_KIND, b"123456", b"", b"")),
    "zeros without end": lambda far: node([(ZEROS, 0, 0xFFFFFFFF)]),
    "many zeros": lambda far: node([(ZEROS, 0, 1 << 20)] * 200_000),
    "the same again and again": lambda far: (
        frame(far, [b"%d" % n for n in range(5000)]) + node([(0, 0, 5000)] * 200_000)
    ),
}


def record(kind: int, content: bytes) -> bytes:
    return struct.pack("<IB", len(content), kind) + content


def hidden(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


def lying(data: bytes, size: int) -> bytes:
    """A frame whose header has another size than it."""
    true = zstandard.ZstdCompressor(write_content_size=True).compress(data)
    fake = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(size))
    body = zstandard.frame_header_size(true), zstandard.frame_header_size(fake)
    return fake[: body[1]] + true[body[0] :]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lie_ends_its_session_and_nothing_else(env: Env, store: Store, far: Far, lie: Callable[[Far], bytes]) -> None:
    honest = Far(env, store, "honest")
    going_on = honest.session()
    going_on.session.receive(0, memoryview(frame(honest, CHUNKS)))
    direct = far.session()
    direct.session.receive(0, memoryview(frame(far, [b"sound"]) + node([(0, 0, 1)])))
    data = lie(far)
    tracemalloc.start()
    try:
        with pytest.raises((CorruptObject, InvalidRequest)) as refused:
            for _ in range(3):
                direct.session.receive(2, memoryview(data))
                finish(direct, direct.session.next)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80 * MIB
    assert len(str(refused.value)) < 300

    for again in (
        lambda: direct.session.receive(direct.session.next, memoryview(b"")),
        lambda: direct.session.nodes(Wanted([[0]])),
        lambda: direct.session.ids([0]),
        lambda: direct.session.known(bytes(32)),
        lambda: finish(direct, direct.session.next),
    ):
        with pytest.raises(KeepstoneError, match=r".") as told:
            again()
        assert (told.value.code, str(told.value)) == (refused.value.code, str(refused.value))
    direct.session.abort()
    assert direct.session.over
    assert store.points.list() == []
    going_on.session.receive(1, memoryview(node([(0, 0, 3)])))
    commit = finish(going_on, 2)
    assert [point.id for point in store.points.list()] == [commit]
    assert store.verify(deep=True).ok
    assert [info.name for info in store.context.storage.list("leases/")] == []


@pytest.mark.parametrize("root", [b"", struct.pack("<III", 0, 1, 1), struct.pack("<III", 0, 0, 2), b"123"])
def test_roots_that_are_none(far: Far, store: Store, root: bytes) -> None:
    direct = far.session()
    direct.session.receive(0, memoryview(frame(far, CHUNKS) + node([(0, 0, 3)])))

    if root:
        with pytest.raises((CorruptObject, InvalidRequest)):
            finish(direct, 2, root)
        assert store.points.list() == []
    else:  # a point of nothing is one: such is an empty folder
        finish(direct, 2, root)
        assert len(store.points.list()) == 1


def test_a_wrong_count_is_told_and_changes_nothing(far: Far, store: Store) -> None:
    direct = far.session()
    direct.session.receive(0, memoryview(frame(far, CHUNKS) + node([(0, 0, 3)])))

    for wrong in (0, 1, 3, 1 << 40):
        with pytest.raises(Conflict, match="records were sent"):
            finish(direct, wrong)
    assert store.points.list() == []

    assert finish(direct, 2) == finish(direct, 2)  # asked again
    assert len(store.points.list()) == 1


def test_numbers_that_no_database_keeps(far: Far) -> None:
    direct = far.session()
    direct.session.receive(0, memoryview(node()))

    for name in ("logical", "read", "files", "warnings"):
        for wrong in (-1, 1 << 63, (1 << 64) - 1):
            with pytest.raises(CorruptObject, match=name):
                finish(direct, 1, **{name: wrong})  # type: ignore[arg-type]
    finish(direct, 1, logical=(1 << 63) - 1)


def test_records_again_and_out_of_order(far: Far, store: Store) -> None:
    direct = far.session()
    first, second, third = frame(far, CHUNKS[:2]), frame(far, CHUNKS[2:]), node([(0, 0, 3)])
    session = direct.session

    with pytest.raises(Conflict, match="record 0 is missing"):
        session.receive(1, memoryview(second))
    assert session.receive(0, memoryview(first)) == 1
    assert session.receive(0, memoryview(first)) == 1
    assert session.receive(0, memoryview(first + second)) == 2
    assert session.receive(1, memoryview(second + third[:-1])) == 2  # cut off
    assert session.receive(2, memoryview(b"")) == 2
    assert session.receive(0, memoryview(first + second + third)) == 3
    finish(direct, 3)

    assert store.points.find("latest").record.added == 3000
    with pytest.raises(Conflict, match="is made"):
        session.receive(3, memoryview(first))
    session.abort()  # harmless
    assert len(store.points.list()) == 1


def test_what_is_passed_over_is_not_looked_at(far: Far) -> None:
    """A record that was taken is not taken again with another content."""
    direct = far.session()
    direct.session.receive(0, memoryview(frame(far, CHUNKS)))

    assert direct.session.receive(0, memoryview(record(FRAME, b"nonsense"))) == 1
    direct.session.receive(1, memoryview(node([(0, 0, 3)])))
    finish(direct, 2)


def test_a_question_that_is_none(far: Far) -> None:
    with far.writer() as writer:
        assert writer.commit is not None
    direct = far.session()

    with pytest.raises(InvalidRequest):
        direct.session.known(b"123")
    assert direct.session.known(b"").indexes == []
    with pytest.raises(InvalidRequest):
        direct.session.nodes(Wanted([[1, 2, 3]]))
    with pytest.raises(InvalidRequest):
        direct.session.nodes(Wanted([[-1]]))
    with pytest.raises(InvalidRequest):
        direct.session.ids([1 << 40])
    with pytest.raises(InvalidRequest):
        direct.session.ids([0] * 500_000)
    direct.session.receive(0, memoryview(frame(far, CHUNKS)))  # questions end nothing


def test_a_fault_of_the_service_ends_the_session(far: Far, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a record is not taken twice."""
    direct = far.session()

    def fails(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(direct.session._writer, "append", fails)
    with pytest.raises(ZeroDivisionError):
        direct.session.receive(0, memoryview(frame(far, CHUNKS) + node()))
        finish(direct, 2)

    with pytest.raises(KeepstoneError, match="start the backup again"):
        direct.session.receive(0, memoryview(frame(far, CHUNKS)))
    assert direct.session.over
    assert store.points.list() == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=5), st.binary(max_size=30))
def test_whatever_comes(world: tuple[Far, Store], content: list[tuple[int, bytes]], end: bytes) -> None:
    far, store = world
    direct = far.session()
    data = b"".join([record(kind % 4, body) for kind, body in content]) + end

    try:
        direct.session.receive(0, memoryview(data))
        finish(direct, direct.session.next)
    except (CorruptObject, InvalidRequest):
        pass
    direct.session.abort()

    assert store.points.list() == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 7), st.data())
def test_a_flipped_bit(world: tuple[Far, Store], at: int, bit: int, data: st.DataObject) -> None:
    """It is found, or it is in what is the machine's own business: the kind, the body, which chunks a node names."""
    far, store = world
    direct = far.session()
    sound = frame(far, CHUNKS)
    spoilt = bytearray(sound)
    spoilt[at % len(sound)] ^= 1 << bit

    try:
        taken = direct.session.receive(0, memoryview(spoilt))
        direct.session._intake.drain()
    except (CorruptObject, InvalidRequest):
        taken = 0
    finally:
        direct.session.abort()

    # the three bytes of padding, and zstd's own header, have bits that mean nothing to it
    assert taken == 0 or decoded(spoilt) == b"".join(CHUNKS)
    assert store.points.list() == []


def decoded(data: bytearray) -> bytes:
    """What is in the frame of a record."""
    return zstandard.decompress(bytes(data[5 + 12 + 3 * 36 :]))


@pytest.fixture(scope="module")
def world() -> tuple[Far, Store]:
    """A store that stays empty."""
    env = Env(threads=0)
    store = Store.init(env, MemoryStorage(env), [provider()])
    far = Far(env, store)
    far.session().session.abort()
    return far, store


def test_the_largest_frame(far: Far, store: Store) -> None:
    direct = far.session()
    big = bytes(range(256)) * (MAX_FRAME // 256)

    direct.session.receive(0, memoryview(frame(far, [big])))
    with pytest.raises(CorruptObject):
        direct.session.receive(1, memoryview(frame(far, [big, b"x"])))


def test_messages_are_decoded_or_refused() -> None:
    for kind in (Commit, Wanted, list[int]):
        for data in (b"", b"\xc1", b"\xff" * 100, msgspec.msgpack.encode({"paths": 5}), b"\xdf\xff\xff\xff\xff"):
            with pytest.raises(CorruptObject):
                decode(data, kind)
