# SPDX-License-Identifier: Apache-2.0
"""The numbers that the kernel calls entries by: nothing is kept for files, and for directories only while it counts."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from threading import Lock

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.mount.nodes import ROOT, Files, Node
from keepstone.store import LocalReader
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.files import Tree
from keepstone.workloads.files.page import PAGE_ENTRIES
from tests.unit.files.points import file, folder, make_point, new_store

pytestmark = pytest.mark.store


@pytest.fixture
def reader() -> LocalReader:
    inner = [file(b"%05d" % number, b"%d" % number) for number in range(PAGE_ENTRIES + 10)]
    return make_point(
        new_store(Env(threads=1)), folder(b"d", *inner), folder(b"e", file(b"x", b"1")), page_entries=PAGE_ENTRIES
    )


@pytest.fixture
def files(reader: LocalReader) -> Iterator[Files]:
    with ChunkCache(Env(threads=1), reader) as chunks:
        yield Files(Tree(reader, chunks))


def entered(files: Files, number: int, name: bytes) -> Node:
    """What the kernel knows after it asked for this name."""
    node = files.child(number, name)
    assert node is not None
    files.remember(node)
    return node


def test_a_number_leads_back_to_its_entry(files: Files) -> None:
    d = entered(files, ROOT, b"d")
    e = entered(files, ROOT, b"e")
    listed = [node for _, node in files.children(d.number, 0)]

    assert len({node.number for node in [d, e, *listed]}) == PAGE_ENTRIES + 12
    for node in (listed[0], listed[4095], listed[4096], listed[-1]):
        assert files.node(node.number) == node
        assert files.child(d.number, node.entry.name) == node
        assert files.path(node.number) == b"d/" + node.entry.name
        assert b"".join(files.content(node.number).read(0, 100)) == b"%d" % int(node.entry.name)
    assert files.path(d.number) == b"d"
    assert files.child(d.number, b"x") is None


def test_a_listing_goes_on_where_it_was_left(files: Files) -> None:
    d = entered(files, ROOT, b"d")
    whole = list(files.children(d.number, 0))

    for at in (0, 1, 4094, 4095, 4096, len(whole) - 1):
        assert list(files.children(d.number, whole[at][0])) == whole[at + 1 :]


def test_what_the_kernel_forgot_is_not_kept(files: Files) -> None:
    d = entered(files, ROOT, b"d")
    child = files.child(d.number, b"00007")
    assert child is not None
    assert entered(files, ROOT, b"d") == d

    files.forget(d.number, 1)
    assert files.node(child.number) == child
    files.forget(d.number, 1)
    for number in (d.number, child.number):
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            list(files.children(number, 0)) if number == d.number else files.node(number)
    again = entered(files, ROOT, b"d")
    assert again == d
    other = files.child(again.number, b"00007")
    assert other is not None
    assert other.inode == child.inode
    files.forget(ROOT, 1 << 40)
    assert files.node(ROOT).inode == ROOT


def test_a_directory_that_is_forgotten_while_it_is_told_of_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    d = entered(files, ROOT, b"d")
    lock, forget = Lock(), [lambda: files.forget(d.number, 1)]

    class Meanwhile:
        """Once it was left, the kernel forgets the directory."""

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if forget:
                forget.pop()()

    monkeypatch.setattr(files, "_lock", Meanwhile())
    files.remember(d)

    assert not forget
    assert files.child(d.number, b"00001") is not None


def test_only_files_have_content(files: Files) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        files.content(entered(files, ROOT, b"e").number)


def test_a_directory_that_nobody_may_enter_is_not_remembered(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CorruptObject("it is within itself")

    monkeypatch.setattr(Tree, "enter", refuse)
    node = files.child(ROOT, b"d")
    assert node is not None
    with pytest.raises(CorruptObject):
        files.remember(node)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        files.child(node.number, b"00001")
