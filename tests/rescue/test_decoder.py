# SPDX-License-Identifier: Apache-2.0
"""The msgpack decoder of `rescue.py` reads what writers write, and nothing hurts it."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.store import rescue

pytestmark = pytest.mark.store

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
KEYS = st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES)
def test_it_reads_what_is_written(value: Any) -> None:
    if depth(value) < 8:
        assert rescue.unpack(msgspec.msgpack.encode([value]), list) == [value]


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_it_reads_every_form_of_length(size: int) -> None:
    for value in (b"x" * size, "x" * size, [1] * size, dict.fromkeys(range(size), 1)):
        assert rescue.unpack(msgspec.msgpack.encode(value), type(value)) == value


@given(st.binary(max_size=200))
def test_any_other_bytes_are_damage(data: bytes) -> None:
    for wanted in (list, dict, bytes):
        try:
            value = rescue.unpack(data, wanted)
        except rescue.DAMAGE:
            continue
        assert type(value) is wanted


@given(VALUES, st.data())
def test_what_is_cut_off_or_changed_is_damage_or_another_value(value: Any, data: st.DataObject) -> None:
    written = bytearray(msgspec.msgpack.encode([value]))
    at = data.draw(st.integers(0, len(written) - 1))

    with pytest.raises(rescue.DAMAGE):
        rescue.unpack(bytes(written[:at]), list)
    written[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(*rescue.DAMAGE):
        rescue.unpack(bytes(written), list)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_forged_runs_are_damage_or_places(packs: bytes, runs: bytes) -> None:
    with contextlib.suppress(*rescue.DAMAGE):
        for place in itertools.islice(rescue.places(packs, runs), 1000):
            assert place is None or (place[0] in packs and len(place[0]) == 32)


@given(st.lists(st.binary(max_size=30), max_size=9), VALUES)
def test_a_forged_page_is_damage_or_entries(columns: list[bytes], extras: Any) -> None:
    for body in (columns, [*columns, extras], [b"a\0b\0", *[bytes(8)] * 3, *[bytes(16)] * 4, bytes(8), extras]):
        with contextlib.suppress(*rescue.DAMAGE):
            for entry in rescue.entries_of(msgspec.msgpack.encode(body)):
                assert b"\0" not in entry.name


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
        b"\x91" * 100_000,
        b"\xdc\xff\xff" * 1000,
    ],
)
def test_lengths_are_not_believed(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(rescue.DAMAGE):
            rescue.unpack(bomb, list)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
