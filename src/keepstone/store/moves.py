# SPDX-License-Identifier: Apache-2.0
"""Where chunks went that a compaction moved.

Manifests are never rewritten: a place in a pack that was compacted away is looked up in the move records, again and
again until it names a pack that has not moved. New manifests are written with resolved places, so that a record can
be dropped once no manifest needs it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable

from keepstone.errors import CorruptObject
from keepstone.store.commits import Move, MoveRecord
from keepstone.store.refs import PackNumbers, stored_u32s, u32s

__all__ = ["Moves", "encode_move"]

_ID = 32


class Moves:
    """The move records of a store, by old pack."""

    def __init__(self, numbers: PackNumbers, records: Iterable[MoveRecord]) -> None:
        self._numbers = numbers
        self.old: dict[int, tuple[int, list[int], list[tuple[int, int]]]] = {}
        """pack number -> (chunks it had, first old position of each run, (count, first new place) of each run)."""
        for record in records:
            for move in record.moves:
                self._add(move)

    def _add(self, move: Move) -> None:
        values = u32s(move.runs)
        packs = [self._numbers.number(move.packs[at : at + _ID]) for at in range(0, len(move.packs), _ID)]
        if len(values) % 4 or any(index >= len(packs) for index in values[2::4]):
            raise CorruptObject("a move record is inconsistent; run `keepstone store verify`")
        runs = [
            (start, count, packs[index] << 32 | first)
            for start, count, index, first in zip(values[0::4], values[1::4], values[2::4], values[3::4], strict=True)
        ]
        if any(start + count > move.chunks for start, count, _ in runs):
            raise CorruptObject("a move record moves chunks that its pack never had; run `keepstone store verify`")
        number = self._numbers.number(move.pack)
        if number in self.old:
            runs = _united(self.old[number], runs)
        runs.sort()
        self.old[number] = move.chunks, [run[0] for run in runs], [run[1:] for run in runs]

    def __bool__(self) -> bool:
        return bool(self.old)

    def step(self, ref: int) -> int | None:
        """Where one compaction moved this place to; None where it did not."""
        entry = self.old.get(ref >> 32)
        if entry is None:
            return None
        _, starts, targets = entry
        position = ref & 0xFFFFFFFF
        at = bisect_right(starts, position) - 1
        if at < 0:
            return None
        count, first = targets[at]
        distance = position - starts[at]
        return first + distance if distance < count else None

    def targets(self, number: int) -> set[int]:
        """The packs that chunks of this one were moved to."""
        entry = self.old.get(number)
        return set() if entry is None else {first >> 32 for _, first in entry[2]}

    def leads_to(self, number: int) -> set[int]:
        """This pack and every one that a chunk of it was moved to, once or again and again."""
        found, pending = {number}, [number]
        while pending:
            new = self.targets(pending.pop()) - found
            found |= new
            pending += new
        return found

    def resolve(self, ref: int) -> int:
        """Where this chunk is now."""
        for _ in range(len(self.old) + 1):
            moved = self.step(ref)
            if moved is None:
                return ref
            ref = moved
        raise CorruptObject("the move records lead in a circle; run `keepstone store verify`")

    def resolve_all(self, refs: list[int]) -> list[int]:
        """`resolve` for many places."""
        if not self.old:
            return refs
        old = self.old
        return [self.resolve(ref) if ref >> 32 in old else ref for ref in refs]


def _united(
    entry: tuple[int, list[int], list[tuple[int, int]]], runs: list[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
    """The runs of two collectors that compacted the same pack; where both moved a chunk, the first one's copy
    counts."""
    _, starts, targets = entry
    places: dict[int, int] = {}
    for start, count, first in [(start, *target) for start, target in zip(starts, targets, strict=True)] + runs:
        for offset in range(count):
            places.setdefault(start + offset, first + offset)
    return [(position, 1, place) for position, place in places.items()]


def encode_move(pack: bytes, chunks: int, moved: list[tuple[int, int]], numbers: PackNumbers) -> Move:
    """The record for one old pack out of (old position, new place) pairs in order of old positions."""
    table: dict[int, int] = {}
    runs = array("I")
    expected = (-1, -1)
    for position, ref in moved:
        if (position, ref) == expected:
            runs[-3] += 1
        else:
            runs.extend((position, 1, table.setdefault(ref >> 32, len(table)), ref & 0xFFFFFFFF))
        expected = (position + 1, ref + 1)
    return Move(pack, chunks, b"".join(numbers.ids[number] for number in table), stored_u32s(runs))
