# SPDX-License-Identifier: Apache-2.0
"""Points looked at without restoring them: walk, find, and the difference of two."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject, HostileName, NotFound
from keepstone.store import LocalReader, Node, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import Selection, backup_files, diff, find, walk
from keepstone.workloads.files.page import Extra
from tests.unit.files.points import Builder, Item, detail, file, folder, make_point, new_store, node, symlink

pytestmark = pytest.mark.store


@pytest.fixture
def store() -> Store:
    return new_store(Env(threads=2))


TREE = (
    folder(b"a", file(b"1", b"1"), folder(b"b", file(b"2", b"2"), symlink(b"link", b"2")), folder(b"empty")),
    file(b"a.txt", b"t"),
    folder(b"c", file(b"notes.TXT"), file(b"r\xe9sum\xe9", b"latin")),
)
PATHS = [
    b"a", b"a/1", b"a/b", b"a/b/2", b"a/b/link", b"a/empty", b"a.txt", b"c", b"c/notes.TXT", b"c/r\xe9sum\xe9"
]  # fmt: skip


@pytest.mark.parametrize("page_entries", [1, 2, 3, 100])
def test_directories_come_before_what_is_in_them(store: Store, page_entries: int) -> None:
    reader = make_point(store, *TREE, page_entries=page_entries)

    assert [path for path, _, _ in walk(reader)] == PATHS
    sizes = {path: entry.size for path, entry, _ in walk(reader) if stat.S_ISREG(entry.mode)}
    lengths = {path: sum(map(reader.chunk_length, refs)) for path, entry, refs in walk(reader) if path in sizes}
    assert sizes == lengths


def test_selected_paths_are_all_that_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = make_point(store, *TREE, page_entries=1)
    nodes = counted(monkeypatch)

    assert [path for path, _, _ in walk(reader, [b"a/b", b"./a.txt/"])] == [b"a/b", b"a/b/2", b"a/b/link", b"a.txt"]
    assert len(nodes) < 20
    with pytest.raises(NotFound, match="a/zz"):
        list(walk(reader, [b"a/zz"]))


def test_walking_is_lazy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = make_point(store, *[folder(b"%03d" % number, file(b"f")) for number in range(200)], page_entries=50)
    nodes = counted(monkeypatch)

    next(walk(reader))

    assert len(nodes) == 1


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The nodes that any reader reads from now on."""
    nodes: list[int] = []
    real = LocalReader.node

    def node(self: LocalReader, ref: int) -> Node:
        nodes.append(ref)
        return real(self, ref)

    monkeypatch.setattr(LocalReader, "node", node)
    return nodes


def test_names_out_of_order_across_pages(store: Store) -> None:
    builder = Builder(store)
    point = builder.commit([builder.page([file(b"b"), file(b"c")]), builder.page([file(b"c")])], detail())

    walked: Iterator[object] = walk(store.reader(point))

    assert [next(walked), next(walked)]
    with pytest.raises(HostileName, match=r"'c' in the directory '\.'"):
        next(walked)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (b"*.txt", [b"a.txt"]),
        (b"[12]", [b"a/1", b"a/b/2"]),
        (b"b", [b"a/b"]),
        (b"a/*", [b"a/1", b"a/b", b"a/b/2", b"a/b/link", b"a/empty"]),
        (b"/a/b/", [b"a/b"]),
        (b"/a.txt", [b"a.txt"]),
        (b"/1", []),
        (b"*/link", [b"a/b/link"]),
        (b"r?sum?", [b"c/r\xe9sum\xe9"]),
        (b"r\xe9*", [b"c/r\xe9sum\xe9"]),
        (b"nothing", []),
    ],
)
def test_find(store: Store, pattern: bytes, expected: list[bytes]) -> None:
    assert [path for path, _ in find(make_point(store, *TREE), [pattern])] == expected


def test_find_takes_several_patterns_and_names_each_entry_once(store: Store) -> None:
    assert [path for path, _ in find(make_point(store, *TREE), [b"*.TXT", b"a*", b"a/b", b"a/*/2"])] == [
        b"a", b"a/b", b"a/b/2", b"a.txt", b"c/notes.TXT"
    ]  # fmt: skip


