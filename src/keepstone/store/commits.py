# SPDX-License-Identifier: Apache-2.0
"""Commit cells and the records in them.

`commits/<commit>` is written exactly once, by put-if-absent: by the writer with its record, or by a collector with
"aborted". Whoever comes first decides; nobody needs a clock or a lock. A point is visible if and only if its cell
holds a point record.

An aborted cell stays for ever (some fifty bytes): removing it would let a writer that was only paused publish after
all.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from keepstone.errors import CorruptObject, KeepstoneError, LeaseLost, ObjectExists, ObjectMissing
from keepstone.store.context import Context
from keepstone.store.decoding import decode
from keepstone.store.layout import COMMITS, commit_name, listing, names

__all__ = ["ABORTED", "SEALED", "Commits", "Move", "MoveRecord", "PointRecord", "Record", "giving_up"]

ABORTED = b"keepstone: aborted\n"
SEALED = "sealed-"
"""How kinds of points begin whose content the store cannot read: a machine has sealed it (`remote/sealed.py`)."""


class PointRecord(msgspec.Struct, frozen=True, kw_only=True, tag="point"):
    """A recovery point: what was protected, when, and the root of its manifest.

    `item` names the protected thing, `kind` its workload. `packs`, `root`: the root nodes as runs (see `refs`).
    `detail` is the workload's own msgpack. `started`, `finished`: wall clock, ns. `logical`: bytes that a restore
    writes; `read`, `added`, `stored`: bytes read from the source, new before and after compression. `lock_until`:
    wall clock ns before which no purge is allowed; 0 = no lock.
    """

    item: str
    kind: str
    host: str
    source: bytes
    started: int
    finished: int
    packs: bytes
    root: bytes
    detail: bytes
    parent: str = ""
    lock_until: int = 0
    logical: int = 0
    read: int = 0
    added: int = 0
    stored: int = 0
    files: int = 0
    warnings: int = 0
    tags: list[str] = []


class Move(msgspec.Struct, frozen=True, array_like=True):
    """Where the chunks of one old pack went. `chunks`: how many the old pack had. `runs`: u32 quadruples (old
    position, count, index into `packs`, new position); positions not in it were dead."""

    pack: bytes
    chunks: int
    packs: bytes
    runs: bytes


class MoveRecord(msgspec.Struct, frozen=True, kw_only=True, tag="moves"):
    """What one compaction moved."""

    moves: list[Move]


Record = PointRecord | MoveRecord

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PointRecord | MoveRecord)


def giving_up(commit: str) -> str:
    """What there is to do about a lost cell of which there is no copy."""
    return f"give it up by `keepstone store forget --lost {commit}`"


class Commits:
    """The cells of a store. Opened records are remembered: a cell never changes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._records: dict[str, tuple[int, Record]] = {}  # with the size of the cell that it was read from

    def publish(self, commit: str, record: Record) -> bytes:
        """Make the record visible, durable on return; the stored bytes. `LeaseLost` where the cell says aborted."""
        name = commit_name(commit)
        sealed = self._context.seal("commit", name, _encoder.encode(record))
        try:
            self._context.storage.put(name, sealed)
        except ObjectExists:
            if self._content(name) != sealed:  # equal: an earlier try whose answer was lost
                raise LeaseLost(
                    f"backup {commit} was aborted by a reclaim that took it for dead, or purged since; nothing of it "
                    "is visible. Start it again"
                ) from None
        return sealed

    def abort(self, commit: str) -> bool:
        """Forbid this commit for ever; False where it has already been published, also where it was purged since."""
        name = commit_name(commit)
        try:
            self._context.storage.put(name, ABORTED)
        except ObjectExists:
            return self._content(name) == ABORTED
        return True

    def _content(self, name: str) -> bytes | None:
        """What a cell says that was there a moment ago; None: it is gone, for a cell that is published may be purged by
        anybody at any moment."""
        try:
            return self._context.storage.read(name)
        except ObjectMissing:
            return None

    def get(self, commit: str) -> Record | None:
        """The record; None where the cell says aborted. `ObjectMissing`, `CorruptObject`."""
        name = commit_name(commit)
        data = self._context.storage.read(name)
        if data == ABORTED:
            return None
        try:
            record: Record = decode(_decoder, self._context.open("commit", name, data), name)
        except CorruptObject as error:
            raise CorruptObject(f"{error}, or {giving_up(commit)}") from error
        self._records[commit] = len(data), record
        return record

    def names(self, tag: str = "") -> list[str]:
        """The commits that have a cell, published or aborted; `tag` limits them to one item or to moves."""
        return sorted(name[len(COMMITS) :] for name in names(self._context.storage, COMMITS, _start(tag)))

    def decided(self, commit: str) -> bool:
        """Whether the cell has been written."""
        try:
            self._context.storage.size(commit_name(commit))
        except ObjectMissing:
            return False
        return True

    def records(
        self, tag: str = "", damaged: list[tuple[str, KeepstoneError]] | None = None
    ) -> Iterator[tuple[str, Record]]:
        """(commit, record) of everything visible; one that is purged meanwhile is left out.

        A cell that is damaged or cannot be read raises, or goes into `damaged` where that is given.
        """
        found = listing(self._context.storage, COMMITS, _start(tag))
        for commit, size in sorted((info.name[len(COMMITS) :], info.size) for info in found):
            known = self._records.get(commit)
            if known is not None and known[0] == size:  # else it was purged and aborted since
                yield commit, known[1]
                continue
            try:
                record = self.get(commit)
            except ObjectMissing:
                continue
            except KeepstoneError as error:
                if damaged is None:
                    raise
                damaged.append((commit, error))
                continue
            if record is not None:
                yield commit, record


def _start(tag: str) -> str:
    """How the names of its commits begin."""
    return f"{tag}-" if tag else ""
