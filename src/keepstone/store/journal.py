# SPDX-License-Identifier: Apache-2.0
"""The journal: what a service knows beside the points, entry by entry, so that a lost database can be made anew.

`journal/<sequence>` is a sealed object, written once. Its body is the service's own; the store only tells whether it is
a *snapshot*, which says everything that all entries before it said. So a reader begins with the newest snapshot, and
what lies before that may go.

Invariants
* `append` returns when the entry is durable. Entries are appended in order, one after the other.
* An entry opens as this one of this store only: it cannot be changed, moved or exchanged unnoticed.
* From the newest snapshot on no number is missing; a gap is damage. Before it there may be gaps, for `drop` may have
  ended in the middle.

What it cannot tell is whether its last entries are there, or all of it: whoever can delete from the storage can cut it
at its end. Who knows the number of the last entry, as the database does while there is one, compares it with `newest`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from keepstone.errors import CorruptObject, KeepstoneError, ObjectExists, ObjectMissing, UsageError
from keepstone.store.context import Context
from keepstone.store.decoding import decode
from keepstone.store.layout import JOURNAL, journal_name, names

__all__ = ["BODY_LIMIT", "Journal"]

BODY_LIMIT = 64 << 20
"""Bytes of a body, at most."""
_LAST = 10**16 - 1  # 16 digits
_LONGEST = BODY_LIMIT + 1024  # sealed; of what is longer no more is read, and it does not open
_KIND = "journal"
_SNAPSHOT = "let a service that still has its database append a snapshot, which stands for it"


class _Entry(msgspec.Struct, frozen=True):
    snapshot: bool
    body: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Entry)


class Journal:
    """The journal of a store."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def append(self, sequence: int, body: bytes, *, snapshot: bool = False) -> None:
        """Write entry `sequence` (from 1, each the number after the last), durable on return. Repeating it is harmless.

        `UsageError` for a number or a body beyond the limits; `ObjectExists` where the entry is there and says
        something else, and `CorruptObject` where it is there and damaged.
        """
        if not 1 <= sequence <= _LAST:
            raise UsageError(f"the journal has no entry {sequence}; number its entries from 1 to {_LAST}")
        if len(body) > BODY_LIMIT:
            raise UsageError(
                f"entry {sequence} of the journal has {len(body)} bytes; {BODY_LIMIT} is the most it takes"
            )
        name, entry = journal_name(sequence), _Entry(snapshot, body)
        try:
            self._context.put_sealed(_KIND, name, _encoder.encode(entry))
        except ObjectExists:
            try:
                there = self._read(sequence)
            except ObjectMissing:  # dropped since
                self.append(sequence, body, snapshot=snapshot)
                return
            if there != entry:  # equal: an earlier try whose answer was lost
                raise ObjectExists(
                    f"{name} is there already, and entry {sequence} of the journal says something else; another "
                    "service writes this journal, or this one's database is older than it: read the journal first"
                ) from None

    def newest(self) -> int:
        """The number of the newest entry, sound or not; 0 where there is none."""
        return max(self._numbers(), default=0)

    def entries(self, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """(sequence, body) in order, from the newest snapshot on, and of the entries behind `after` only.

        `ObjectMissing` for a gap and `CorruptObject` for damage, each naming the entry: both before the first entry is
        given out. The entries are read twice, so that no more than one has to be held in memory.
        """
        first, newest = self._span(after)
        for sequence in range(first, newest + 1):
            yield sequence, self._read(sequence).body

    def drop(self, before: int) -> None:
        """Remove the entries before entry `before`, which must be a snapshot. A crash leaves some of them, unheeded.

        `UsageError` where it is none; `ObjectMissing` or `CorruptObject` where it cannot be read.
        """
        if not self._read(before).snapshot:
            raise UsageError(f"entry {before} of the journal is no snapshot: what lies before it is needed; append one")
        self._context.storage.delete_many(
            [journal_name(sequence) for sequence in sorted(self._numbers()) if sequence < before]
        )

    def check(self) -> list[tuple[str, KeepstoneError]]:
        """Open every entry, and look for gaps behind the newest snapshot; what is wrong: (object, error)."""
        while True:
            newest, problems = self._look()
            if not problems or newest == self.newest():  # else there may be a new snapshot, and a drop
                return problems

    def count(self) -> int:
        """How many entries there are, those that may go among them."""
        return sum(1 for _ in self._numbers())

    def _numbers(self) -> Iterator[int]:
        return (int(name[len(JOURNAL) :]) for name in names(self._context.storage, JOURNAL))

    def _span(self, after: int) -> tuple[int, int]:
        """(the newest snapshot, or the first entry behind `after` where none is younger; the newest entry)."""
        newest = self.newest()
        while True:
            try:
                snapshots = (number for number in range(newest, after, -1) if self._read(number).snapshot)
                return next(snapshots, after + 1), newest
            except ObjectMissing:
                before, newest = newest, self.newest()
                if newest == before:  # else there may be a new snapshot, and a drop
                    raise

    def _look(self) -> tuple[int, list[tuple[str, KeepstoneError]]]:
        """(the newest entry, what is wrong), from the newest entry down."""
        numbers = sorted(self._numbers(), reverse=True)
        problems: list[tuple[str, KeepstoneError]] = []
        due = newest = max(numbers, default=0)  # the number that must come now; 0 where any may
        for sequence in numbers:
            name = journal_name(sequence)
            try:
                snapshot = self._read(sequence).snapshot
            except ObjectMissing:
                continue  # gone since it was listed
            except KeepstoneError as error:
                problems.append((name, error))
                snapshot = True  # it may have been one
            if sequence < due:
                problems.append((journal_name(due), _gap(due)))
            due = 0 if snapshot or not due else sequence - 1
        if due:
            problems.append((journal_name(due), _gap(due)))
        return newest, problems

    def _read(self, sequence: int) -> _Entry:
        name = journal_name(sequence)
        try:
            sealed = self._context.storage.read(name, length=_LONGEST)
            return decode(_decoder, self._context.open(_KIND, name, sealed), name)
        except ObjectMissing:
            raise _gap(sequence) from None
        except CorruptObject as error:
            raise CorruptObject(f"{error}, or {_SNAPSHOT}") from error


def _gap(sequence: int) -> ObjectMissing:
    name = journal_name(sequence)
    return ObjectMissing(f"{name} is gone: entry {sequence} of the journal; restore it from a copy, or {_SNAPSHOT}")
