# SPDX-License-Identifier: Apache-2.0
"""Signatures against RFC 8032, and what must not verify."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.crypto import public_key, sign, verify

pytestmark = pytest.mark.store

# RFC 8032, 7.1, test 2
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_signature_is_that_of_the_standard() -> None:
    assert public_key(SEED) == PUBLIC
    assert sign(SEED, b"\x72") == SIGNATURE
    assert verify(PUBLIC, b"\x72", SIGNATURE)


@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=500))
def test_what_is_signed_verifies(seed: bytes, message: bytes) -> None:
    assert verify(public_key(seed), message, sign(seed, message))
    assert not verify(public_key(seed), message + b"\0", sign(seed, message))


def test_every_flipped_bit_of_a_signature_or_key_is_found() -> None:
    for position in range(64 * 8):
        damaged = bytearray(SIGNATURE)
        damaged[position // 8] ^= 1 << position % 8
        assert not verify(PUBLIC, b"\x72", bytes(damaged))
    for position in range(32 * 8):
        damaged = bytearray(PUBLIC)
        damaged[position // 8] ^= 1 << position % 8
        assert not verify(bytes(damaged), b"\x72", SIGNATURE)


@pytest.mark.parametrize("junk", [b"", b"short", bytes(32), bytes(64), bytes(65)])
def test_what_is_no_key_or_no_signature_does_not_verify(junk: bytes) -> None:
    assert not verify(junk, b"message", SIGNATURE)
    assert not verify(PUBLIC, b"message", junk)
