# SPDX-License-Identifier: Apache-2.0
"""What a mount shows, by the numbers that the kernel calls it by.

A number says where an entry is: which directory, page, and place in the page. So nothing is kept for a file, however
many the kernel knows, and for a directory only while the kernel knows it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from keepstone.store import Reader
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.content import Content
from keepstone.workloads.files import Tree
from keepstone.workloads.files.browse import Folder, Found
from keepstone.workloads.files.page import NO_EXTRA, Entry
from keepstone.workloads.images import DiskMap, image_size
from keepstone.workloads.recent import Recent

__all__ = ["DISK", "ROOT", "Disk", "Files", "Node", "Shown", "disk_entry"]

ROOT = 1
"""The number of the root, by the protocol."""
DISK = b"disk.img"
"""What the disk of a point is called."""
_INDEX, _PAGE = 12, 20  # bits
_CONTENTS = 256  # files that are being read


class Node(NamedTuple):
    """`number`: what the kernel calls it; `inode`: what people see; `parent`: the inode of its directory."""

    number: int
    inode: int
    entry: Entry
    parent: int = ROOT


class Shown(Protocol):
    """A file system. Safe for several threads. `OSError` with an errno, and what `Tree` raises."""

    def node(self, number: int) -> Node:
        """What has this number."""

    def child(self, number: int, name: bytes) -> Node | None:
        """What is there in a directory under this name."""

    def children(self, number: int, cursor: int) -> Iterator[tuple[int, Node]]:
        """The entries of a directory from `cursor` on, 0 = the first; with each, where it goes on behind it."""

    def content(self, number: int) -> Content:
        """The bytes of a regular file."""

    def path(self, number: int) -> bytes:
        """Where it is, for people."""

    def remember(self, node: Node) -> None:
        """The kernel was told of it."""

    def forget(self, number: int, count: int) -> None:
        """The kernel does not count on so many of these times any more."""


class _Known:
    """A directory that the kernel was told of so many times."""

    __slots__ = ("count", "folder", "number")

    def __init__(self, number: int, folder: Folder) -> None:
        self.number = number
        self.folder = folder
        self.count = 0


class Files:
    """The tree of a point."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        root = _Known(0, tree.root)
        self._known = {ROOT: root}
        self._folders = {0: tree.root}
        self._last = 0
        self._contents: Recent[int, Content] = Recent(_CONTENTS)
        self._lock = threading.Lock()

    def node(self, number: int) -> Node:
        if number == ROOT:
            return Node(ROOT, ROOT, self._tree.entry)
        return self._node(number, self._found(number))

    def child(self, number: int, name: bytes) -> Node | None:
        known = self._directory(number)
        found = self._tree.child(known.folder, name)
        return None if found is None else self._node(self._number(known, found), found)

    def children(self, number: int, cursor: int) -> Iterator[tuple[int, Node]]:
        known = self._directory(number)
        for found in self._tree.children(known.folder, cursor >> _INDEX, cursor & (1 << _INDEX) - 1):
            following = (found.page << _INDEX | found.place) + 1
            yield following, self._node(self._number(known, found), found)

    def content(self, number: int) -> Content:
        content = self._contents.get(number)
        if content is None:
            found = self._found(number)
            if not stat.S_ISREG(found.entry.mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            content = self._tree.content(found)
            self._contents.put(number, content)
        return content

    def path(self, number: int) -> bytes:
        return b"" if number == ROOT else self._found(number).path

    def remember(self, node: Node) -> None:
        if not stat.S_ISDIR(node.entry.mode):
            return
        with self._lock:
            known = self._known.get(node.number)
        folder = known.folder if known is not None else self._tree.enter(self._found(node.number))
        with self._lock:
            known = self._known.get(node.number)
            if known is None:  # also where it was forgotten just now
                self._last += 1
                known = self._known[node.number] = _Known(self._last, folder)
                self._folders[self._last] = folder
            known.count += 1

    def forget(self, number: int, count: int) -> None:
        with self._lock:
            known = self._known.get(number)
            if known is not None and number != ROOT:
                known.count -= count
                if known.count <= 0:
                    del self._known[number], self._folders[known.number]

    def _directory(self, number: int) -> _Known:
        with self._lock:
            known = self._known.get(number)
        if known is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return known

    def _number(self, known: _Known, found: Found) -> int:
        return (known.number << _PAGE + _INDEX | found.page << _INDEX | found.place) + ROOT + 1

    def _node(self, number: int, found: Found) -> Node:
        return Node(number, self._tree.inode(found), found.entry, found.folder.inode)

    def _found(self, number: int) -> Found:
        place = number - ROOT - 1
        with self._lock:
            folder = self._folders.get(place >> _PAGE + _INDEX)
        if folder is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return self._tree.at(folder, place >> _INDEX & (1 << _PAGE) - 1, place & (1 << _INDEX) - 1)


class Disk:
    """A directory with one file in it: the disk of a point."""

    def __init__(self, reader: Reader, chunks: ChunkCache) -> None:
        self._content = Content(DiskMap(reader), chunks)
        self._root = Node(ROOT, ROOT, _made_up(reader, b".", stat.S_IFDIR | 0o500))
        self._disk = Node(ROOT + 1, ROOT + 1, disk_entry(reader))

    def node(self, number: int) -> Node:
        return self._root if number == ROOT else self._disk

    def child(self, number: int, name: bytes) -> Node | None:
        return self._disk if name == DISK else None

    def children(self, number: int, cursor: int) -> Iterator[tuple[int, Node]]:
        if not cursor:
            yield 1, self._disk

    def content(self, number: int) -> Content:
        return self._content

    def path(self, number: int) -> bytes:
        return b"" if number == ROOT else DISK

    def remember(self, node: Node) -> None:
        """There is nothing to keep."""

    def forget(self, number: int, count: int) -> None:
        """Nothing was kept."""


def disk_entry(reader: Reader) -> Entry:
    """What a mount shows of a disk: whoever looks owns it. `CorruptObject` where it is no sound point of one."""
    return _made_up(reader, DISK, stat.S_IFREG | 0o400, image_size(reader))


def _made_up(reader: Reader, name: bytes, mode: int, size: int = 0) -> Entry:
    time = reader.point.finished
    return Entry(name, mode, os.geteuid(), os.getegid(), size, time, time, 0, 0, NO_EXTRA)