def changes(store: Store, before: list[Item], after: list[Item]) -> list[tuple[str, str]]:
    """What `diff` says of two points, shortly."""
    one, other = make_point(store, *before), make_point(store, *after)
    found = []
    for change in diff(one, other):
        assert (change.before is None) == (change.difference == "added")
        assert (change.after is None) == (change.difference == "removed")
        found.append((os.fsdecode(change.path), str(change.difference)))
    assert [(os.fsdecode(change.path)) for change in diff(other, one)] == [path for path, _ in found]
    assert list(diff(one, one)) == list(diff(other, other)) == []
    return found


FIRST, LAST = Extra(extents=[(0, 1)]), Extra(extents=[(8, 1)])


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        (file(b"x", b"1"), file(b"x", b"2"), "content"),
        (file(b"x", b"1"), file(b"x", b"1", b"2"), "content"),
        (file(b"x", b"1"), file(b"x", b"1", mtime=5), "metadata"),
        (file(b"x", b"1"), file(b"x", b"1", mode=0o600), "metadata"),
        (file(b"x", b"1"), file(b"x", b"1", uid=77), "metadata"),
        (file(b"x", b"1"), file(b"x", b"1", gid=77), "metadata"),
        (file(b"x", b"1"), file(b"x", b"1", extra=Extra(xattrs={b"user.a": b""})), "metadata"),
        (file(b"x", b"1"), file(b"x", b"1", inode=8), None),
        (file(b"x", b"1", size=9, extra=FIRST), file(b"x", b"1", size=9, extra=LAST), "content"),
        (symlink(b"x", b"1"), symlink(b"x", b"2"), "content"),
        (node(b"x", stat.S_IFCHR, rdev=1), node(b"x", stat.S_IFCHR, rdev=2), "content"),
        (file(b"x", b"1"), symlink(b"x", b"1"), "type"),
        (file(b"x", b"1"), folder(b"x"), "type"),
        (folder(b"x"), folder(b"x", mode=0o700), "metadata"),
        (folder(b"x"), folder(b"x", mtime=5), None),
    ],
)  # fmt: skip
def test_one_entry_differs(store: Store, before: Item, after: Item, difference: str | None) -> None:
    expected = [("d/x", difference)] if difference else []
    around = [file(b"%d" % number, b"same") for number in range(7)]

    assert changes(store, [folder(b"d", *around, before)], [folder(b"d", *around, after)]) == expected


def test_whole_directories_come_and_go(store: Store) -> None:
    assert changes(store, [*TREE], [TREE[2], file(b"d"), folder(b"a.txt", file(b"inside"))]) == [
        ("a", "removed"),
        ("a/1", "removed"),
        ("a/b", "removed"),
        ("a/b/2", "removed"),
        ("a/b/link", "removed"),
        ("a/empty", "removed"),
        ("a.txt", "type"),
        ("a.txt/inside", "added"),
        ("d", "added"),
    ]


def test_entries_move_between_pages(store: Store) -> None:
    """The same entries on other pages are no difference."""
    items = [file(b"%03d" % number, b"%d" % number) for number in range(50)]

    one = make_point(store, folder(b"d", *items), page_entries=7)
    other = make_point(store, folder(b"d", *items), page_entries=11)

    assert list(diff(one, other)) == []


def test_what_is_equal_is_not_read(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of a thousand in a hundred directories changes: two pages of each point are looked at."""
    source = tmp_path / "source"
    for number in range(100):
        (source / f"{number:02d}").mkdir(parents=True)
        for inner in range(10):
            (source / f"{number:02d}" / f"{inner}").write_text(f"{number} {inner}")
    points = []
    for _ in range(2):
        with store.writer("tree", "files") as writer:
            backup_files(Env(), writer, source, Selection(), Silent())
        points.append(store.reader(store.points.find("latest")))
        (source / "42" / "7").write_text("changed")
    nodes = counted(monkeypatch)

    assert [(change.path, change.difference) for change in diff(*points)] == [(b"42/7", "content")]
    assert len(nodes) == 4


def test_damage_is_not_taken_for_a_difference(store: Store) -> None:
    builder = Builder(store)
    broken = store.reader(builder.commit([builder.node([], [], b"no page")], detail()))

    with pytest.raises(CorruptObject):
        list(diff(broken, make_point(store, file(b"a"))))
    with pytest.raises(CorruptObject):
        list(walk(broken))
