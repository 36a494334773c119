# SPDX-License-Identifier: Apache-2.0
"""Which chunks are needed: the mark of reclaim, and the structural half of verify.

Every chunk of every pack has a dense ordinal, the pack's base plus its position; the mark is one byte per ordinal.
Nodes name chunks in runs, so marking is filling slices: a few at once, many by counting where runs begin and end
and summing up at the end. A node that is marked already is not read again, so a subtree that a hundred points share
is walked once.

Invariants
* `add` only ever sets marks. Marking again after more commits is sound: what was needed then is at worst kept a
  round longer.
* A place in a pack that is gone and has not been moved, or a position beyond a pack's chunks, is a finding
  (`CorruptObject`), never ignored.
* Moved chunks: a mark on an old place implies marks along its moves (`settle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from keepstone.errors import CorruptObject, KeepstoneError
from keepstone.store.commits import PointRecord
from keepstone.store.layout import pack_name
from keepstone.store.moves import Moves
from keepstone.store.node import Node
from keepstone.store.refs import ZERO_PACK, ZERO_REF, PackNumbers

__all__ = ["Mark", "Problem"]

Problem = Callable[[str, KeepstoneError], None]

_MANY = 12 * 24  # bytes of runs from which counting edges is cheaper than filling slices
_FLUSH = 1 << 20  # bytes of runs noted before they are counted
_BLOCK = 1 << 20


class Mark:
    """`read_node(ref)` gives a node by a resolved place. With `problem` what is missing is told there (object, error)
    and passed over."""

    def __init__(self, numbers: PackNumbers, read_node: Callable[[int], Node], problem: Problem | None = None) -> None:
        self._numbers = numbers
        self._problem = problem
        self._moves = Moves(numbers, ())
        self._read_node = read_node
        self._base: dict[int, int] = {}
        self._count: dict[int, int] = {}
        self._there: set[int] = set()
        self.live: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._noted: list[Node] = []
        self._noted_bytes = 0
        self._ids: npt.NDArray[np.uint64] = np.zeros((0, 4), np.uint64)  # of the packs that are there, sorted
        self._places: npt.NDArray[np.int64] = np.zeros((0, 2), np.int64)  # (base, chunks) of each
        self._edges: npt.NDArray[np.int32] | None = None

    def cover(self, packs: Iterable[tuple[int, int]], moves: Moves) -> None:
        """The packs that are there now (number, chunks) and the moves that are known now; marks stay."""
        self._moves = moves
        self._there.clear()
        at = len(self.live)
        moved = ((number, chunks) for number, (chunks, _, _) in moves.old.items())
        for there, sized in ((True, packs), (False, moved)):
            for number, chunks in sized:
                if number not in self._base:
                    self._base[number] = at
                    self._count[number] = chunks
                    at += chunks
                if there:
                    self._there.add(number)
        if at > len(self.live):
            grown = np.zeros(at, np.uint8)
            grown[: len(self.live)] = self.live
            self.live = grown
        numbers = list(self._there)
        ids = np.frombuffer(b"".join([self._numbers.ids[number] for number in numbers]), ">u8").reshape(-1, 4)
        order = np.argsort(ids[:, 0].astype(np.uint64))
        self._ids = ids[order].astype(np.uint64)
        places = np.array([[self._base[number], self._count[number]] for number in numbers], np.int64).reshape(-1, 2)
        self._places = places[order]

    def there(self) -> list[int]:
        """The packs that are there."""
        return list(self._there)

    def covers(self, number: int) -> bool:
        """Whether this pack was ever there, or moved: of any other nothing is marked."""
        return number in self._base

    def count(self, number: int) -> int:
        """How many chunks a pack has."""
        return self._count[number]

    def pack(self, number: int) -> npt.NDArray[np.uint8]:
        """The marks of one pack, by position; a view."""
        base = self._base[number]
        return self.live[base : base + self._count[number]]

    def add_point(self, record: PointRecord) -> None:
        """Mark everything that this point needs. `CorruptObject`, `ObjectMissing` where a part of it is gone."""
        root = Node("", record.packs, b"", record.root, b"").child_runs(self._numbers)
        try:
            self._walk(root)
            self._count_noted()
        except BaseException:
            self._noted, self._noted_bytes = [], 0  # what this point has noted is not the next one's
            raise

    def _walk(self, runs: list[tuple[int, int]]) -> None:
        live = self.live
        pending = [runs]
        while pending:
            for first, count in pending.pop():
                at = self._slice(first, count)
                if at is None:
                    continue
                for offset in np.flatnonzero(live[at : at + count] == 0).tolist():
                    live[at + offset] = 1
                    node = self._node(first + offset)
                    if node is None:
                        continue
                    if len(node.chunks) < _MANY:
                        self._fill(node)
                    else:
                        self._note(node)
                    if node.children:
                        pending.append(node.child_runs(self._numbers))

    def _node(self, ref: int) -> Node | None:
        resolved = self._moves.resolve(ref)
        try:
            return self._read_node(resolved)
        except KeepstoneError as error:
            if self._problem is None:
                raise
            self._problem(pack_name(self._numbers.ids[resolved >> 32]), error)
            return None

    def _slice(self, first: int, count: int) -> int | None:
        """The ordinal of the first chunk of a run that is needed; every chunk of it must be somewhere."""
        try:
            ordinal = self._ordinal(first, count)
            if first >> 32 not in self._there:
                for ref in range(first, first + count):
                    if self._moves.step(ref) is None:
                        name = pack_name(self._numbers.ids[ref >> 32])
                        raise CorruptObject(f"chunk {ref & 0xFFFFFFFF} of {name} is gone, and a manifest needs it")
        except CorruptObject as error:
            if self._problem is None:
                raise
            self._problem(pack_name(self._numbers.ids[first >> 32]), error)
            return None
        return ordinal

    def _ordinal(self, first: int, count: int) -> int:
        number, position = first >> 32, first & 0xFFFFFFFF
        base = self._base.get(number)
        if base is None:
            raise CorruptObject(f"{pack_name(self._numbers.ids[number])} is gone, and a manifest needs it")
        if position + count > self._count[number]:
            raise CorruptObject(f"{pack_name(self._numbers.ids[number])} has no chunk {position + count - 1}")
        return base + position

    def _fill(self, node: Node) -> None:
        for start, length in node.chunk_runs(self._numbers):
            if start != ZERO_REF:
                begin = self._slice(start, length)
                if begin is not None:
                    self.live[begin : begin + length] = 1

    def _note(self, node: Node) -> None:
        """Put a large node aside, to count the runs of many at once."""
        self._noted.append(node)
        self._noted_bytes += len(node.chunks)
        if self._noted_bytes >= _FLUSH:
            self._count_noted()

    def _count_noted(self) -> None:
        """Count where the runs of the noted nodes begin and end; one by one where something is not as it should be."""
        noted, self._noted, self._noted_bytes = self._noted, [], 0
        if noted and not self._count_runs(noted):
            for node in noted:
                self._fill(node)

    def _count_runs(self, nodes: list[Node]) -> bool:
        if any(len(node.chunks) % 12 or len(node.packs) % 32 for node in nodes):
            return False
        ids = np.frombuffer(b"".join([node.packs for node in nodes]), ">u8").astype(np.uint64).reshape(-1, 4)
        at = np.searchsorted(self._ids[:, 0], ids[:, 0])
        if len(ids) and (int(at.max()) >= len(self._ids) or (self._ids[at] != ids).any()):
            return False  # a pack that is not there: moved, or lost
        runs = np.frombuffer(b"".join([node.chunks for node in nodes]), "<u4").reshape(-1, 3)
        sizes = [len(node.packs) // 32 for node in nodes]
        lengths = [len(node.chunks) // 12 for node in nodes]
        data = runs[:, 0] != ZERO_PACK
        table = np.repeat(np.array([0, *accumulate(sizes)][:-1]), lengths)[data]
        size = np.repeat(np.array(sizes), lengths)[data]
        pack, position, count = runs[data].astype(np.int64).T
        if (pack >= size).any():
            return False
        base, chunks = self._places[at[pack + table]].T
        if (position + count > chunks).any():
            return False
        edges = self._grown_edges()
        np.add.at(edges, base + position, 1)
        np.add.at(edges, base + position + count, -1)
        return True

    def _grown_edges(self) -> npt.NDArray[np.int32]:
        """Where runs begin (+) and end (-), one place longer than the marks."""
        if self._edges is None or len(self._edges) <= len(self.live):
            grown = np.zeros(len(self.live) + 1, np.int32)
            if self._edges is not None:
                grown[: len(self._edges)] = self._edges
            self._edges = grown
        return self._edges

    def _sum_edges(self) -> None:
        """Turn the counted edges into marks, a block at a time."""
        self._count_noted()
        if self._edges is None:
            return
        edges, depth = self._grown_edges(), 0
        for at in range(0, len(self.live), _BLOCK):
            block = np.cumsum(edges[at : at + _BLOCK]) + depth
            depth = int(block[-1])
            np.maximum(self.live[at : at + _BLOCK], (block > 0)[: len(self.live) - at], out=self.live[at : at + _BLOCK])
        self._edges = None

    def settle(self) -> list[CorruptObject]:
        """Finish marking: sum up what was noted, and carry the marks of moved chunks to where they are now.

        The moves that lead nowhere, though something needs them.
        """
        self._sum_edges()
        lost: dict[int, CorruptObject] = {}
        changed = bool(self._moves)
        while changed:
            changed = False
            for number, (_, starts, targets) in self._moves.old.items():
                marks = self.pack(number)
                for start, (count, first) in zip(starts, targets, strict=True):
                    source = marks[start : start + count]
                    if not source.any():
                        continue
                    try:
                        begin = self._ordinal(first, count)
                    except CorruptObject as error:
                        lost[first >> 32] = error
                        continue
                    target = self.live[begin : begin + count]
                    if (source > target).any():
                        np.maximum(source, target, out=target)
                        changed = True
        for number in self._base.keys() - self._there:
            if self.needed(number).any():
                lost[number] = CorruptObject(f"{pack_name(self._numbers.ids[number])} is gone, and a manifest needs it")
        return list(lost.values())

    def needed(self, number: int) -> npt.NDArray[np.bool_]:
        """Which chunks of a pack are needed *in this pack*: marked, and not moved elsewhere."""
        marks = self.pack(number).astype(bool)
        entry = self._moves.old.get(number)
        if entry is not None:
            for start, (count, _) in zip(entry[1], entry[2], strict=True):
                marks[start : start + count] = False
        return marks

    def is_marked(self, number: int) -> bool:
        """Whether any chunk of this pack, moved or not, is marked."""
        return bool(self.pack(number).any())
