# SPDX-License-Identifier: Apache-2.0
"""Restores through the wire from a damaged store: what can be had is had, as where the store is; and nobody is told
where it lay."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks import RawSink
from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.objects import FolderStorage
from keepstone.remote.reader import RemoteReader
from keepstone.remote.wire import Fetch
from keepstone.store import Store
from keepstone.store.footer import DATA, METADATA
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, RestoreReport, restore_files
from keepstone.workloads.images import image_size, restore_image
from tests.unit.files.points import new_store, provider
from tests.unit.files.test_restore_damage import Damaged, contents, items, restored
from tests.unit.images.disk import CHUNK, noise, sparse
from tests.unit.store.known import Machine, save
from tests.unit.store.known import items as letters

from .far import Far

pytestmark = pytest.mark.agents


@pytest.fixture
def env() -> Env:
    return Env(threads=2)


def far_reader(env: Env, root: Path) -> RemoteReader:
    """The newest point of the store in this folder, through the wire."""
    store = Store.open(env, FolderStorage(env, root), [provider()])
    return Far(env, store).reader(store.points.find("latest").id)


def both(env: Env, damaged: Damaged, root: Path, target: Path) -> tuple[RestoreReport, RestoreReport]:
    """Restored from where it is, and through the wire: the same is there, and the same is missing."""
    with damaged.reader() as reader:
        near = restore_files(env, reader, target / "near", RestoreOptions(), Silent())
    with far_reader(env, root) as reader:
        far = restore_files(env, reader, target / "far", RestoreOptions(), Silent())
    assert restored(target / "near") == restored(target / "far")
    assert {path for path, _ in near.failed} == {path for path, _ in far.failed}
    assert (near.files, near.size) == (far.files, far.size)
    assert not any("packs/" in reason for _, reason in far.failed)
    assert all("verify" in reason for _, reason in far.failed)
    return near, far


def test_damaged_frames(env: Env, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    damaged = Damaged(env, tmp_path / "store", items(contents(60)))
    for frame in random.Random(5).sample(damaged.frames(DATA), 7):
        damaged.flip(frame)

    near, _ = both(env, damaged, tmp_path / "store", tmp_path / "out")

    assert 0 < len(near.failed) < near.files


def test_a_pack_that_is_gone(env: Env, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    damaged = Damaged(env, tmp_path / "store", items(contents(700, seed=2)))
    packs = sorted({path for path, _, _ in damaged.frames(DATA)})
    packs[1].unlink()

    near, _ = both(env, damaged, tmp_path / "store", tmp_path / "out")

    assert 0 < len(near.failed) < near.files


def test_a_pack_whose_table_is_damaged(env: Env, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    damaged = Damaged(env, tmp_path / "store", items(contents(700, seed=2)))
    path = sorted({path for path, _, _ in damaged.frames(DATA)})[1]
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)

    near, _ = both(env, damaged, tmp_path / "store", tmp_path / "out")

    assert 0 < len(near.failed) < near.files


def test_a_damaged_page(env: Env, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    damaged = Damaged(env, tmp_path / "store", items(contents(30)))
    damaged.flip(damaged.frames(METADATA)[0])

    near, _ = both(env, damaged, tmp_path / "store", tmp_path / "out")

    assert near.failed


def test_a_disk(env: Env, tmp_path: Path) -> None:
    root = tmp_path / "store"
    far = Far(env, new_store(env, root), "disk")
    disk = sparse(tmp_path / "disk", 300 * CHUNK, {0: noise(60), 200 * CHUNK: noise(80, 1)})
    commit = far.back_up_image(disk).commit
    data = sorted(
        (path for path in (root / "packs").rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size
    )
    data[0].chmod(0o600)
    spoilt = bytearray(data[0].read_bytes())
    for at in range(1, 9):
        spoilt[at * len(spoilt) // 9] ^= 1
    data[0].write_bytes(spoilt)
    lost = []
    for name, reader in (("near", far.store.reader(far.point(commit))), ("far", far.reader(commit))):
        with reader:
            sink = RawSink(env, tmp_path / name, image_size(reader))
            lost.append([(one.offset, one.length) for one in restore_image(env, reader, sink, Silent())])

    assert lost[0] == lost[1]
    assert 0 < len(lost[0]) <= 8
    assert (tmp_path / "near").read_bytes() == (tmp_path / "far").read_bytes()


def test_an_answer_that_is_not_whole(env: Env, tmp_path: Path) -> None:
    """A service that leaves chunks out does not leave holes in files."""
    store = new_store(Machine())
    far = Far(env, store, "item")
    point = far.far(save(store, letters("abcdef")))
    fetch = point.fetch

    def leaving_out(wanted: Fetch, *more: Any) -> None:
        fetch(Fetch([(path, indexes[:-4]) for path, indexes in wanted.nodes]), *more)

    point.fetch = leaving_out  # type: ignore[method-assign,assignment]
    opened = point.open()
    with RemoteReader(env, point, opened, far.veil(opened)) as reader:
        (root,) = reader.root()
        leaf = reader.node(reader.child_refs(reader.node(root))[0])
        with pytest.raises(CorruptObject, match="did not send all"):
            reader.fetch([(ref, None) for ref in reader.chunk_refs(leaf)], lambda *_: None)
