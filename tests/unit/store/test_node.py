# SPDX-License-Identifier: Apache-2.0
"""Manifest nodes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import CorruptObject
from keepstone.store.node import Node, decode_node, encode_node
from keepstone.store.refs import ZERO_REF, PackNumbers

pytestmark = pytest.mark.store

places = st.builds(lambda pack, position: pack << 32 | position, st.integers(0, 2), st.integers(0, 2**20))
refs = st.lists(st.one_of(st.just(ZERO_REF), places), max_size=20)


def numbered() -> PackNumbers:
    numbers = PackNumbers()
    for index in range(3):
        numbers.number(bytes([index]) * 32)
    return numbers


@given(st.text(max_size=10), refs, refs.filter(lambda found: ZERO_REF not in found), st.binary(max_size=50))
def test_round_trip(kind: str, chunks: list[int], children: list[int], body: bytes) -> None:
    numbers = numbered()

    node = decode_node(encode_node(kind, chunks, children, body, numbers))

    assert (node.kind, node.body) == (kind, body)
    assert node.chunk_refs(numbers) == chunks
    assert node.child_refs(numbers) == children


def test_equal_nodes_are_equal_bytes_in_every_process() -> None:
    """The order in which a process met the packs is not to be seen: nodes are deduplicated by their bytes."""
    numbers, other = PackNumbers(), PackNumbers()
    packs = [bytes([index]) * 32 for index in range(3)]
    for pack in packs:
        numbers.number(pack)
    for pack in reversed(packs):
        other.number(pack)

    mine = encode_node("leaf", [1 << 32 | 7, 2 << 32 | 1], [5], b"x", numbers)
    theirs = encode_node("leaf", [1 << 32 | 7, 0 << 32 | 1], [2 << 32 | 5], b"x", other)

    assert mine == theirs


@given(st.binary(max_size=200))
def test_any_bytes_are_a_node_or_corrupt(data: bytes) -> None:
    numbers = PackNumbers()
    try:
        node = decode_node(data)
        node.chunk_runs(numbers)
        node.child_runs(numbers)
    except CorruptObject:
        pass


@given(st.tuples(*[st.one_of(st.text(max_size=4), st.binary(max_size=40), st.integers(), st.none())] * 5))
def test_any_five_fields_are_a_node_or_corrupt(fields: tuple[object, ...]) -> None:
    try:
        data = msgspec.msgpack.encode(fields)
    except (OverflowError, msgspec.MsgspecError):
        return
    try:
        node = decode_node(data)
        node.chunk_runs(PackNumbers())
        node.child_runs(PackNumbers())
    except CorruptObject:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        msgspec.msgpack.encode(["leaf", b"", b"", b""]),
        msgspec.msgpack.encode({"kind": "x"}),
    ],
    ids=["empty", "reserved", "deep", "four fields", "map"],
)
def test_what_is_no_node(data: bytes) -> None:
    with pytest.raises(CorruptObject):
        decode_node(data)


def test_a_later_version_may_add_fields() -> None:
    node = decode_node(msgspec.msgpack.encode(["leaf", b"", b"", b"", b"body", "new"]))

    assert node == Node("leaf", b"", b"", b"", b"body")
