# SPDX-License-Identifier: Apache-2.0
"""A directory as the parent point has it, page by page beside the directory as it is now.

Which entries are trusted: one is taken from the parent where kind, size, mtime, ctime and inode are the same, and mtime
and ctime are older by `SLACK` than the beginning of the parent's backup. A file that was written while it was backed
up, within one tick of the file system's clock, could otherwise change once more without anybody seeing it (the "racy"
files of git's index). It is read again, as is one with a date in the future; what has not changed is found in the
store, and a page that comes out the same is not stored again.

A page of the parent that is damaged or gone is as if it had never been.
"""

from __future__ import annotations

import os
from itertools import accumulate
from typing import NamedTuple

from keepstone.errors import CorruptObject, ObjectMissing
from keepstone.store import Writer
from keepstone.workloads.directories.columns import split_names
from keepstone.workloads.directories.scan import Seen
from keepstone.workloads.files.backup.folders import Folder
from keepstone.workloads.files.backup.table import kinds, table_of
from keepstone.workloads.files.backup.tally import Tally
from keepstone.workloads.files.page import (
    DIRECTORY,
    NO_EXTRA,
    NODE_KIND,
    REGULAR,
    Extra,
    Page,
    column,
    decode_page,
)

__all__ = ["SLACK", "Earlier", "EarlierPage", "Found"]

SLACK = 2 * 10**9
"""Nanoseconds; the coarsest clock of a file system (FAT) ticks every two seconds."""


class EarlierPage:
    """A page of the parent at the place `ref`. `CorruptObject`, `ObjectMissing`."""

    __slots__ = ("_found", "_writer", "node", "page", "ref")

    def __init__(self, writer: Writer, ref: int) -> None:
        self.ref = ref
        self.node = writer.node(ref)
        if self.node.kind != NODE_KIND:
            raise CorruptObject("a node of the parent's manifest is no page of a directory")
        self.page: Page = decode_page(self.node.body)
        self._writer = writer
        self._found: dict[bytes, Found] | None = None

    def is_like(self, seen: Seen) -> bool:
        """Whether all entries are the same; not whether they are to be trusted."""
        page = self.page
        return (
            page.names == seen.names
            and table_of(page) == seen.table
            and (not page.extras or all(_stands(extra, seen.links.get(at)) for at, extra in page.extras.items()))
        )

    def place(self) -> int | None:
        """Where this page may be named in a new point as it stands; None where something of it is about to be
        reclaimed.
        """
        if not self._writer.shareable(self.node):
            return None
        usable = self._writer.usable([self.ref])
        return usable[0] if usable else None

    def place_if(self, chunks: list[int], children: list[int]) -> int | None:
        """The same, provided that these are its chunks and children."""
        if self._writer.usable(self._writer.chunk_refs(self.node)) != chunks:
            return None
        return self.place() if self._writer.usable(self._writer.child_refs(self.node)) == children else None

    def directories(self) -> list[list[int]] | None:
        """The places of the pages of each directory; None where chunks of its files may not be used any more."""
        chunks, children = self._writer.chunk_refs(self.node), self._writer.child_refs(self.node)
        total = self.page.names.count(b"\0")
        counts = column("I", self.page.counts, total)
        below = []
        at = 0
        for kind, count in zip(kinds(self.page.modes, total), counts, strict=True):
            if kind == DIRECTORY:
                below.append(children[at : at + count])
                at += count
        if at != len(children) or sum(counts) - at != len(chunks):
            raise _inconsistent()
        return None if self._writer.usable(chunks) is None else below

    def entries(self) -> dict[bytes, Found]:
        """Every entry by its name."""
        if self._found is None:
            page = self.page
            names = split_names(page.names)
            total = len(names)
            each = kinds(page.modes, total)
            counts = column("I", page.counts, total)
            refs: list[list[int]] = [[]] * total
            for kind, all_refs in (
                (REGULAR, self._writer.chunk_refs(self.node)),
                (DIRECTORY, self._writer.child_refs(self.node)),
            ):
                mine = [at for at in range(total) if each[at] == kind]
                ends = list(accumulate([counts[at] for at in mine], initial=0))
                if ends[-1] != len(all_refs):
                    raise _inconsistent()
                for at, begin, end in zip(mine, ends, ends[1:], strict=False):
                    refs[at] = all_refs[begin:end]
            columns = (
                column("q", page.sizes, total),
                column("q", page.mtimes, total),
                column("q", page.ctimes, total),
                column("Q", page.inodes, total),
            )
            extras = [page.extras.get(at, NO_EXTRA) for at in range(total)]
            self._found = {
                name: Found(*values) for name, *values in zip(names, each, *columns, refs, extras, strict=True)
            }
        return self._found


class Found(NamedTuple):
    """An entry of the parent. `refs`: of a file its chunks, of a directory its pages."""

    kind: int
    size: int
    mtime: int
    ctime: int
    inode: int
    refs: list[int]
    extra: Extra

    def is_same(self, status: os.stat_result) -> bool:
        """Whether this is the entry with this status and nothing was wrong with it; not whether it is to be trusted."""
        return (
            self.ctime == status.st_ctime_ns
            and self.mtime == status.st_mtime_ns
            and self.size == status.st_size
            and self.inode == status.st_ino
            and self.kind == status.st_mode >> 12
            and not self.extra.flags
        )


class Earlier:
    """The pages of the directory `folder` in the parent, at the places `refs`, of which there may be none."""

    __slots__ = ("_folder", "_loaded", "_refs", "_tally", "_writer", "pages")

    def __init__(self, writer: Writer, refs: list[int], tally: Tally, folder: Folder) -> None:
        self.pages = len(refs)
        self._writer = writer
        self._tally = tally
        self._folder = folder
        self._refs = refs[::-1]
        self._loaded: list[EarlierPage] = []

    def beside(self, names: bytes) -> list[EarlierPage]:
        """The pages that may have any of these names. Must be asked in order of the names."""
        if self.pages == 1 and self._refs:
            self._load(b"")
            return self._loaded
        first, last = names[: names.index(b"\0")], _last(names)
        self._loaded = [page for page in self._loaded if _last(page.page.names) >= first]
        while self._refs and (not self._loaded or _last(self._loaded[-1].page.names) < last):
            self._load(first)
        return self._loaded

    def _load(self, first: bytes) -> None:
        try:
            page = EarlierPage(self._writer, self._refs.pop())
        except (CorruptObject, ObjectMissing) as error:
            self._tally.lost(self._folder, error)
            return
        if _last(page.page.names) >= first:
            self._loaded.append(page)


def _last(names: bytes) -> bytes:
    return names[names.rfind(b"\0", 0, -1) + 1 : -1]


def _stands(extra: Extra, link: tuple[int, int] | None) -> bool:
    """Whether the extra of an entry of the same columns is as good as ever: a device can get another number, which
    other names of it have then.
    """
    return not extra.flags and (extra.link is None or extra.link == link)


def _inconsistent() -> CorruptObject:
    return CorruptObject("a page of the parent's manifest does not account for its chunks")
