# SPDX-License-Identifier: Apache-2.0
"""Header, footer and trailer of a pack: whatever they say, they are read or they are corrupt."""

from __future__ import annotations

import contextlib
import struct
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import CorruptObject
from keepstone.store.footer import (
    DATA,
    HEADER_SIZE,
    METADATA,
    TRAILER_SIZE,
    Footer,
    FooterBuilder,
    pack_header,
    pack_trailer,
    parse_header,
    parse_trailer,
)
from keepstone.store.frame import MAX_FRAME

pytestmark = pytest.mark.store

PACK = bytes(range(32))
STORE = bytes(range(16))

frames = st.lists(
    st.tuples(
        st.integers(17, 2**31),  # sealed length
        st.integers(0, 1),  # codec
        st.lists(st.integers(0, 4 << 20), min_size=1, max_size=4),  # lengths of its chunks
    ),
    max_size=8,
)


def built(shape: list[tuple[int, int, list[int]]]) -> bytes:
    columns = FooterBuilder.empty()
    number = 0
    for sealed, codec, lengths in shape:
        columns.frame_lengths.append(sealed)
        columns.frame_raw.append(sum(lengths))
        columns.frame_chunks.append(len(lengths))
        columns.codecs.append(codec)
        columns.digests += number.to_bytes(32, "big")
        for length in lengths:
            columns.chunk_lengths.append(length)
            columns.ids += number.to_bytes(32, "little")
            number += 1
    return columns.encode()


def raw(
    counts: tuple[int, int], lengths: list[int], sizes: list[int], chunks: list[int], chunk_lengths: list[int]
) -> bytes:
    """A footer with these columns, whether they agree or not."""
    columns = b"".join(array("I", column).tobytes() for column in (lengths, sizes, chunks))
    rest = bytes(33 * len(lengths)) + array("I", chunk_lengths).tobytes() + bytes(32 * len(chunk_lengths))
    return struct.pack("<II", *counts) + columns + rest


@given(frames.filter(lambda shape: all(sum(lengths) <= MAX_FRAME for _, _, lengths in shape)))
def test_round_trip(shape: list[tuple[int, int, list[int]]]) -> None:
    footer = Footer(built(shape), PACK, DATA, "packs/00")

    assert (footer.frames, footer.chunks) == (len(shape), sum(len(lengths) for _, _, lengths in shape))
    assert footer.raw_bytes == sum(sum(lengths) for _, _, lengths in shape)
    offset, position = HEADER_SIZE, 0
    for number, (sealed, codec, lengths) in enumerate(shape):
        assert footer.offsets[number] == offset
        assert footer.codecs[number] == codec
        offsets = footer.chunk_offsets(number)
        assert [b - a for a, b in pairwise(offsets)] == lengths
        for _ in lengths:
            assert footer.frame_of(position) == number
            assert footer.id(position) == position.to_bytes(32, "little")
            position += 1
        offset += sealed
    assert footer.offsets[-1] == offset


@given(st.binary(max_size=300))
def test_any_bytes_are_a_footer_or_corrupt(data: bytes) -> None:
    with contextlib.suppress(CorruptObject):
        Footer(data, PACK, DATA, "packs/00")


@given(
    st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 3), max_size=4),
    st.lists(st.integers(0, 2**32 - 1), max_size=4),
)
def test_any_columns_are_a_footer_or_corrupt(rows: list[tuple[int, int, int]], chunk_lengths: list[int]) -> None:
    """Nobody who goes by a footer that was read leaves the pack, or finds a frame without room for its tag."""
    lengths, sizes, chunks = ([row[column] for row in rows] for column in range(3))
    data = raw((len(rows), len(chunk_lengths)), lengths, sizes, chunks, chunk_lengths)
    try:
        footer = Footer(data, PACK, DATA, "packs/00")
    except CorruptObject:
        return

    assert max(footer.frame_raw, default=0) <= MAX_FRAME
    assert footer.first_chunk[-1] == footer.chunks
    for frame in range(footer.frames):
        assert footer.frame_lengths[frame] >= 16
        assert footer.chunk_offsets(frame)[0] == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        struct.pack("<II", 2**32 - 1, 2**32 - 1),
        raw((1, 1), [17], [1], [1], []),
        raw((1, 0), [17], [1], [1], []),
        raw((1, 2), [17], [2], [1], [1, 1]),
        raw((1, 1), [17], [2], [2], [2]),
        raw((2, 1), [17, 17], [1, 0], [2**32 - 1, 2], [1]),
        raw((1, 1), [17], [MAX_FRAME + 1], [1], [MAX_FRAME + 1]),
        raw((1, 1), [15], [1], [1], [1]),
    ],
    ids=[
        "empty",
        "no counts",
        "counts of a huge pack",
        "a column short",
        "chunk of no column",
        "chunk of no frame",
        "frame of too many chunks",
        "sum beyond u32",
        "huge frame",
        "frame shorter than its tag",
    ],
)
def test_hostile_columns(data: bytes) -> None:
    with pytest.raises(CorruptObject, match="packs/00"):
        Footer(data, PACK, DATA, "packs/00")


@pytest.mark.parametrize("kind", [DATA, METADATA])
def test_header_round_trip(kind: int) -> None:
    header = pack_header(STORE, 7, kind, PACK)

    assert len(header) == HEADER_SIZE
    assert parse_header(header, "packs/00") == (STORE, 7, kind, PACK)


@pytest.mark.parametrize(
    "data", [b"", bytes(HEADER_SIZE), pack_header(STORE, 7, DATA, PACK)[:-1], b"KSPACK2\n" + bytes(56)]
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(CorruptObject, match="packs/00"):
        parse_header(data, "packs/00")


def test_trailer_round_trip() -> None:
    trailer = pack_trailer(1234, b"d" * 32, b"c" * 16)

    assert len(trailer) == TRAILER_SIZE
    assert parse_trailer(trailer, "packs/00") == (1234, b"d" * 32, b"c" * 16)


@pytest.mark.parametrize("data", [b"", bytes(TRAILER_SIZE), pack_trailer(1, bytes(32), bytes(16))[1:]])
def test_what_is_no_trailer(data: bytes) -> None:
    with pytest.raises(CorruptObject, match="packs/00"):
        parse_trailer(data, "packs/00")


@given(st.integers(0, HEADER_SIZE - 1), st.integers(1, 255))
def test_every_byte_of_a_header_counts(at: int, change: int) -> None:
    header = bytearray(pack_header(STORE, 7, DATA, PACK))
    header[at] ^= change
    try:
        found = parse_header(bytes(header), "packs/00")
    except CorruptObject:
        return

    # What is not checked here is authenticated: the header is part of what frames and footer are sealed with.
    assert found != (STORE, 7, DATA, PACK) or 29 <= at < 32
