# SPDX-License-Identifier: Apache-2.0
"""Places and the runs that they are stored as."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import CorruptObject
from keepstone.store.refs import (
    ZERO_PACK,
    ZERO_REF,
    PackNumbers,
    decode_runs,
    encode_runs,
    expand_runs,
    stored_u32s,
    u32s,
)

pytestmark = pytest.mark.store

IDS = [bytes([index]) * 32 for index in range(5)]
U32 = st.integers(0, 2**32 - 1)

places = st.lists(
    st.one_of(
        st.just([ZERO_REF]),
        st.builds(
            lambda pack, first, count: [pack << 32 | first + index for index in range(count)],
            st.integers(0, len(IDS) - 1),
            st.one_of(st.integers(0, 20), st.integers(2**32 - 40, 2**32 - 11)),
            st.integers(1, 9),
        ),
    ),
    max_size=12,
).map(lambda runs: [ref for run in runs for ref in run])


def numbered() -> PackNumbers:
    numbers = PackNumbers()
    for identity in IDS:
        numbers.number(identity)
    return numbers


def runs(*values: int) -> bytes:
    return stored_u32s(array("I", values))


def test_pack_numbers_count_from_zero_and_stay() -> None:
    numbers = PackNumbers()

    assert [numbers.number(identity) for identity in (IDS[3], IDS[1], IDS[3])] == [0, 1, 0]
    assert numbers.ids == [IDS[3], IDS[1]]
    assert numbers.known(IDS[1]) == 1
    assert numbers.known(IDS[0]) is None


@given(places, places)
def test_round_trip(first: list[int], second: list[int]) -> None:
    """Two columns share one table of packs, as in a node."""
    numbers = numbered()
    table: dict[int, int] = {}
    stored = [encode_runs(first, table), encode_runs(second, table)]
    packs = b"".join(numbers.ids[number] for number in table)
    other = PackNumbers()
    other.number(bytes(32))  # another process numbers them otherwise

    for refs, column in zip((first, second), stored, strict=True):
        assert expand_runs(decode_runs(packs, column, numbers)) == refs
        elsewhere = expand_runs(decode_runs(packs, column, other))
        assert [ref & 0xFFFFFFFF for ref in elsewhere] == [ref & 0xFFFFFFFF for ref in refs]
        assert [other.ids[ref >> 32] for ref in elsewhere if ref != ZERO_REF] == [
            numbers.ids[ref >> 32] for ref in refs if ref != ZERO_REF
        ]


def test_neighbours_make_one_run() -> None:
    refs = [ZERO_REF, ZERO_REF, 5, 6, 7, 1 << 32 | 8, 1 << 32 | 9, 9, ZERO_REF]

    stored = encode_runs(refs, {})

    assert list(u32s(stored)) == [ZERO_PACK, 0, 2, 0, 5, 3, 1, 8, 2, 0, 9, 1, ZERO_PACK, 0, 1]


def test_the_same_place_twice_is_two_runs() -> None:
    assert list(u32s(encode_runs([4, 4, 5], {}))) == [0, 4, 1, 0, 4, 2]


def test_no_places() -> None:
    assert encode_runs([], {}) == b""
    assert list(decode_runs(b"", b"", PackNumbers())) == []


@pytest.mark.parametrize("length", [1, 3, 5, 15])
def test_a_column_of_broken_length(length: int) -> None:
    with pytest.raises(CorruptObject):
        u32s(bytes(length))


@pytest.mark.parametrize(
    ("packs", "column"),
    [
        (b"", runs(0, 0, 1)),
        (IDS[0], runs(1, 0, 1)),
        (IDS[0], runs(ZERO_PACK - 1, 0, 1)),
        (IDS[0][:-1], runs(0, 0, 1)),
        (IDS[0], runs(0, 0)),
        (IDS[0], runs(0, 0, 1, 0)),
        (IDS[0], runs(0, 0, 1) + b"\0"),
        (IDS[0], runs(0, 2**32 - 1, 2)),
        (IDS[0], runs(0, 1, 2**32 - 1)),
    ],
    ids=[
        "no table",
        "beyond",
        "far beyond",
        "short table",
        "two",
        "four",
        "bytes",
        "past the end",
        "long past the end",
    ],
)
def test_hostile_tables(packs: bytes, column: bytes) -> None:
    with pytest.raises(CorruptObject):
        list(decode_runs(packs, column, PackNumbers()))


@given(st.binary(max_size=100), st.lists(U32, max_size=12), st.binary(max_size=3))
def test_any_bytes_are_runs_or_corrupt(packs: bytes, values: list[int], rest: bytes) -> None:
    """No run ever leaves its pack, whatever is stored."""
    numbers = numbered()
    try:
        decoded = list(decode_runs(packs, runs(*values) + rest, numbers))
    except CorruptObject:
        return

    for first, count in decoded:
        assert first == ZERO_REF or (first & 0xFFFFFFFF) + count <= 2**32
