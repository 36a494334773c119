# SPDX-License-Identifier: Apache-2.0
"""A service that shows something else than it was given: everything of that is found out, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from keepstone.errors import CorruptObject
from keepstone.remote.framed import Taker
from keepstone.remote.nodes import chunk_refs
from keepstone.remote.reader import RemoteReader
from keepstone.remote.wire import Fetch, Opened, Seen, Wanted
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from tests.unit.files.backed import World
from tests.unit.files.trees import snapshot
from tests.unit.images.disk import CHUNK, noise, sparse

from .sealing import SealedFar, sealed_store

pytestmark = pytest.mark.agents

Change = Callable[[list[Seen]], list[Seen]]


class Forger:
    """A `Point` that lies."""

    def __init__(
        self,
        far: SealedFar,
        commit: str,
        *,
        nodes: Change = lambda seen: seen,
        chunk: Callable[[int, bytes], bytes] = lambda number, chunk: chunk,
    ) -> None:
        self.point = far.far(commit)
        self.change = nodes
        self.chunk = chunk
        self.fetched = 0

    def open(self) -> Opened:
        return self.point.open()

    def nodes(self, wanted: Wanted) -> list[Seen]:
        return self.change(self.point.nodes(wanted))

    def columns(self, path: list[int]) -> bytes:
        raise AssertionError("the service is asked for what it cannot know")

    def fetch(self, fetch: Fetch, taker: Taker) -> None:
        assert taker.check is None

        def take(node: int, index: int, chunk: memoryview) -> None:
            self.fetched += 1
            taker.sink(node, index, memoryview(self.chunk(self.fetched, bytes(chunk))))

        self.point.fetch(fetch, Taker(take))


@pytest.fixture
def far(tmp_path: Path) -> SealedFar:
    env = World(threads=0)
    root = tmp_path / "source"
    for name in ("one", "two"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            (root / name / f"{number}").write_bytes(f"{name} {number} ".encode() * 1000)
    far = SealedFar(env, sealed_store(env)[0])
    far.commit = far.back_up(root).commit  # type: ignore[attr-defined]
    return far


def read(far: SealedFar, **lies: object) -> RemoteReader:
    forger = Forger(far, far.commit, **lies)  # type: ignore[attr-defined, arg-type]
    opened = forger.open()
    return RemoteReader(far.env, forger, opened, far.veil(opened))


def all_of(reader: RemoteReader) -> list[bytes]:
    """Every node and chunk."""
    chunks: list[bytes] = []
    pending = reader.root()
    while pending:
        node = reader.node(pending.pop())
        pending += reader.child_refs(node)
        reader.fetch([(ref, None) for ref in chunk_refs(node)], lambda _, chunk: chunks.append(bytes(chunk)))
    return chunks


def test_who_does_not_lie_is_believed(far: SealedFar) -> None:
    assert sorted(all_of(read(far)))[0].startswith(b"one 0 ")


@pytest.mark.parametrize("at", ["salt", "begin", "middle", "end", "shorter", "longer", "nothing", "zeros"])
def test_a_blob_that_is_changed(far: SealedFar, at: str) -> None:
    def change(number: int, chunk: bytes) -> bytes:
        changed = bytearray(chunk)
        if at in ("salt", "begin", "middle", "end"):
            changed[{"salt": 3, "begin": 33, "middle": len(chunk) // 2, "end": -1}[at]] ^= 1
        return {"shorter": chunk[:-1], "longer": chunk + b"\0", "nothing": b"", "zeros": bytes(len(chunk))}.get(
            at, bytes(changed)
        )

    with pytest.raises(CorruptObject, match="a chunk is not what this machine has sealed"):
        all_of(read(far, chunk=change))


def test_a_blob_in_the_place_of_another(far: SealedFar) -> None:
    kept: list[bytes] = []

    def change(number: int, chunk: bytes) -> bytes:
        kept.append(chunk)
        return kept[0]

    with pytest.raises(CorruptObject, match="a chunk is not what this machine has sealed"):
        all_of(read(far, chunk=change))


def test_only_what_was_changed_is_lost(far: SealedFar, tmp_path: Path) -> None:
    first: list[bytes] = []

    def change(number: int, chunk: bytes) -> bytes:
        first.append(chunk)
        return bytes(len(chunk)) if chunk == first[0] else chunk

    report = restore_files(far.env, read(far, chunk=change), tmp_path / "target", RestoreOptions(), Silent())
    assert len(report.failed) == 1
    assert len(snapshot(tmp_path / "target")) == len(snapshot(tmp_path / "source")) - 1


def _changed(seen: list[Seen], **changes: object) -> list[Seen]:
    return [msgspec.structs.replace(node, **changes) if node.path != [0] else node for node in seen]


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "lie",
    [
        lambda seen: [msgspec.structs.replace(node, body=_flip(node.body, 0)) for node in seen],
        lambda seen: [msgspec.structs.replace(node, body=_flip(node.body, 40)) for node in seen],
        lambda seen: [msgspec.structs.replace(node, body=_flip(node.body, -1 + len(node.body))) for node in seen],
        lambda seen: [msgspec.structs.replace(node, body=b"") for node in seen],
        lambda seen: [msgspec.structs.replace(node, kind="files/other") for node in seen],
        lambda seen: [msgspec.structs.replace(node, chunks=node.chunks + 1) for node in seen],
        lambda seen: [msgspec.structs.replace(node, keys=node.keys + bytes(16)) for node in seen],
        lambda seen: [msgspec.structs.replace(node, keys=node.keys[:-16]) for node in seen],
        lambda seen: [msgspec.structs.replace(node, zeros=bytes(4) + b"\1\0\0\0") for node in seen],
    ],
    ids=["name", "head", "tag", "empty", "kind", "more-chunks", "more-children", "fewer-children", "zeros"],
)
def test_a_node_that_is_changed(far: SealedFar, lie: Change) -> None:
    with pytest.raises(CorruptObject):
        all_of(read(far, nodes=lie))


def test_a_node_in_the_place_of_another(far: SealedFar) -> None:
    """Both are sound nodes of this point."""

    def swap(seen: list[Seen]) -> list[Seen]:
        by = {tuple(node.path): node for node in seen}
        if (0, 0) not in by:
            return seen
        other: dict[tuple[int, ...], tuple[int, ...]] = {(0, 0): (0, 1), (0, 1): (0, 0)}
        return [msgspec.structs.replace(by[other.get(way, way)], path=list(way)) for way in by]

    with pytest.raises(CorruptObject, match="a node of the manifest is not what"):
        all_of(read(far, nodes=swap))


def test_an_older_state_of_a_directory(far: SealedFar, tmp_path: Path) -> None:
    """The root of the newest point, and beneath it a directory as the point before had it."""
    old = far.commit  # type: ignore[attr-defined]
    (tmp_path / "source" / "one" / "0").write_bytes(b"something else")
    far.commit = far.back_up(tmp_path / "source").commit  # type: ignore[attr-defined]
    before = {tuple(node.path): node for node in far.far(old).nodes(Wanted([[0]], deep=True))}

    def lie(seen: list[Seen]) -> list[Seen]:
        return [before[tuple(node.path)] if len(node.path) > 1 else node for node in seen]

    assert all_of(read(far))
    with pytest.raises(CorruptObject, match="a node of the manifest is not what"):
        all_of(read(far, nodes=lie))


def test_another_root_and_another_detail(far: SealedFar) -> None:
    point = far.far(far.commit)  # type: ignore[attr-defined]
    opened = point.open()
    forged = [
        msgspec.structs.replace(opened, keys=b""),
        msgspec.structs.replace(opened, keys=opened.keys * 2),
        *(
            msgspec.structs.replace(opened, point=msgspec.structs.replace(opened.point, detail=detail))
            for detail in (_flip(opened.point.detail, 0), _flip(opened.point.detail, 50), b"", opened.point.detail[:-1])
        ),
    ]
    for one in forged:
        with pytest.raises(CorruptObject):
            RemoteReader(far.env, point, one, far.veil(one))


def test_a_point_of_another_item(far: SealedFar) -> None:
    """Even where both items had the same keys."""
    other = SealedFar(far.env, far.store, "other", keyring=far.keyring)
    point = far.far(far.commit)  # type: ignore[attr-defined]
    opened = point.open()
    with pytest.raises(CorruptObject, match="a recovery point is not what"):
        RemoteReader(far.env, point, opened, other.veil(opened))


def test_zeros_that_are_none(tmp_path: Path) -> None:
    env = World(threads=0)
    disk = sparse(tmp_path / "disk", 10 * CHUNK, {0: noise(3), 5 * CHUNK: noise(2, 1)})
    far = SealedFar(env, sealed_store(env)[0])
    far.commit = far.back_up_image(disk).commit  # type: ignore[attr-defined]
    reader = read(far)
    assert reader.node(reader.child_refs(reader.node(reader.root()[0]))[0])

    def lie(seen: list[Seen]) -> list[Seen]:
        return [msgspec.structs.replace(one, zeros=bytes(4) + b"\x0a\0\0\0") if one.chunks else one for one in seen]

    reader = read(far, nodes=lie)
    leaves = reader.child_refs(reader.node(reader.root()[0]))
    with pytest.raises(CorruptObject, match="something else of a node"):
        reader.node(leaves[0])


def test_a_previous_point_that_was_changed_is_not_used(far: SealedFar, tmp_path: Path) -> None:
    session = far.session()
    assert far.begun.parent is not None
    parent = msgspec.structs.replace(far.begun.parent, detail=_flip(far.begun.parent.detail, 60))
    begun = msgspec.structs.replace(far.begun, parent=parent)
    from keepstone.workloads.files import Selection, backup_files

    with far.writer_of(session, begun) as writer:
        assert writer.parent is None
        assert "all is read again" in writer.messages[0]
        report = backup_files(far.env, writer, tmp_path / "source", Selection(), Silent())
    assert report.unchanged == 0
    assert session.count("nodes") == 0
    restore_files(far.env, far.reader(report.commit), tmp_path / "target", RestoreOptions(), Silent())
    assert snapshot(tmp_path / "target") == snapshot(tmp_path / "source")
