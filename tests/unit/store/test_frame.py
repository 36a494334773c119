# SPDX-License-Identifier: Apache-2.0
"""Frames before they are sealed."""

from __future__ import annotations

import os
import random
import threading

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from keepstone.crypto import hashing
from keepstone.errors import CorruptObject
from keepstone.store.frame import CODEC_RAW, CODEC_ZSTD, DEFAULT_LEVEL, MAX_FRAME, expand, make_frame

pytestmark = pytest.mark.store

BLAKE3 = hashing("blake3")
_NOISE = os.urandom(10_000)


@pytest.mark.parametrize("level", [DEFAULT_LEVEL, -1, 1, 3, 9])
@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"abc" * 1000, bytes(1 << 20), os.urandom(1 << 16)],
    ids=["empty", "one", "text", "zeros", "noise"],
)
def test_round_trip(level: int, data: bytes) -> None:
    identity = BLAKE3.keyed(bytes(32), data)
    frame = make_frame(BLAKE3, level, data, [identity], [len(data)])

    assert expand(frame.payload, frame.codec, frame.raw_length) == data
    assert frame.digest == BLAKE3.digest(frame.payload if frame.codec == CODEC_ZSTD else b"raw/v1" + identity)
    assert len(frame.payload) <= len(data)


@given(st.integers(0, 300_000))
def test_as_much_of_a_frame_as_is_wanted(wanted: int) -> None:
    data = b"".join(b"line %d\n" % number for number in range(20_000))
    for whole in (make_frame(BLAKE3, DEFAULT_LEVEL, data, [], []), make_frame(BLAKE3, DEFAULT_LEVEL, _NOISE, [], [])):
        first = bytes(expand(whole.payload, whole.codec, whole.raw_length, wanted))

        assert len(first) >= min(wanted, whole.raw_length)
        assert (data if whole.codec == CODEC_ZSTD else _NOISE).startswith(first)


@pytest.mark.parametrize("wanted", [None, 1, 5000, 299_000, 300_000])
def test_into_memory_of_the_caller(wanted: int | None) -> None:
    data = os.urandom(150_000) + bytes(150_000)
    whole = make_frame(BLAKE3, DEFAULT_LEVEL, data, [], [])
    assert whole.codec == CODEC_ZSTD
    memory = bytearray(b"x" * 300_100)

    got = memoryview(expand(whole.payload, whole.codec, 300_000, wanted, into=memoryview(memory)[:300_000]))

    assert got.obj is memory
    assert data.startswith(got)
    assert len(got) >= (300_000 if wanted is None else wanted)
    assert memory[: len(got)] == got
    assert memory[300_000:] == b"x" * 100


def test_nothing_of_a_frame_into_memory() -> None:
    whole = make_frame(BLAKE3, DEFAULT_LEVEL, bytes(300_000), [], [])

    assert expand(whole.payload, CODEC_ZSTD, 300_000, 0, into=memoryview(bytearray(300_000))) == b""


@pytest.mark.parametrize("cut", [1, 1000, 140_000])
def test_a_frame_that_ends_early_into_memory(cut: int) -> None:
    """What was in the memory before is not taken for the rest of it."""
    data = os.urandom(150_000) + bytes(150_000)
    short = make_frame(BLAKE3, DEFAULT_LEVEL, data, [], []).payload[:-cut]

    with pytest.raises(CorruptObject):
        expand(short, CODEC_ZSTD, 300_000, into=memoryview(bytearray(data)))


def test_a_frame_of_another_length_into_memory() -> None:
    whole = make_frame(BLAKE3, DEFAULT_LEVEL, bytes(300_000), [], [])

    for said in (299_999, 300_001):
        with pytest.raises(CorruptObject):
            expand(whole.payload, CODEC_ZSTD, said, into=memoryview(bytearray(300_001)))


def test_a_part_of_a_frame_that_is_not_there() -> None:
    """The frame holds less than it says of itself."""
    short = make_frame(BLAKE3, 1, b"abc" * 1000, [], []).payload
    header = zstandard.frame_header_size(short)
    lying = _claiming(1_000_000)[:-3] + short[header:]

    with pytest.raises(CorruptObject):
        expand(lying, CODEC_ZSTD, 1_000_000, 5000)


