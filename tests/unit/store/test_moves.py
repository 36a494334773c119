# SPDX-License-Identifier: Apache-2.0
"""Where chunks went that were moved."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import CorruptObject
from keepstone.store.commits import Move, MoveRecord
from keepstone.store.moves import Moves, encode_move
from keepstone.store.refs import PackNumbers, stored_u32s, u32s

pytestmark = pytest.mark.store

PACKS = [bytes([number]) * 32 for number in range(8)]


def numbered() -> PackNumbers:
    numbers = PackNumbers()
    for pack in PACKS:
        numbers.number(pack)
    return numbers


def place(pack: int, position: int) -> int:
    return pack << 32 | position


def move(pack: int, chunks: int, moved: dict[int, int]) -> Move:
    return encode_move(PACKS[pack], chunks, sorted(moved.items()), numbered())


def made(*moves: Move) -> Moves:
    return Moves(numbered(), [MoveRecord(moves=[one]) for one in moves])


moved_places = st.dictionaries(st.integers(0, 15), st.builds(place, st.integers(1, 3), st.integers(0, 20)), max_size=16)


@given(moved_places)
def test_round_trip(moved: dict[int, int]) -> None:
    moves = made(move(0, 16, moved))

    assert {at: moves.step(place(0, at)) for at in range(20)} == {at: moved.get(at) for at in range(20)}
    assert moves.step(place(5, 3)) is None


def test_neighbours_make_one_run() -> None:
    record = move(0, 9, {0: place(1, 5), 1: place(1, 6), 2: place(1, 7), 5: place(1, 8), 6: place(2, 0)})

    assert list(u32s(record.runs)) == [0, 3, 0, 5, 5, 1, 0, 8, 6, 1, 1, 0]
    assert record.packs == PACKS[1] + PACKS[2]


def test_where_a_pack_leads_to() -> None:
    moves = made(
        move(0, 4, {0: place(1, 0), 1: place(2, 0)}), move(1, 2, {0: place(3, 0)}), move(3, 1, {0: place(1, 1)})
    )

    assert moves.leads_to(0) == {0, 1, 2, 3}
    assert moves.leads_to(1) == moves.leads_to(3) == {1, 3}  # a circle, which only a forgery has
    assert moves.leads_to(2) == {2}


def test_chains() -> None:
    """A pack that was made by a compaction is compacted, too; what is dead by then goes no further."""
    moves = made(
        move(1, 4, {0: place(2, 0), 2: place(2, 1)}),
        move(0, 6, {at: place(1, at - 2) for at in range(2, 6)}),
        move(2, 2, {1: place(3, 9)}),
    )

    assert [moves.resolve(place(0, at)) for at in range(7)] == [
        place(0, 0),
        place(0, 1),
        place(2, 0),
        place(1, 1),
        place(3, 9),
        place(1, 3),
        place(0, 6),
    ]
    assert moves.resolve_all([place(0, 4), place(4, 4), place(0, 0)]) == [place(3, 9), place(4, 4), place(0, 0)]


@given(st.lists(moved_places, max_size=4))
def test_resolve_follows_a_chain_of_dicts(links: list[dict[int, int]]) -> None:
    """Each pack's chunks go to packs of higher number, as new packs always are."""
    tables = {pack: {at: place(pack + 1, ref & 15) for at, ref in moved.items()} for pack, moved in enumerate(links)}
    moves = made(*(move(pack, 16, table) for pack, table in tables.items()))

    def follow(pack: int, at: int) -> int:
        ref = tables.get(pack, {}).get(at)
        return place(pack, at) if ref is None else follow(ref >> 32, ref & 0xFFFFFFFF)

    for pack in range(len(links) + 1):
        assert [moves.resolve(place(pack, at)) for at in range(16)] == [follow(pack, at) for at in range(16)]


@given(moved_places, moved_places)
def test_two_collectors_that_moved_the_same_pack(first: dict[int, int], second: dict[int, int]) -> None:
    """Where both moved a chunk, the first record's copy counts, on every machine the same."""
    moves = made(move(0, 16, first), move(0, 16, second))
    united = second | first

    assert {at: moves.step(place(0, at)) for at in range(16)} == {at: united.get(at) for at in range(16)}
    assert moves.old[0][0] == 16


def test_nothing_moved() -> None:
    moves = Moves(PackNumbers(), [])

    assert not moves
    assert moves.resolve(place(0, 3)) == place(0, 3)
    assert not moves.old


def test_a_pack_of_which_nothing_was_copied() -> None:
    moves = made(move(0, 5, {}))

    assert moves
    assert moves.step(place(0, 0)) is None


def quads(*values: int) -> bytes:
    return stored_u32s(array("I", values))


@pytest.mark.parametrize(
    "record",
    [
        Move(PACKS[0], 5, PACKS[1], quads(0, 1, 1, 0)),
        Move(PACKS[0], 5, b"", quads(0, 1, 0, 0)),
        Move(PACKS[0], 5, PACKS[1], quads(0, 1, 0)),
        Move(PACKS[0], 5, PACKS[1], quads(0, 1, 0, 0) + b"x"),
        Move(PACKS[0], 5, PACKS[1], quads(4, 2, 0, 0)),
    ],
    ids=["beyond the table", "no table", "three values", "bytes", "more chunks than the pack had"],
)
def test_inconsistent(record: Move) -> None:
    with pytest.raises(CorruptObject):
        made(record)


def test_a_circle() -> None:
    """No honest record makes one; one that is met must not hang the restore."""
    moves = made(move(0, 1, {0: place(1, 0)}), move(1, 1, {0: place(0, 0)}))

    with pytest.raises(CorruptObject):
        moves.resolve(place(0, 0))
