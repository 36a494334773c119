# SPDX-License-Identifier: Apache-2.0
"""Pages: what is written is read, cuts of long directories stay where they are, and no page outgrows a node."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.env import FileSystem
from keepstone.errors import SourceFailed
from keepstone.store import SEGMENT
from keepstone.workloads.directories import scan
from keepstone.workloads.directories.columns import layout
from keepstone.workloads.files.backup import draft
from keepstone.workloads.files.backup.table import picked, restated, table_of, to_page
from keepstone.workloads.files.page import PAGE_ENTRIES, Entry, Extra, decode_page, encode_page, entries
from tests.unit.files.backed import Backups, assert_like

pytestmark = pytest.mark.store

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
NAME = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name)
ATTRIBUTES = st.dictionaries(st.binary(max_size=8), st.binary(max_size=8), max_size=2)
EXTRA = st.builds(
    Extra,
    target=st.binary(max_size=8),
    xattrs=ATTRIBUTES,
    rdev=U64,
    link=st.none() | st.tuples(U64, U32),
    extents=st.none() | st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1)), max_size=3),
    flags=st.integers(0, 3),
)
ENTRY = st.builds(
    Entry, name=NAME, mode=U32, uid=U32, gid=U32, size=I64, mtime=I64, ctime=I64, inode=U64, count=U32, extra=EXTRA
)


def table(rows: list[Entry]) -> bytes:
    columns = [
        [getattr(row, name) for row in rows] for name in ("mode", "uid", "gid", "size", "mtime", "ctime", "inode")
    ]
    return layout(len(rows)).pack(*(value for column in columns for value in column))


@given(st.lists(ENTRY, max_size=8))
def test_a_page_is_read_as_it_was_written(rows: list[Entry]) -> None:
    names = b"".join(row.name + b"\0" for row in rows)
    extras = {at: row.extra for at, row in enumerate(rows) if row.extra != Extra()}
    page = to_page(names, table(rows), [row.count for row in rows], extras)

    read = decode_page(encode_page(page))

    assert read == page
    assert list(entries(read)) == rows
    assert table_of(read) == table(rows)


class Status:
    """As much of a stat result as a page holds."""

    def __init__(self, row: Entry) -> None:
        self.st_mode, self.st_uid, self.st_gid = row.mode, row.uid, row.gid
        self.st_mtime_ns, self.st_ctime_ns, self.st_ino = row.mtime, row.ctime, row.inode


@given(st.lists(ENTRY, min_size=1, max_size=8), st.data())
def test_single_entries_of_a_table(rows: list[Entry], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True).map(sorted))
    news = {at: data.draw(ENTRY) for at in chosen}

    assert picked(table(rows), len(rows), chosen) == table([rows[at] for at in chosen])
    changes: Any = {at: (Status(new), new.size) for at, new in news.items()}
    assert restated(table(rows), len(rows), changes) == table([news.get(at, row) for at, row in enumerate(rows)])


@given(st.sets(NAME, max_size=60), st.booleans())
@settings(deadline=None)
def test_a_listing_is_in_order_of_bytes(names: set[bytes], odd: bool) -> None:
    """Whatever order the file system has them in."""

    class Listed(FileSystem):
        @staticmethod
        def scandir(path: Any = None) -> Any:
            return _Scan([_Listed(os.fsdecode(name)) for name in names])

    listing, later = scan.first_page(Listed(), 0, None, lambda _, error: pytest.fail(str(error)))

    found = listing.seen.names.split(b"\0")[:-1] if listing else []
    assert (found, later) == (sorted(names), [])


class _Listed:
    """A directory entry that need not exist: no file system takes every name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        return os.stat("/")


class _Scan:
    def __init__(self, found: list[_Listed]) -> None:
        self._found = found

    def __enter__(self) -> Any:
        return iter(self._found)

    def __exit__(self, *_: object) -> None:
        return None


def cut(names: list[bytes]) -> list[bytes]:
    return list(scan._cut(names))


def test_where_a_long_directory_is_cut() -> None:
    names = [b"%08d" % number for number in range(200_000)]

    pages = cut(names)

    assert b"".join(pages) == b"".join(name + b"\0" for name in names)
    sizes = [page.count(b"\0") for page in pages]
    assert max(sizes) <= PAGE_ENTRIES
    assert min(sizes[:-1]) >= PAGE_ENTRIES // 4
    assert 1500 < len(names) / len(sizes) < 2500


@pytest.mark.parametrize(
    "change",
    [lambda names: names[1:], lambda names: [b"!", *names], lambda names: names[:50_000] + names[50_003:]],
    ids=["first gone", "new first", "some gone"],
)
def test_a_change_of_names_moves_few_cuts(change: Callable[[list[bytes]], list[bytes]]) -> None:
    names = [b"%08d" % number for number in range(100_000)]

    common = set(cut(names)) & set(cut(change(names)))

    assert len(common) >= len(cut(names)) - 3


def test_a_page_that_would_outgrow_a_node_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "_BODY", 20_000)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(32):
        (source / f"{number:02}").write_text(str(number))
        os.setxattr(source / f"{number:02}", "user.bulk", bytes([number]) * 3000)
    backups = Backups()

    backups.run(source)

    assert_like(backups.seen(), source)
    reader = backups.store.reader(backups.point())
    assert len(reader.root()) == 8
    assert max(len(reader.node(ref).body) for ref in reader.root()) < 20_000
    (source / "00").write_text("changed")
    assert backups.run(source).unchanged == 31
    assert_like(backups.seen(), source)


def test_a_file_that_no_node_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "_BODY", 50)
    monkeypatch.setattr(draft, "_NODE", 100)
    source = tmp_path / "source"
    source.mkdir()
    (source / "vast").write_bytes(b"\1" * SEGMENT)
    (source / "vast").chmod(stat.S_IRUSR)
    backups = Backups()

    with pytest.raises(SourceFailed, match="vast"):
        backups.run(source)

    assert backups.store.points.list() == []
