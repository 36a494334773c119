# SPDX-License-Identifier: Apache-2.0
"""Places on their way: what a machine names is what its service finds; what is no place is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import CorruptObject
from keepstone.remote.places import (
    EARLIER,
    FOUND,
    INDEX_BITS,
    NODES,
    UPLOADED,
    ZEROS,
    Handles,
    decode_places,
    earlier,
    encode_places,
)
from keepstone.remote.wire import parse_zeros, zero_runs
from keepstone.store import ZERO_REF

pytestmark = pytest.mark.agents

_INDEX = st.integers(0, (1 << INDEX_BITS) - 1)


class Near:
    """The other side: what it was told of handles, and what it makes of places."""

    def __init__(self) -> None:
        self.handles: list[tuple[int, int]] = [(0, 0)]

    def hear(self, tell: list[tuple[int, int]]) -> None:
        for above, index in tell:
            assert above < len(self.handles)  # told before
            self.handles.append((above, index))

    def path(self, handle: int) -> list[int]:
        path = []
        while handle:
            handle, index = self.handles[handle]
            path.append(index)
        return path[::-1]

    def expand(self, runs: bytes) -> list[object]:
        found: list[object] = []
        for of, first, count in decode_places(runs):
            if of == ZEROS:
                found += ["zeros"] * count
            elif of & EARLIER:
                path = self.path(of & ~EARLIER)
                found += [(tuple(path), index) for index in range(first, first + count)]
            else:
                found += [("found" if of == FOUND else "uploaded", index) for index in range(first, first + count)]
        return found


def meaning(places: list[int], handles: Handles) -> list[object]:
    """The same as the machine means it."""
    found: list[object] = []
    for place in places:
        if place == ZERO_REF:
            found.append("zeros")
        elif place & EARLIER:
            handle = (place & ~(EARLIER | NODES)) >> INDEX_BITS
            found.append((tuple(handles.path(handle)), place & (1 << INDEX_BITS) - 1))
        elif place & FOUND:
            found.append(("found", place & ~FOUND))
        else:
            found.append(("uploaded", place & ~NODES))
    return found


@st.composite
def trees(draw: st.DrawFn) -> tuple[Handles, int]:
    """Handles of nodes anywhere beneath the point, and how many there are."""
    handles = Handles()
    known = [0]
    for _ in range(draw(st.integers(0, 12))):
        handle = handles.of(earlier(draw(st.sampled_from(known)), draw(st.integers(0, 5)), child=True))
        if handle not in known:
            known.append(handle)
    return handles, len(known)


def _runs(handles: int, *, child: bool) -> st.SearchStrategy[list[tuple[int, int]]]:
    """(first place, how many) of runs of chunks, or of children."""
    kind = NODES if child else 0
    number = st.integers(0, 1 << 31)
    one = st.one_of(
        st.tuples(st.just(ZERO_REF), st.integers(1, 4)),
        st.tuples(number.map(lambda n: n | kind), st.integers(1, 4)),
        st.tuples(number.map(lambda n: FOUND | n), st.integers(1, 4)),
        st.builds(
            lambda handle, index: (earlier(handle, index, child=child), 3),
            st.integers(0, handles - 1),
            st.integers(0, 100),
        ),
    )
    return st.lists(one, max_size=12)


@given(trees(), st.data())
def test_there_and_back(tree: tuple[Handles, int], data: st.DataObject) -> None:
    handles, count = tree
    near = Near()
    for child in (False, True, False):
        runs = data.draw(_runs(count, child=child))
        places = [first if first == ZERO_REF else first + at for first, length in runs for at in range(length)]
        tell: list[tuple[int, int]] = []

        encoded = encode_places(places, handles, tell)

        near.hear(tell)
        assert near.expand(encoded) == meaning(places, handles)
        assert len(encoded) <= 12 * len(runs)


def test_consecutive_places_are_one_run() -> None:
    handles = Handles()
    tell: list[tuple[int, int]] = []

    runs = encode_places(range(earlier(0, 5), earlier(0, 5) + 1000), handles, tell)

    assert (len(runs), tell) == (12, [])
    assert list(decode_places(runs)) == [(EARLIER | 0, 5, 1000)]


@given(st.integers(0, 1 << 30), _INDEX)
def test_no_place_is_another_one(handle: int, index: int) -> None:
    """Neither a chunk, a child, what was found, what was sent, nor zeros."""
    kinds = [earlier(handle, index), earlier(handle, index, child=True), index, NODES | index, FOUND | index, ZERO_REF]

    assert len(set(kinds)) == len(kinds)
    assert all(place < ZERO_REF for place in kinds[:-1])


@given(st.binary(max_size=120))
def test_whatever_comes(data: bytes) -> None:
    try:
        runs = list(decode_places(data))
    except CorruptObject:
        return
    assert len(data) == 12 * len(runs)
    for of, first, count in runs:
        assert count > 0
        assert first + count <= 1 << 32
        assert of in (ZEROS, FOUND, UPLOADED) or (of & EARLIER and of & ~EARLIER < 1 << 32)


@pytest.mark.parametrize("data", [b"1", bytes(12), struct.pack("<III", 0, 0xFFFFFFFF, 2), bytes(13)])
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(CorruptObject):
        list(decode_places(data))


def test_a_chunk_is_no_node() -> None:
    with pytest.raises(CorruptObject, match="where a node has to be"):
        Handles().of(earlier(0, 0))


@given(st.lists(st.booleans(), max_size=60))
def test_runs_of_zeros(zeros: list[bool]) -> None:
    found = [False] * len(zeros)
    for first, count in parse_zeros(zero_runs(zeros)):
        assert count > 0
        found[first : first + count] = [True] * count

    assert found == zeros


def test_runs_of_zeros_that_are_none() -> None:
    with pytest.raises(CorruptObject):
        list(parse_zeros(b"1234567"))
