# SPDX-License-Identifier: Apache-2.0
"""The mark, against a walk that is too simple to be wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.errors import CorruptObject
from keepstone.store import mark as module
from keepstone.store.commits import MoveRecord, PointRecord
from keepstone.store.mark import Mark
from keepstone.store.moves import Moves, encode_move
from keepstone.store.node import Node, decode_node, encode_node
from keepstone.store.refs import ZERO_REF, PackNumbers, encode_runs

pytestmark = pytest.mark.store

NODES = 0  # the pack that the nodes are in, in these trees


def ref(pack: int, position: int) -> int:
    return pack << 32 | position


@dataclass(slots=True, repr=False)
class Forest:
    """Packs by number (their chunks), nodes by place (chunks, children), points (roots), moves in order."""

    packs: dict[int, int] = field(default_factory=dict)
    nodes: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    points: list[list[int]] = field(default_factory=list)
    moves: list[tuple[int, int, dict[int, int]]] = field(default_factory=list)
    numbers: PackNumbers = field(default_factory=PackNumbers)
    read: list[int] = field(default_factory=list)

    def number(self, pack: int) -> int:
        """The same number in `numbers`."""
        while len(self.numbers.ids) <= pack:
            self.numbers.number(random.Random(len(self.numbers.ids)).randbytes(32))
        return pack

    def stored_moves(self) -> Moves:
        records = [
            MoveRecord(moves=[encode_move(self.numbers.ids[old], chunks, sorted(moved.items()), self.numbers)])
            for old, chunks, moved in self.moves
        ]
        return Moves(self.numbers, records)

    def read_node(self, place: int) -> Node:
        self.read.append(place)
        chunks, children = self.nodes[place]
        return decode_node(encode_node("k", chunks, children, b"", self.numbers))

    def record(self, roots: list[int]) -> PointRecord:
        table: dict[int, int] = {}
        runs = encode_runs(roots, table)
        packs = b"".join(self.numbers.ids[number] for number in table)
        return PointRecord(
            item="i", kind="k", host="h", source=b"", started=0, finished=0, packs=packs, root=runs, detail=b""
        )

    def mark(self) -> Mark:
        made = Mark(self.numbers, self.read_node)
        made.cover(self.packs.items(), self.stored_moves())
        return made

    def __repr__(self) -> str:
        counts = len(self.packs), len(self.nodes), len(self.points), len(self.moves)
        return "Forest({} packs, {} nodes, {} points, {} moves)".format(*counts)

    # The simple way

    def step(self, place: int) -> int | None:
        for old, _, moved in self.moves:
            if place >> 32 == old and place & 0xFFFFFFFF in moved:
                return moved[place & 0xFFFFFFFF]
        return None

    def resolve(self, place: int) -> int:
        while (further := self.step(place)) is not None:
            place = further
        return place

    def needed(self, points: list[list[int]]) -> set[int]:
        """The resolved places that these points need."""
        found: set[int] = set()
        pending = [place for roots in points for place in roots]
        while pending:
            place = self.resolve(pending.pop())
            if place in found:
                continue
            found.add(place)
            chunks, children = self.nodes[place]
            found |= {self.resolve(chunk) for chunk in chunks if chunk != ZERO_REF}
            pending += children
        return found


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    """Random trees over random packs: shared subtrees, runs that are long and short, zeros; some packs moved, some
    moved again."""
    chance = draw(st.randoms(use_true_random=False))
    forest = Forest()
    data = draw(st.integers(1, 6))
    for pack in range(1, data + 1):
        forest.packs[forest.number(pack)] = chance.randrange(1, 60)
    count = draw(st.integers(1, 25))
    forest.number(NODES)
    forest.packs[NODES] = count
    for position in range(count):
        chunks: list[int] = []
        for _ in range(chance.choice([0, 1, 3, 40])):  # 40 runs are counted by their edges, fewer are filled
            pack = chance.randrange(1, data + 1)
            first = chance.randrange(forest.packs[pack])
            chunks += [ref(pack, at) for at in range(first, min(forest.packs[pack], first + chance.randrange(1, 9)))]
            chunks += [ZERO_REF] * chance.choice([0, 0, 3])
        children = [ref(NODES, chance.randrange(position)) for _ in range(chance.randrange(4))] if position else []
        forest.nodes[ref(NODES, position)] = chunks, children
    forest.points = [
        [ref(NODES, chance.randrange(count)) for _ in range(chance.choice([1, 1, 2]))]
        for _ in range(draw(st.integers(0, 6)))
    ]
    return forest


def compacted(forest: Forest, pack: int, chance: random.Random, *, gone: bool) -> None:
    """Move what is needed of a pack into a new one, as a compaction does; `gone`: the old pack has been swept."""
    needed = sorted(place & 0xFFFFFFFF for place in forest.needed(forest.points) if place >> 32 == pack)
    new = forest.number(len(forest.numbers.ids))
    forest.packs[new] = len(needed)
    moved = {position: ref(new, at) for at, position in enumerate(needed)}
    for position, target in moved.items():
        if ref(pack, position) in forest.nodes:
            forest.nodes[target] = forest.nodes[ref(pack, position)]
    forest.moves.append((pack, forest.packs[pack], moved))
    if gone:
        del forest.packs[pack]


def check(forest: Forest, mark: Mark, points: list[list[int]]) -> None:
    expected = forest.needed(points)
    for pack, chunks in forest.packs.items():
        found = mark.needed(pack)
        assert {at for at in range(chunks) if found[at]} == {
            place & 0xFFFFFFFF for place in expected if place >> 32 == pack
        }


def marked(forest: Forest, points: list[list[int]]) -> Mark:
    mark = forest.mark()
    for roots in points:
        mark.add_point(forest.record(roots))

    assert mark.settle() == []
    return mark


@settings(deadline=None)
@given(forests())
def test_against_a_simple_walk(forest: Forest) -> None:
    mark = marked(forest, forest.points)

    check(forest, mark, forest.points)
    assert len(forest.read) == len(set(forest.read))  # a shared subtree is walked once


@settings(deadline=None)
@given(forests(), st.data())
def test_with_moves(forest: Forest, data: st.DataObject) -> None:
    """Packs are compacted, points go, what was moved is moved again; old packs are swept or still there."""
    chance = data.draw(st.randoms(use_true_random=False))
    for _ in range(data.draw(st.integers(1, 5))):
        pack = chance.choice(list(forest.packs))
        if not any(old == pack for old, _, _ in forest.moves):
            compacted(forest, pack, chance, gone=chance.random() < 0.7)
        if forest.points and chance.random() < 0.5:
            forest.points.pop(chance.randrange(len(forest.points)))

    check(forest, marked(forest, forest.points), forest.points)


@settings(deadline=None)
@given(forests(), st.data())
def test_marking_again(forest: Forest, data: st.DataObject) -> None:
    """Some points are marked, packs and moves come and go, the others are marked: all that is needed is marked then."""
    chance = data.draw(st.randoms(use_true_random=False))
    some = forest.points[: len(forest.points) // 2]
    mark = forest.mark()
    for roots in some:
        mark.add_point(forest.record(roots))
    if chance.random() < 0.5:
        mark.settle()
    for _ in range(3):
        pack = chance.choice(list(forest.packs))
        if not any(old == pack for old, _, _ in forest.moves):
            compacted(forest, pack, chance, gone=chance.random() < 0.5)
    new = forest.number(len(forest.numbers.ids))
    forest.packs[new] = 5
    mark.cover(forest.packs.items(), forest.stored_moves())
    for roots in forest.points[len(some) :]:
        mark.add_point(forest.record(roots))

    assert mark.settle() == []
    check(forest, mark, forest.points)


def test_a_move_of_which_a_part_has_died() -> None:
    """Ten chunks were moved as one run; four of them are still needed when that pack is compacted as well."""
    forest = Forest(
        packs={NODES: 1, 3: 4}, nodes={ref(NODES, 0): ([ref(1, at) for at in range(4)], [])}, points=[[ref(NODES, 0)]]
    )
    forest.number(3)
    forest.moves = [(1, 10, {at: ref(2, at) for at in range(10)}), (2, 10, {at: ref(3, at) for at in range(4)})]

    mark = marked(forest, forest.points)

    check(forest, mark, forest.points)
    assert mark.is_marked(1)


def test_a_pardoned_pack_whose_chunks_were_partly_moved() -> None:
    """A writer still refers to a chunk that was dead when it was not copied: that one is needed where it is."""
    forest = Forest(
        packs={NODES: 1, 1: 4, 2: 2}, nodes={ref(NODES, 0): ([ref(1, 0), ref(1, 3)], [])}, points=[[ref(NODES, 0)]]
    )
    forest.number(2)
    forest.moves = [(1, 4, {0: ref(2, 0), 1: ref(2, 1)})]

    mark = marked(forest, forest.points)

    check(forest, mark, forest.points)
    assert mark.needed(1).tolist() == [False, False, False, True]


def test_what_nobody_needs() -> None:
    forest = Forest(packs={NODES: 3, 1: 4}, nodes={ref(NODES, at): ([], []) for at in range(3)})
    forest.number(1)
    mark = marked(forest, [])

    assert not mark.is_marked(1)
    assert sorted(mark.there()) == [NODES, 1]
    assert mark.count(1) == 4


# What is missing


def large(chunks: list[int]) -> list[int]:
    """So many runs that they are counted and not filled."""
    assert len(chunks) * 12 >= module._MANY
    return chunks


@pytest.mark.parametrize("many", [False, True], ids=["few runs", "many runs"])
@pytest.mark.parametrize(
    ("missing", "what"),
    [(ref(9, 0), "is gone"), (ref(1, 40), "has no chunk 40"), (ref(2, 1), "is gone")],
    ids=["no such pack", "no such chunk", "moved, but not this one"],
)
def test_a_chunk_that_is_missing(many: bool, missing: int, what: str) -> None:
    forest = Forest(packs={NODES: 2, 1: 40})
    forest.number(9)
    forest.moves = [(2, 5, {0: ref(1, 0)})]
    others = large([ref(1, at) for at in range(0, 40, 2)] + [ref(1, at) for at in range(1, 40, 2)]) if many else []
    forest.nodes = {ref(NODES, 0): ([*others, missing], []), ref(NODES, 1): ([ref(1, 7)], [])}
    mark = forest.mark()

    with pytest.raises(CorruptObject, match=what):
        mark.add_point(forest.record([ref(NODES, 0)]))
    # The other point is not to blame: neither now nor when the marks are summed up.
    mark.add_point(forest.record([ref(NODES, 1)]))
    assert mark.settle() == []
    assert mark.needed(1)[7]


def test_a_broken_point_is_not_blamed_on_the_next_one() -> None:
    """A walk breaks off where a node is gone, after it has noted a large one that misses something as well."""
    forest = Forest(packs={NODES: 4, 1: 60})
    forest.number(9)
    missing = large([ref(9, at) for at in range(0, 60, 2)])
    forest.nodes = {
        ref(NODES, 0): ([], [ref(NODES, 1), ref(8, 0)]),
        ref(NODES, 1): (missing, []),
        ref(NODES, 2): (large([ref(1, at) for at in range(0, 60, 2)]), []),
    }
    for order in ([ref(NODES, 1), ref(8, 0)], [ref(8, 0), ref(NODES, 1)]):
        forest.nodes[ref(NODES, 0)] = [], order
        mark = forest.mark()
        with pytest.raises(CorruptObject):
            mark.add_point(forest.record([ref(NODES, 0)]))

        mark.add_point(forest.record([ref(NODES, 2)]))

        assert mark.settle() == []
        assert mark.needed(1).tolist() == [True, False] * 30


def test_a_move_that_leads_nowhere() -> None:
    """The pack that a chunk was moved to is gone."""
    forest = Forest(packs={NODES: 1}, nodes={ref(NODES, 0): ([ref(1, 0)], [])}, points=[[ref(NODES, 0)]])
    forest.number(2)
    forest.moves = [(1, 2, {0: ref(2, 0), 1: ref(2, 1)})]
    mark = forest.mark()
    try:
        mark.add_point(forest.record(forest.points[0]))
    except CorruptObject:
        return

    assert [str(error) for error in mark.settle()] != []


def test_a_root_that_is_missing() -> None:
    forest = Forest(packs={NODES: 1}, nodes={ref(NODES, 0): ([], [])})
    forest.number(3)

    with pytest.raises(CorruptObject, match="is gone"):
        forest.mark().add_point(forest.record([ref(3, 0)]))
    with pytest.raises(CorruptObject, match="has no chunk 1"):
        forest.mark().add_point(forest.record([ref(NODES, 1)]))


def test_a_node_that_is_its_own_child() -> None:
    """No honest writer makes one; the walk ends all the same."""
    forest = Forest(
        packs={NODES: 1, 1: 2}, nodes={ref(NODES, 0): ([ref(1, 1)], [ref(NODES, 0)])}, points=[[ref(NODES, 0)]]
    )
    forest.number(1)

    check(forest, marked(forest, forest.points), forest.points)


@settings(deadline=None, max_examples=20)
@given(forests())
def test_small_batches(forest: Forest) -> None:
    """The same where noted runs are counted after every node and summed up in tiny blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FLUSH", 1)
        patch.setattr(module, "_BLOCK", 3)
        patch.setattr(module, "_MANY", 1)
        check(forest, marked(forest, forest.points), forest.points)
