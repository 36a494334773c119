# SPDX-License-Identifier: Apache-2.0
"""The ids of a session's own new chunks, beyond what fits in a dict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.store import spilled
from keepstone.store.spilled import SpilledIds

pytestmark = pytest.mark.store

identities = st.builds(lambda head, tail: bytes([head]) * 8 + bytes([tail]) * 24, st.integers(0, 3), st.integers(0, 40))


@given(
    st.lists(st.lists(identities, unique=True, max_size=20), max_size=8),
    st.lists(identities, max_size=20),
    st.integers(1, 30),
)
def test_against_a_dict(batches: list[list[bytes]], others: list[bytes], merge: int) -> None:
    """Equal prefixes are told apart by `confirm`."""
    known: dict[bytes, int] = {}
    ids: list[bytes] = []
    made = SpilledIds(lambda place: ids[place] if place < len(ids) else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spilled, "_MERGE", merge)
        for batch in batches:
            new = {identity: len(ids) + at for at, identity in enumerate(x for x in batch if x not in known)}
            ids += new
            known |= new
            made.add(new)

            wanted = [*others, *known]
            assert made.find(wanted) == {identity: known[identity] for identity in wanted if identity in known}


def test_what_cannot_be_confirmed_is_not_found() -> None:
    made = SpilledIds(lambda place: None)
    made.add({bytes(32): 5})

    assert made.find([bytes(32)]) == {}


def test_nothing() -> None:
    made = SpilledIds(lambda place: None)
    made.add({})

    assert made.find([]) == {}
    assert made.find([bytes(32)]) == {}


def test_workers_go_on_with_what_they_hold() -> None:
    """`add` makes a new list of columns: a search under way on another thread is not disturbed."""
    made = SpilledIds(lambda place: bytes([place]) * 32)
    made.add({bytes([1]) * 32: 1})
    held = made._columns
    made.add({bytes([2]) * 32: 2})

    assert len(held) == 1
    assert len(held[0]) == 1
    assert made.find([bytes([1]) * 32, bytes([2]) * 32]) == {bytes([1]) * 32: 1, bytes([2]) * 32: 2}
