# SPDX-License-Identifier: Apache-2.0
"""Disk images through the wire."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepstone.disks import RawSink
from keepstone.env import Env
from keepstone.remote.writer import RemoteWriter
from keepstone.store import ZERO_REF
from keepstone.workloads import Silent
from keepstone.workloads.images import image_size, restore_image
from tests.unit.files.points import new_store
from tests.unit.images.disk import CHUNK, naming, noise, patch, sparse

from .far import DirectPoint, Far
from .sealing import SealedFar

pytestmark = pytest.mark.agents


def restored(far: Far, commit: str, target: Path) -> bytes:
    with far.reader(commit) as reader:
        sink = RawSink(far.env, target, image_size(reader))
        assert restore_image(far.env, reader, sink, Silent()) == []
    return target.read_bytes()


def test_a_disk_with_holes_comes_back(tmp_path: Path) -> None:
    far = Far(Env(threads=2), new_store(Env()), "disk")
    disk = sparse(tmp_path / "disk", 40 * CHUNK + 512, {0: noise(3), 20 * CHUNK: noise(2, 1), 40 * CHUNK: b"end"})

    report = far.back_up_image(disk)

    assert restored(far, report.commit, tmp_path / "target") == disk.read_bytes()


def test_an_unchanged_disk_with_holes_sends_nothing(tmp_path: Path) -> None:
    far = Far(Env(threads=2), new_store(Env()), "disk")
    disk = sparse(tmp_path / "disk", 40 * CHUNK, {0: noise(3), 20 * CHUNK: noise(2, 1)})
    far.back_up_image(disk)

    report = far.back_up_image(disk)

    assert far.direct.sent < 30  # a handle
    assert restored(far, report.commit, tmp_path / "target") == disk.read_bytes()
    patch(disk, {5 * CHUNK: noise(1, 2)})
    report = far.back_up_image(disk)
    assert restored(far, report.commit, tmp_path / "again") == disk.read_bytes()


@pytest.mark.parametrize("kind", [Far, SealedFar])
def test_what_did_not_change_is_neither_named_nor_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Far]
) -> None:
    far = kind(Env(threads=2), new_store(Env()), "disk")
    far.memory = tmp_path / "memory"
    disk = sparse(tmp_path / "disk", 60 * CHUNK, {0: noise(20), 40 * CHUNK: noise(12, 1)})
    far.back_up_image(disk)
    patch(disk, {7 * CHUNK: b"new"})
    named = naming(monkeypatch, RemoteWriter)

    report = far.back_up_image(disk)

    assert named == [CHUNK]
    assert restored(far, report.commit, tmp_path / "target") == disk.read_bytes()
    (file,) = far.memory.iterdir()
    file.unlink()
    report = far.back_up_image(disk)
    assert len(named) == 33
    assert restored(far, report.commit, tmp_path / "again") == disk.read_bytes()


def test_workers_that_begin_together_ask_for_a_column_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = Far(Env(threads=4), new_store(Env()), "disk")
    report = far.back_up_image(sparse(tmp_path / "disk", 40 * CHUNK, {0: noise(20)}))
    asked: list[list[int]] = []
    answer = DirectPoint.columns

    def slowly(point: DirectPoint, path: list[int]) -> bytes:
        asked.append(path)
        time.sleep(0.1)
        return answer(point, path)

    monkeypatch.setattr(DirectPoint, "columns", slowly)
    with far.reader(report.commit) as reader, ThreadPoolExecutor(8) as pool:
        (root,) = reader.root()
        (leaf,) = reader.child_refs(reader.node(root))
        refs = [ref for ref in reader.chunk_refs(reader.node(leaf)) if ref != ZERO_REF]
        lengths = [*pool.map(reader.chunk_length, refs)]

    assert lengths == [CHUNK] * 20
    assert len(asked) == 1
