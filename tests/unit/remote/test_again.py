# SPDX-License-Identifier: Apache-2.0
"""Backup after backup through the wire, beside a store that is here: each point, each report and each stored byte is
the same, whatever became of the tree and of the store in between."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keepstone.remote import writer as remote_writer
from keepstone.store.footer import DATA, METADATA
from keepstone.store.layout import pack_name
from keepstone.store.leases import Tomb, Tombs
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers
from keepstone.workloads import Silent
from keepstone.workloads.files import Report, RestoreOptions, Selection, backup_files, restore_files
from tests.unit.files.backed import SECOND, Backups, Seen, assert_like
from tests.unit.files.test_backup_again import CHANGES, add, grow, noise, rename_folder, source, touch
from tests.unit.files.trees import snapshot

from .far import Far

__all__ = ["source"]

pytestmark = pytest.mark.agents


class FarBackups(Backups):
    """The same through the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.far = Far(self.env, self.store)

    def run(self, source: Path | bytes, selection: Selection | None = None, *, warnings: int = 0) -> Report:
        self.env.ahead += 3600 * SECOND
        self.heard = Silent()
        with self.far.writer() as writer:
            report = backup_files(self.env, writer, source, selection or Selection(), self.heard)
            self.new_bytes = self.far.direct.session._writer.new_bytes
        assert (len(self.heard.warnings), report.warnings) == (warnings, warnings), self.heard.warnings
        return report

    def restored(self, target: Path) -> dict[bytes, dict[str, object]]:
        """The newest point as the machine restores it."""
        with self.far.reader(self.point().id) as reader:
            report = restore_files(self.env, reader, target, RestoreOptions(), Silent())
        assert (report.failed, report.warnings) == ([], [])
        return snapshot(target)


