# SPDX-License-Identifier: Apache-2.0
"""A page of a directory that is being made.

It waits for its files' chunks and for the pages of its directories, and is stored once it has them all. A page that
comes out as the parent has it is not stored again: the parent's is used.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

from keepstone.errors import SourceFailed, WriterFailed
from keepstone.store import Writer
from keepstone.workloads.directories.columns import DIRECTORY, REGULAR, split_names
from keepstone.workloads.directories.scan import Seen
from keepstone.workloads.files.backup.earlier import EarlierPage
from keepstone.workloads.files.backup.intake import Taken
from keepstone.workloads.files.backup.metadata import link_of
from keepstone.workloads.files.backup.table import kinds, picked, restated, to_page
from keepstone.workloads.files.page import NO_EXTRA, NODE_KIND, UNREADABLE, Extra, encode_page

if TYPE_CHECKING:
    from keepstone.workloads.files.backup.traversal import Visit

__all__ = ["Draft"]

_BODY = 4 << 20
"""Bytes of a page's body, and about as many of its runs, above which it is divided: a node must fit into a frame."""
_RUN = 44  # bytes of a run at most: itself, and a pack that no other run is in
_NODE = 15 << 20


class Draft:
    """Page `number` of the directory that `visit` is in. `pending`: for how many reasons it still waits.

    `place`: where the parent's page lies, as long as everything is as it is there; None once it has to be made. `twin`:
    the only page of the parent with any of these names.
    """

    __slots__ = (
        "_count",
        "_dropped",
        "_extras",
        "_names",
        "_parts",
        "_restated",
        "_table",
        "_writer",
        "number",
        "pending",
        "place",
        "twin",
        "visit",
    )

    def __init__(
        self, writer: Writer, visit: Visit, number: int, seen: Seen, twin: EarlierPage | None, place: int | None
    ) -> None:
        self.visit = visit
        self.number = number
        self.twin = twin
        self.place = place
        self.pending = 1  # until everything in it has been looked at
        self._writer = writer
        self._names = seen.names
        self._count = seen.files + len(seen.directories)
        self._table = seen.table
        self._parts: dict[int, list[int]] = {}
        self._extras: dict[int, Extra] = {}
        self._dropped: set[int] = set()
        self._restated: dict[int, tuple[os.stat_result, int]] = {}

    def put(self, index: int, refs: list[int], extra: Extra | None = None) -> None:
        """The chunks or pages of an entry, and what else it has."""
        self._make()
        self._parts[index] = refs
        if extra is not None and extra != NO_EXTRA:
            self._extras[index] = extra

    def put_file(self, index: int, refs: list[int], status: os.stat_result, taken: Taken) -> None:
        """A file of which there is more to say. `status`: the one that counts."""
        self._make()
        self._parts[index] = refs
        if taken.status is not None or taken.size >= 0:
            self._restated[index] = status, status.st_size if taken.size < 0 else taken.size
        extra = Extra(xattrs=taken.xattrs, link=link_of(status), extents=taken.extents, flags=taken.flags)
        if extra != NO_EXTRA:
            self._extras[index] = extra
        else:
            self._extras.pop(index, None)

    def put_directory(self, index: int, refs: list[int], same: bool) -> None:
        """The pages of a directory; `same`: they are the parent's."""
        if not same:
            self._make()
        self._parts[index] = refs

    def fail(self, index: int) -> None:
        """This entry cannot be read."""
        self._make()
        old = self._extras.get(index, NO_EXTRA)
        self._extras[index] = Extra(xattrs=old.xattrs, link=old.link, flags=UNREADABLE)

    def drop(self, index: int) -> None:
        """This entry is not there any more, or not wanted."""
        self._make()
        self._dropped.add(index)

    def _make(self) -> None:
        """From here on it is not the parent's page any more."""
        if self.place is None:
            return
        self.place = None
        assert self.twin is not None
        for index, found in enumerate(self.twin.entries().values()):
            if found.kind == REGULAR:
                refs = self._writer.usable(found.refs)
                if refs is None:
                    raise WriterFailed("chunks of the last point became unusable meanwhile; start the backup again")
                self._parts[index] = refs
        self._extras.update(self.twin.page.extras)

    def finish(self) -> tuple[list[int], bool]:
        """The places of the page, which may have become none or several, and whether they are the parent's."""
        if self.place is not None:
            return [self.place], True
        rows = [index for index in range(self._count) if index not in self._dropped]
        if not rows:
            return [], self.twin is None
        if self._restated:
            self._table = restated(self._table, self._count, self._restated)
        return self._store(rows)

    def _store(self, rows: list[int]) -> tuple[list[int], bool]:
        """Store a page of these entries."""
        chunks: list[int] = []
        children: list[int] = []
        counts = []
        kind = kinds(self._table, self._count)
        for row in rows:
            refs = self._parts.get(row, ())
            counts.append(len(refs))
            (children if kind[row] == DIRECTORY else chunks).extend(refs)
        names, table = self._names, self._table
        if len(rows) < self._count:
            every = split_names(names)
            names = b"".join(every[row] + b"\0" for row in rows)
            table = picked(table, len(every), rows)
        extras = {at: self._extras[row] for at, row in enumerate(rows) if row in self._extras}
        body = encode_page(to_page(names, table, counts, extras))
        if self.twin is not None and body == self.twin.node.body:
            place = self.twin.place_if(chunks, children)
            if place is not None:
                return [place], True
        if len(body) > _BODY or len(chunks) * _RUN > _BODY:
            half = len(rows) // 2
            if half:
                return [*self._store(rows[:half])[0], *self._store(rows[half:])[0]], False
            runs = 1 + sum(place != before + 1 for before, place in pairwise(chunks))
            if len(body) + runs * _RUN > _NODE:
                path = os.fsdecode(self.visit.folder.path(names[:-1]))
                raise SourceFailed(
                    f"{path} is in more pieces than a manifest can hold; exclude it, or back it up as an image"
                )
        return [self._writer.put_node(NODE_KIND, chunks, children, body)], False
