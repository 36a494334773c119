# SPDX-License-Identifier: Apache-2.0
"""Points of files written entry by entry with the store's own writer: sound ones, and such as no backup would make."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from keepstone.crypto import Argon2Cost, KeyProvider, PassphraseProvider
from keepstone.env import Env
from keepstone.objects import FolderStorage, MemoryStorage, ObjectStorage
from keepstone.store import Chunks, LocalReader, LocalWriter, Outcome, Point, Scratch, Store
from keepstone.workloads.files.page import NODE_KIND, Detail, Extra, Page, encode_page, stored

DATE = 1_700_000_000_123_456_789
"""A time with nanoseconds that no clock shows by chance."""


def provider() -> KeyProvider:
    """A key that costs nothing."""
    return PassphraseProvider(b"x", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)


def new_store(env: Env, folder: Path | None = None) -> Store:
    """A store in memory or in a folder."""
    storage: ObjectStorage = MemoryStorage(env) if folder is None else FolderStorage(env, folder, create=True)
    return Store.init(env, storage, [provider()])


@dataclass(frozen=True)
class Item:
    """An entry to be. `chunks`: its content; `size`, `count`: what the page claims, where that is not the truth."""

    name: bytes
    mode: int
    chunks: Sequence[bytes] = ()
    children: Sequence[Item] = ()
    uid: int = field(default_factory=os.geteuid)
    gid: int = field(default_factory=os.getegid)
    mtime: int = DATE
    inode: int = 0
    extra: Extra = field(default_factory=Extra)
    size: int | None = None
    count: int | None = None

    def but(self, **changes: Any) -> Item:
        """The same with something else."""
        return replace(self, **changes)


def file(name: bytes, *chunks: bytes, mode: int = 0o644, **rest: Any) -> Item:
    """A regular file."""
    return Item(name, stat.S_IFREG | mode, chunks, **rest)


def folder(name: bytes, *children: Item, mode: int = 0o755, **rest: Any) -> Item:
    """A directory."""
    return Item(name, stat.S_IFDIR | mode, children=children, **rest)


def symlink(name: bytes, target: bytes, **rest: Any) -> Item:
    """A symbolic link."""
    return Item(name, stat.S_IFLNK | 0o777, extra=Extra(target=target), size=len(target), **rest)


def node(name: bytes, kind: int, mode: int = 0o600, rdev: int = 0, **rest: Any) -> Item:
    """A device, fifo or socket."""
    return Item(name, kind | mode, extra=Extra(rdev=rdev), **rest)


class Builder:
    """Writes one point. `page_entries`: how many entries a page has at most."""

    def __init__(self, store: Store, item: str = "tree", page_entries: int = 3) -> None:
        self._store = store
        self._writer: LocalWriter = store.writer(item, "files")
        self._page_entries = page_entries
        self._size = self._files = 0

    def chunk(self, data: bytes) -> int:
        """Store a chunk; its place."""
        places: list[int] = []

        def read(scratch: Scratch) -> Chunks:
            scratch.view[: len(data)] = data
            return Chunks(scratch.view[: len(data)], [len(data)], [], None)

        self._writer.submit(read, lambda refs, _: places.extend(refs))
        self._writer.drain()
        return places[0]

    def pages(self, items: Sequence[Item]) -> list[int]:
        """Store a directory; the places of its pages."""
        step = self._page_entries
        return [self.page(items[at : at + step]) for at in range(0, len(items), step)]

    def page(self, items: Sequence[Item], **columns: bytes) -> int:
        """Store a page; `columns` replace what would be right."""
        chunks: list[int] = []
        children: list[int] = []
        counts, sizes = [], []
        for item in items:
            refs: list[int] = []
            if stat.S_ISDIR(item.mode):
                refs = self.pages(item.children)
                children += refs
            else:
                refs = [self.chunk(chunk) for chunk in item.chunks]
                chunks += refs
            size = sum(map(len, item.chunks)) if item.size is None else item.size
            self._size += size
            self._files += 1
            counts.append(len(refs) if item.count is None else item.count)
            sizes.append(size)
        page = Page(
            names=b"".join(item.name + b"\0" for item in items),
            modes=stored("I", [item.mode for item in items]),
            uids=stored("I", [item.uid for item in items]),
            gids=stored("I", [item.gid for item in items]),
            sizes=stored("q", sizes),
            mtimes=stored("q", [item.mtime for item in items]),
            ctimes=stored("q", [item.mtime for item in items]),
            inodes=stored("Q", [item.inode for item in items]),
            counts=stored("I", counts),
            extras={index: item.extra for index, item in enumerate(items) if item.extra != Extra()},
        )
        page = msgspec.structs.replace(page, **columns)
        return self.node(chunks, children, encode_page(page))

    def node(self, chunks: list[int], children: list[int], body: bytes, kind: str = NODE_KIND) -> int:
        """Store a node as it is given."""
        return self._writer.put_node(kind, chunks, children, body)

    def commit(self, root: list[int], detail: Detail | bytes) -> Point:
        """Make the point; it is the newest."""
        outcome = Outcome(
            root=root,
            detail=detail if isinstance(detail, bytes) else msgspec.msgpack.encode(detail),
            source=b"/source",
            logical=self._size,
            read=self._size,
            files=self._files,
            warnings=0,
        )
        return self._store.points.find(self._writer.commit(outcome))


def root_page(mode: int = 0o755, mtime: int = DATE, extra: Extra | None = None) -> bytes:
    """What `Detail.root` holds."""
    page = Page(
        names=b".\0",
        modes=stored("I", [stat.S_IFDIR | mode]),
        uids=stored("I", [os.geteuid()]),
        gids=stored("I", [os.getegid()]),
        sizes=stored("q", [0]),
        mtimes=stored("q", [mtime]),
        ctimes=stored("q", [mtime]),
        inodes=stored("Q", [2]),
        counts=stored("I", [0]),
        extras={} if extra is None else {0: extra},
    )
    return encode_page(page)


def detail(root: bytes | None = None, single: bool = False, users: dict[int, str] | None = None) -> Detail:
    """What a point says of its source."""
    return Detail(root=root_page() if root is None else root, single=single, users=users or {}, groups={}, patterns=[])


def make_point(store: Store, *items: Item, described: Detail | None = None, page_entries: int = 3) -> LocalReader:
    """A point with these entries, in order of their names, ready to be read."""
    builder = Builder(store, page_entries=page_entries)
    root = builder.pages(sorted_items(items))
    return store.reader(builder.commit(root, described or detail()))


def sorted_items(items: Sequence[Item]) -> list[Item]:
    """As a page has them."""
    inner = [item.but(children=sorted_items(item.children)) if item.children else item for item in items]
    return sorted(inner, key=lambda item: item.name)


def only_directory(name: bytes) -> bytes:
    """The body of a page with one directory of one page in it."""
    ids, numbers = stored("I", [0]), stored("q", [0])
    mode, inode, count = stored("I", [stat.S_IFDIR | 0o755]), stored("Q", [0]), stored("I", [1])
    return encode_page(Page(name + b"\0", mode, ids, ids, numbers, numbers, numbers, inode, count))


def deep(builder: Builder, levels: int, item: Item) -> list[int]:
    """Directories, each named `d`, one in the other, and this entry at the bottom."""
    inner = [builder.page([item])]
    for _ in range(levels):
        inner = [builder.node([], inner, only_directory(b"d"))]
    return inner
