# SPDX-License-Identifier: Apache-2.0
"""One look at the whole store: its packs, its records, and what is needed. Reclaim, verify and stat stand on it.

Records are listed before packs: every pack that a record names was there before the record, so a pack that is then
missing is gone. Another collector may move and sweep between the two listings; the look is then repeated before
anything is called damaged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing
from keepstone.store.commits import Commits, MoveRecord, PointRecord, Record
from keepstone.store.context import Context
from keepstone.store.layout import MOVES_TAG, commit_name, pack_name
from keepstone.store.mark import Mark, Problem
from keepstone.store.moves import Moves
from keepstone.store.node import Node, decode_node
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers

__all__ = ["Survey"]

_LOOKS = 5


class Survey:
    """`sizes`: stored bytes of each pack. `without`: commits that count as purged already.

    Damage that is met raises `CorruptObject` or `ObjectMissing`; with `problem` it is told there (object, error)
    and the look goes on.
    """

    def __init__(
        self, context: Context, problem: Problem | None = None, *, without: frozenset[str] = frozenset()
    ) -> None:
        self._problem = problem
        self._without = without
        self.numbers = PackNumbers()
        self.packs = Packs(context, self.numbers)
        self.commits = Commits(context)
        self.sizes: dict[bytes, int] = {}
        self.moves = Moves(self.numbers, ())
        self._context = context
        self._mark = Mark(self.numbers, self._node, problem)
        self._marked: set[str] = set()
        self._move_records: dict[str, MoveRecord] = {}
        self._before: dict[bytes, int] = {}  # `sizes` of the look before: a listing older than any of this look
        self.refresh()

    def refresh(self) -> None:
        """See what is new. Marks are only added, unless a walk broke off: a node that was marked by it is no proof
        that what is below it was, so everything is then marked anew."""
        for look in range(_LOOKS):
            try:
                self._look()
                break
            except (ObjectMissing, CorruptObject):
                self._mark = Mark(self.numbers, self._node, self._problem)
                self._marked.clear()
                if look == _LOOKS - 1:
                    raise

    def _tell(self, name: str, error: KeepstoneError) -> None:
        if self._problem is None:
            raise error
        self._problem(name, error)

    def _look(self) -> None:
        damaged: list[tuple[str, KeepstoneError]] = []
        records = [record for record in self.commits.records(damaged=damaged) if record[0] not in self._without]
        for commit, reason in damaged:
            self._tell(commit_name(commit), reason)
        self._move_records = {commit: record for commit, record in records if isinstance(record, MoveRecord)}
        self.moves = Moves(self.numbers, self._move_records.values())
        self._before = self.sizes
        self.sizes = dict(self.packs.listing())
        there = []
        for pack in list(self.sizes):
            try:
                there.append((self.numbers.number(pack), self.packs.footer(pack).chunks))
            except ObjectMissing:
                del self.sizes[pack]  # swept by another collector since it was listed
            except CorruptObject as error:  # whoever needs it is told so
                if self._problem is not None:
                    self._problem(pack_name(pack), error)
            except KeepstoneError as error:
                self._tell(pack_name(pack), error)
        self._mark.cover(there, self.moves)
        for commit, record in records:
            if commit not in self._marked:
                self._add(commit, record)
        for reason in self._mark.settle():
            self._tell(MOVES_TAG, reason)

    def _node(self, ref: int) -> Node:
        return decode_node(self.packs.chunk(ref))

    def _add(self, commit: str, record: Record) -> None:
        if isinstance(record, PointRecord):
            try:
                self._mark.add_point(record)
            except KeepstoneError as error:
                if self._problem is None:
                    raise
                if self._is_there(commit):
                    self._problem(commit_name(commit), error)
            self._marked.add(commit)

    def _is_there(self, commit: str) -> bool:
        try:
            self._context.storage.size(commit_name(commit))
        except ObjectMissing:
            return False  # purged while it was walked
        return True

    def damage(
        self, record: PointRecord, lost: Mapping[bytes, npt.NDArray[np.bool_]] | None = None
    ) -> KeepstoneError | None:
        """Whether this point, looked at alone, misses anything of its manifest, its packs, or of the chunks that are
        `lost`: pack -> by position, which."""
        try:
            alone = self._alone(record)
            for pack, which in (lost or {}).items():
                number = self.numbers.number(pack)
                if alone.covers(number) and (alone.needed(number) & which).any():
                    raise CorruptObject(f"chunks of {pack_name(pack)} are damaged, and the point needs them")
        except KeepstoneError as error:
            return error
        return None

    def _alone(self, record: PointRecord) -> Mark:
        alone = Mark(self.numbers, self._node)
        alone.cover([(number, self._mark.count(number)) for number in self._mark.there()], self.moves)
        alone.add_point(record)
        for error in alone.settle():
            raise error
        return alone

    def needed(self, pack: bytes) -> npt.NDArray[np.bool_]:
        """Which chunks of this pack are needed there."""
        return self._mark.needed(self.numbers.number(pack))

    def needed_share(self, pack: bytes) -> float:
        """Needed bytes of a pack divided by all of them, before compression."""
        if self.is_dead(pack):
            return 0.0
        needed = self.needed(pack)
        if needed.all():
            return 1.0
        lengths = np.array(self.packs.footer(pack).chunk_lengths, np.int64)
        return float(lengths[needed].sum() / lengths.sum())

    def dead(self) -> list[bytes]:
        """The packs that nothing needs."""
        return [pack for pack in self.sizes if self.is_dead(pack)]

    def removable(self, condemned: list[bytes]) -> list[bytes]:
        """Those of the condemned packs that are there and still not needed.

        The copy of a chunk stays as long as the pack is there that it was moved out of. It may have been condemned
        before its move record was to be seen: a writer that began then refers to the old place, and is not waited for.
        Once the old pack is gone, every such writer is over, and what it committed is marked, because that the pack is
        gone was seen before the records were listed.
        """
        there = [self.numbers.number(pack) for pack in self._before.keys() | self.sizes.keys()]
        copies = set().union(*(self.moves.targets(number) for number in there))
        return [
            pack
            for pack in condemned
            if pack in self.sizes and self.is_dead(pack) and self.numbers.number(pack) not in copies
        ]

    def keeps_copies(self, pack: bytes) -> bool:
        """Whether a copy of a chunk that was moved out of this pack, and that nothing needs, stays as long as it does;
        see `removable`."""
        copies = (self.numbers.ids[number] for number in self.moves.targets(self.numbers.number(pack)))
        return any(copy in self.sizes and self.is_dead(copy) for copy in copies)

    def moves_there(self) -> set[str]:
        """The commits of the move records."""
        return set(self._move_records)

    def unneeded_moves(self) -> list[str]:
        """The move records through which nothing is found any more."""
        return [
            commit
            for commit, record in self._move_records.items()
            if not any(self._mark.is_marked(self.numbers.number(move.pack)) for move in record.moves)
        ]

    def old_packs(self, moves: list[str]) -> list[bytes]:
        """The old packs of these move records."""
        return [move.pack for commit in moves for move in self._move_records[commit].moves]

    def is_dead(self, pack: bytes) -> bool:
        """Whether nothing needs this pack. Of one whose footer no look could read nothing is: else the look would have
        ended there."""
        return not self._mark.covers(self.numbers.number(pack)) or not self.needed(pack).any()

    def chunks(self) -> int:
        """How many chunks the packs hold."""
        return sum(self._mark.count(number) for number in self._mark.there())

    def packs_of(self, record: PointRecord) -> set[str]:
        """The names of the packs that this point needs chunks of."""
        alone = self._alone(record)
        return {pack_name(self.numbers.ids[number]) for number in alone.there() if alone.needed(number).any()}
