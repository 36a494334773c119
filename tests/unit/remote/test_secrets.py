# SPDX-License-Identifier: Apache-2.0
"""What a machine can learn of what others keep in the same store: nothing. It is told the same, byte for byte but for
random names, whether they have the same data or not."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec
import pytest

from keepstone.objects import MemoryStorage
from keepstone.remote.wire import Begun, Found, Opened, Seen, decode
from keepstone.store import PointRecord, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from tests.unit.files.backed import SECOND, World
from tests.unit.files.points import provider

from .far import Far

pytestmark = pytest.mark.agents


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small files, which share frames, large ones, and what compresses."""
    root = tmp_path / "source"
    (root / "folder").mkdir(parents=True)
    for number in range(60):
        (root / f"small{number}").write_bytes(noise(500 + 40 * number, number))
    for number in range(4):
        (root / "folder" / f"large{number}").write_bytes(noise(1_500_000, 100 + number))
    (root / "text").write_bytes(b"all work and no play " * 60_000)
    return root


class Life:
    """What a machine says and hears, while somebody else backs something up into the same store."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.env = World(threads=0)
        self.store = Store.open(self.env, MemoryStorage(self.env, objects=dict(objects)), [provider()])
        self.heard: list[object] = []
        self.others = Far(self.env, self.store, "somebody else")
        self.mine = Far(self.env, self.store, "mine")
        self.commit = ""

    def other(self, source: Path) -> None:
        self.env.ahead += 3600 * SECOND
        self.others.back_up(source)

    def back_up(self, source: Path) -> None:
        self.env.ahead += 3600 * SECOND
        self.commit = self.mine.back_up(source).commit
        self.heard.append(nameless(self.mine.begun))
        for call, request, answer in self.mine.direct.said:
            self.heard.append((call, len(request), nodes(answer) if call == "nodes" else answer))

    def restore(self, target: Path) -> None:
        point = self.mine.far(self.commit)
        asked: list[object] = []
        ask = point.ask

        def listening(verb: str, body: bytes = b"") -> bytes:
            answer = ask(verb, body)
            if verb == "open":
                asked.append(nameless(decode(answer, Opened)))
            else:
                asked.append((verb, body, nodes(answer) if verb == "nodes" else answer))
            return answer

        point.ask = listening  # type: ignore[method-assign]
        opened = point.open()
        from keepstone.remote.reader import RemoteReader

        with RemoteReader(self.env, point, opened, self.mine.veil(opened)) as reader:
            report = restore_files(self.env, reader, target, RestoreOptions(), Silent())
        assert report.failed == []
        self.heard += [*asked, list(point.pieces)]


def nameless(told: Begun | Opened) -> Begun | Opened:
    """Without what no two have in common: names by chance, and times."""
    record = told.parent if isinstance(told, Begun) else told.point
    if record is not None:
        record = msgspec.structs.replace(record, started=0, finished=0)
    if isinstance(told, Begun):
        session = "x" * len(told.session)
        return msgspec.structs.replace(told, parent=record, parent_id="", keys=bytes(len(told.keys)), session=session)
    assert record is not None
    return msgspec.structs.replace(told, point=record, keys=bytes(len(told.keys)))


def nodes(answer: bytes) -> list[Seen]:
    return [msgspec.structs.replace(seen, keys=bytes(len(seen.keys))) for seen in decode(answer, list[Seen])]


def test_the_same_is_said_whatever_others_have(source: Path, tmp_path: Path) -> None:
    env = World()
    empty = MemoryStorage(env)
    Store.init(env, empty, [provider()])
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    same = tmp_path / "same"  # somebody has all of it, in other frames
    shutil.copytree(source, same)
    (same / "before").write_bytes(noise(700_000, 5))
    for number in range(0, 60, 3):
        (same / f"small{number}").rename(same / f"zz{number}")
    new = tmp_path / "new"
    new.mkdir()
    (new / "what mine has only later").write_bytes(noise(1_500_000, 777))
    others = {
        "alone": [nothing, nothing, nothing],
        "all before": [same, same, same],
        "all between": [nothing, same, new],
        "some": [new, nothing, same],
    }
    lives = {name: Life(empty.objects) for name in others}

    for name, life in lives.items():
        life.other(others[name][0])
        life.back_up(source)
    (source / "folder" / "large1").rename(source / "moved")
    (source / "folder" / "large2").write_bytes(noise(1_500_000, 777))
    (source / "small7").write_bytes(b"new")
    for name, life in lives.items():
        life.other(others[name][1])
        life.back_up(source)
        life.other(others[name][2])
        life.restore(tmp_path / name)

    alone = lives.pop("alone")
    for life in lives.values():
        assert len(life.heard) == len(alone.heard)
        for mine, theirs in zip(alone.heard, life.heard, strict=True):
            assert mine == theirs
    points = lives["all before"].store.points.list()
    assert sorted(point.record.added for point in points if point.record.item == "mine")[0] == 0  # it is stored once


def test_known_tells_of_the_items_own_previous_point_alone(source: Path, tmp_path: Path) -> None:
    env = World()
    storage = MemoryStorage(env)
    store = Store.init(env, storage, [provider()])
    theirs, mine = Far(env, store, "theirs"), Far(env, store, "mine")
    theirs.back_up(source)
    secret = store.context.hashing.keyed(store.context.keys.id, (source / "small5").read_bytes())
    own = tmp_path / "own"
    own.mkdir()
    (own / "file").write_bytes(b"mine")
    known = store.context.hashing.keyed(store.context.keys.id, b"mine")

    first = mine.session()
    assert first.known(secret + known) == Found(0, [])  # no point yet
    first.abort()
    env.ahead += 3600 * SECOND
    mine.back_up(own)
    second = mine.session()
    assert second.known(secret + known + bytes(32)) == Found(0, [1])
    assert second.known(known * 2) == Found(1, [0, 1])
    second.abort()
    asked = theirs.session()
    assert asked.known(secret) == Found(0, [0])
    asked.abort()


def test_a_point_tells_its_machine_nothing_of_where_it_lies(source: Path) -> None:
    env = World()
    store = Store.init(env, MemoryStorage(env), [provider()])
    far = Far(env, store)
    commit = far.back_up(source).commit
    record = far.point(commit).record
    far.session().abort()

    for told in (far.begun.parent, far.far(commit).open().point):
        assert isinstance(told, PointRecord)
        assert (told.packs, told.root, told.added, told.stored, told.tags, told.parent) == (b"", b"", 0, 0, [], "")
        assert (told.logical, told.files, told.detail) == (record.logical, record.files, record.detail)
    assert record.packs
    assert record.added