class Both:
    """A tree backed up into a store that is here and into one behind the wire."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.near, self.far = Backups(), FarBackups()

    def run(self, *, warnings: int = 0) -> Report:
        """Back up into both, and compare what came of it."""
        near, far = (one.run(self.source, warnings=warnings) for one in (self.near, self.far))
        assert replace(near, commit="") == replace(far, commit="")
        assert self.near.new_bytes == self.far.new_bytes
        assert placeless(self.near.seen()) == placeless(self.far.seen())
        assert self.near.detail() == self.far.detail()
        assert_like(self.far.seen(), self.source)
        return far


def placeless(seen: dict[bytes, Seen]) -> dict[bytes, tuple[object, ...]]:
    """Without where it lies; the ids of two stores are others."""
    return {path: (one.entry, one.content, one.lengths) for path, one in seen.items()}


def record(backups: Backups) -> dict[str, object]:
    """What a point says of itself, but for what no two have in common."""
    told = backups.point().record
    names = ("item", "kind", "source", "logical", "read", "added", "files", "warnings")
    return {name: getattr(told, name) for name in names}


@pytest.fixture
def both(source: Path) -> Both:
    made = Both(source)
    made.run()
    return made


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change(both: Both, source: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(source)

    both.run()

    assert record(both.near) == record(both.far)
    assert both.far.restored(tmp_path / "restored") == snapshot(source)
    again = both.run()
    assert again.read == 0


def test_unchanged_sends_next_to_nothing(both: Both) -> None:
    packs = both.far.packs()
    root = both.far.point().record.root

    both.run()

    assert both.far.packs() == packs
    assert both.far.point().record.root == root
    direct = both.far.far.direct
    assert direct.sent < 50  # one handle
    assert direct.count("nodes") == 1  # the whole manifest
    assert direct.count("known") == direct.count("ids") == 0


def test_what_was_renamed_is_read_and_not_sent(both: Both, source: Path) -> None:
    rename_folder(source)
    (source / "large").rename(source / "the same elsewhere")

    report = both.run()

    assert report.read > 9 << 20
    assert both.far.new_bytes == 0
    assert both.far.far.direct.sent < 5000


def test_what_another_item_has_is_sent_and_not_stored(both: Both, source: Path) -> None:
    other = Far(both.far.env, both.far.store, "another")

    other.back_up(source)

    assert other.direct.session._writer.new_bytes == 0
    assert other.direct.sent > 9 << 20
    assert other.direct.count("known") == 0  # it has no point yet


@pytest.mark.parametrize("loss", ["damaged", "missing"])
@pytest.mark.parametrize("part", ["root", "below"])
def test_a_parent_that_cannot_be_read(both: Both, source: Path, loss: str, part: str) -> None:
    """What is damaged is as if it had never been; a machine is not kept from its backups by it."""
    touch(source)
    both.run()
    for one in (both.near, both.far):
        packs = one.point().record.packs
        doomed = [packs[:32]] if part == "root" else below(one, packs[:32])
        for pack in doomed:
            name = pack_name(pack)
            data = bytearray(one.storage.read(name))
            one.storage.delete(name)
            if loss == "damaged":
                data[200] ^= 1
                one.storage.put(name, bytes(data))

    both.run(warnings=1 if part == "root" else 3)  # the folders b, c and d

    assert both.run().read == 0


def below(backups: Backups, root: bytes) -> list[bytes]:
    """The other packs with pages."""
    packs = Packs(backups.store.context, PackNumbers())
    return [pack for pack, _ in packs.listing() if packs.footer(pack).kind == METADATA and pack != root]


@pytest.mark.parametrize("condemned", [{METADATA}, {DATA}, {METADATA, DATA}], ids=["pages", "chunks", "both"])
def test_what_is_about_to_be_reclaimed_is_made_anew(both: Both, condemned: set[int]) -> None:
    buried: list[tuple[Backups, list[bytes], str, str]] = []
    for one in (both.near, both.far):
        context = one.store.context
        packs = Packs(context, PackNumbers())
        doomed = [pack for pack, _ in packs.listing() if packs.footer(pack).kind in condemned]
        buried.append((one, doomed, Tombs(context).publish(Tomb(packs=doomed, moves=[])), one.point().id))

    report = both.run()

    assert not both.far.far.begun.whole
    assert (report.read > 0) == (DATA in condemned)
    for one, doomed, tomb, old in buried:
        Tombs(one.store.context).remove(tomb)
        one.store.points.forget(one.store.points.find(old))
        one.store.points.purge(one.store.points.find(old, deleted=True), now=True)
        for pack in doomed:
            one.storage.delete(pack_name(pack))
    assert both.run().read == 0
    assert both.far.store.verify(deep=True).ok


def test_packs_that_verify_found_damaged(both: Both) -> None:
    for one in (both.near, both.far):
        one.store.damaged = frozenset(info.name for info in one.storage.list("packs/"))

    report = both.run()

    assert report.unchanged == 6  # what has no chunks
    assert both.run().unchanged == report.files


def test_after_reclaim_and_compaction(both: Both, source: Path) -> None:
    """Chunks lie elsewhere than the previous point says."""
    for number in range(6):
        for name in ("a", "b"):
            (source / name / f"more{number}").write_bytes(noise(300_000, 100 * number + len(name)))
        both.run()
    kept = 0
    for one in (both.near, both.far):
        points = one.store.points.list()
        for point in points:
            if point.id != one.point().id:
                one.store.points.forget(point)
                one.store.points.purge(one.store.points.find(point.id, deleted=True), now=True)
    for number in range(0, 6, 2):
        (source / "a" / f"more{number}").unlink()
    both.run()
    for one in (both.near, both.far):
        older = [point for point in one.store.points.list() if point.id != one.point().id]
        for point in older:
            one.store.points.forget(point)
            one.store.points.purge(one.store.points.find(point.id, deleted=True), now=True)
        kept += one.store.reclaim(compact_below=0.99).packs_compacted
    assert kept > 1

    assert both.run().read == 0
    assert not both.far.far.begun.whole
    grow(source)
    rename_folder(source)
    both.run()
    assert both.run().read == 0
    assert both.far.store.verify(deep=True).ok


def test_a_parent_of_another_kind_is_none(both: Both, source: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(noise(1 << 20, 3))

    both.far.far.back_up_image(tmp_path / "disk")

    assert both.far.far.begun.parent is None
    assert both.run().read == 0  # the point of the tree is still the one before


def test_ids_spill(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_writer, "_SPILL", 3)
    for folder in ("a", "c"):
        shutil.copy(source / "large", source / folder / "copy")
        for number in range(40):
            (source / folder / f"many{number}").write_bytes(noise(10 + number, number))
    both = Both(source)

    both.run()
    add(source)
    both.run()

    assert both.far.restored(tmp_path / "restored") == snapshot(source)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder, and a descriptor of one far beneath it; such a tree is too deep for pytest to remove it."""
    root = tmp_path / "deep"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    yield root, fd
    os.close(fd)
    subprocess.run(["rm", "-rf", root], check=True)


DEPTH = 1200


def test_a_tree_deeper_than_python_likes_to_go(deep: tuple[Path, int]) -> None:
    root, fd = deep
    backups = FarBackups()
    for name in ("first", "second"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        report = backups.run(root)

    assert (report.files, report.unchanged) == (2, 1)
    assert sorted(backups.seen())[-1] == b"d/" * DEPTH + b"second"
