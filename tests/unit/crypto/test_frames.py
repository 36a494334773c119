# SPDX-License-Identifier: Apache-2.0
"""Sealing of frames: published and pinned vectors, round trips, and every flipped bit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.crypto import DomainKeys, Hashing, frame_key, hashing, open_frame, seal_frame
from keepstone.errors import CorruptObject

pytestmark = pytest.mark.store

PACK = bytes(range(32))
DIGEST = bytes(range(32, 64))


def sealed(key: bytes, data: bytes, aad: bytes) -> bytes:
    into = bytearray(len(data) + 16)
    seal_frame(key, data, aad, memoryview(into))
    return bytes(into)


def opened(key: bytes, data: bytes, aad: bytes) -> bytes:
    into = bytearray(len(data) - 16)
    open_frame(key, data, aad, memoryview(into))
    return bytes(into)


def test_seal_gives_the_published_vector() -> None:
    # McGrew and Viega, The Galois/Counter Mode of Operation, test case 14: AES-256, key, nonce and text zero
    assert sealed(bytes(32), bytes(16), b"").hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blake3", "bd373bff35b12b6c8fc0a69e2a3324f627943fbcd343fe0f24466de79ccaaa82"),
        ("hmac-sha256", "acd90c5707089674ab023a1ad2fabe1af005d6a0a52cb3b663d7a78fa46d4719"),
    ],
)
def test_frame_key_is_pinned(keys: DomainKeys, name: str, expected: str) -> None:
    assert frame_key(hashing(name), keys, PACK, 0x01020304, DIGEST).hex() == expected


def test_frame_key_is_the_documented_formula(keys: DomainKeys, profile: Hashing) -> None:
    text = b"frame/v1" + PACK + bytes([4, 3, 2, 1]) + DIGEST

    assert frame_key(profile, keys, PACK, 0x01020304, DIGEST) == profile.keyed(keys.encryption, text)


def test_each_part_changes_the_frame_key(keys: DomainKeys, profile: Hashing) -> None:
    found = {
        frame_key(profile, keys, PACK, 0, DIGEST),
        frame_key(profile, keys, DIGEST, 0, DIGEST),
        frame_key(profile, keys, PACK, 1, DIGEST),
        frame_key(profile, keys, PACK, 0, PACK),
        frame_key(profile, DomainKeys.from_bytes(7, bytes(160)), PACK, 0, DIGEST),
    }

    assert len(found) == 5


@given(key=st.binary(min_size=32, max_size=32), data=st.binary(max_size=5000), aad=st.binary(max_size=100))
def test_open_gives_back_what_was_sealed(key: bytes, data: bytes, aad: bytes) -> None:
    assert opened(key, sealed(key, data, aad), aad) == data


def test_every_flipped_bit_is_found_and_nothing_of_the_text_is_left() -> None:
    whole = sealed(PACK, b"some secret text of a frame", b"aad")
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            into = bytearray(b"x" * (len(whole) - 16))
            with pytest.raises(CorruptObject):
                open_frame(PACK, damaged, b"aad", memoryview(into))
            assert not any(into)


def test_other_key_other_aad_and_truncation_are_found() -> None:
    whole = sealed(PACK, b"some secret text of a frame", b"aad")
    for key, data, aad in [(DIGEST, whole, b"aad"), (PACK, whole, b"bad"), (PACK, whole[:-1], b"aad")]:
        with pytest.raises(CorruptObject):
            opened(key, data, aad)


def test_a_buffer_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        seal_frame(PACK, b"data", b"", memoryview(bytearray(21)))