def test_what_saves_little_is_stored_as_it_is() -> None:
    noise = os.urandom(100_000)

    assert make_frame(BLAKE3, 1, noise, [], []).codec == CODEC_RAW
    assert make_frame(BLAKE3, 1, noise + bytes(2000), [], []).codec == CODEC_RAW
    assert make_frame(BLAKE3, 1, noise + bytes(20_000), [], []).codec == CODEC_ZSTD


def test_a_sample_is_enough_of_noise() -> None:
    noise = random.Random(7).randbytes(1 << 20)
    text = b"some text " * 4000
    thrice = noise[:300_000] * 3

    def codec(data: bytes) -> int:
        frame = make_frame(BLAKE3, DEFAULT_LEVEL, data, [], [], sample=True)
        assert frame.payload is data or frame.codec == CODEC_ZSTD
        return frame.codec

    assert codec(noise) == CODEC_RAW
    assert codec(noise[:500_000] + text + noise[500_000:-40_000]) == CODEC_ZSTD  # wherever it lies
    assert codec(text * 20) == CODEC_ZSTD
    assert codec(noise[:1000] * 20) == CODEC_ZSTD  # too short for a sample
    assert make_frame(BLAKE3, DEFAULT_LEVEL, thrice, [], []).codec == CODEC_ZSTD
    assert codec(thrice) == CODEC_RAW  # the price


def test_what_is_stored_as_it_is_is_not_copied() -> None:
    """So whoever made the frame keeps what it was made of; `test_pipeline.py` shows that pieces do."""
    noise = memoryview(os.urandom(1000))
    frame = make_frame(BLAKE3, 1, noise, [], [])

    assert frame.codec == CODEC_RAW
    assert frame.payload is noise


def test_the_same_data_gives_the_same_frame_on_every_thread() -> None:
    data = b"some text " * 5000
    made: list[bytes | memoryview] = []
    threads = [
        threading.Thread(target=lambda: made.append(make_frame(BLAKE3, DEFAULT_LEVEL, data, [], []).payload))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 4
    assert len(set(made)) == 1


def _claiming(size: int) -> bytes:
    """A frame of zstd whose header says that it has this content size (RFC 8878, 3.1.1.1)."""
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"


@pytest.mark.parametrize(
    ("payload", "codec", "length"),
    [
        (b"", CODEC_ZSTD, 10),
        (b"nonsense", CODEC_ZSTD, 10),
        (zstandard.compress(b"x" * 100), CODEC_ZSTD, 99),
        (zstandard.compress(b"x" * 100), CODEC_ZSTD, 101),
        (zstandard.compress(b"x" * 100)[:-3], CODEC_ZSTD, 100),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 22)), CODEC_ZSTD, 100),
        (zstandard.compress(bytes(64 << 20)), CODEC_ZSTD, 100),
        (_claiming(1 << 34), CODEC_ZSTD, 100),
        (_claiming(1 << 50), CODEC_ZSTD, 100),
        (zstandard.compress(b"x" * 100), CODEC_ZSTD, MAX_FRAME + 1),
        (b"abc", CODEC_RAW, 4),
        (b"abc", CODEC_RAW, 2),
        (b"abc", 2, 3),
        (b"abc", 255, 3),
    ],
    ids=[
        "empty",
        "nonsense",
        "longer",
        "shorter",
        "cut off",
        "bomb without a size",
        "bomb with a size",
        "says 16 GiB",
        "says a petabyte",
        "too long a frame",
        "raw shorter",
        "raw longer",
        "codec 2",
        "codec 255",
    ],
)
def test_hostile_frames(payload: bytes, codec: int, length: int) -> None:
    with pytest.raises(CorruptObject):
        expand(payload, codec, length)


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_any_bytes_are_a_frame_or_corrupt(payload: bytes, codec: int, length: int) -> None:
    try:
        data = expand(payload, codec, length)
    except CorruptObject:
        return

    assert len(data) == length
