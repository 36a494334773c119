# SPDX-License-Identifier: Apache-2.0
"""Small objects: pinned bytes, the documented recipe, and every way of exchanging or damaging them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from keepstone.crypto import Blake3Hashing, DomainKeys, Hashing, Sha256Hashing, hashing, open_object, seal_object
from keepstone.errors import CorruptObject

pytestmark = pytest.mark.store

STORE = bytes(range(16))
RANDOM = bytes(range(100, 132))
NAME = "commits/0123456789abcdef-00"


def seal(keys: DomainKeys, profile: Hashing, data: bytes = b"a small text", random: bytes = RANDOM) -> bytes:
    return seal_object(keys, profile, "commit", NAME, STORE, data, random)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "blake3",
            "4b534f310700000050a9af98b861e59ad4069058fd417e473bae8a815e7ecfb2734a715a4a5387c0"
            "cd7f431f062da14903525cb4361702232a3cbcaa69911de80935efcd",
        ),
        (
            "hmac-sha256",
            "4b534f31070000000d76fe14b357ae52c4e574526c392262fc2201e8ac44dbc61a9accb6086b6498"
            "453d20f84f4f5a1d3c37317bdce8e7163e2b0716b5e2cbf9bea36229",
        ),
    ],
)
def test_sealed_object_is_pinned(keys: DomainKeys, name: str, expected: str) -> None:
    assert seal(keys, hashing(name)).hex() == expected


def test_sealed_object_opens_by_the_documented_recipe(keys: DomainKeys, profile: Hashing) -> None:
    stored = seal(keys, profile)
    magic, epoch, salt, ciphertext = stored[:4], stored[4:8], stored[8:40], stored[40:]
    parts = [STORE, b"commit", NAME.encode(), epoch]
    associated = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    key = profile.keyed(keys.metadata, b"object/v1" + salt + b"commit")

    assert magic == b"KSO1"
    assert int.from_bytes(epoch, "little") == keys.epoch
    assert AESGCM(key).decrypt(bytes(12), ciphertext, associated) == b"a small text"


@given(
    profile=st.sampled_from([Blake3Hashing(), Sha256Hashing()]),
    kind=st.text(st.characters(codec="ascii"), max_size=20),
    name=st.text(st.characters(codec="utf-8"), max_size=80),
    store_id=st.binary(max_size=32),
    data=st.binary(max_size=2000),
    random=st.binary(min_size=32, max_size=32),
)
def test_open_gives_back_what_was_sealed(
    profile: Hashing, kind: str, name: str, store_id: bytes, data: bytes, random: bytes
) -> None:
    keys = DomainKeys.from_bytes(1, bytes(range(160)))
    stored = seal_object(keys, profile, kind, name, store_id, data, random)

    assert len(stored) == len(data) + 56
    assert open_object(keys, profile, kind, name, store_id, stored) == data


def test_every_flipped_bit_is_found(keys: DomainKeys, profile: Hashing) -> None:
    stored = seal(keys, profile)
    for position in range(len(stored)):
        for bit in range(8):
            damaged = bytearray(stored)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptObject, match=NAME):
                open_object(keys, profile, "commit", NAME, STORE, bytes(damaged))


def test_every_truncation_and_an_appended_byte_are_found(keys: DomainKeys, profile: Hashing) -> None:
    stored = seal(keys, profile)
    for damaged in [*(stored[:length] for length in range(len(stored))), stored + b"\0", bytes(len(stored))]:
        with pytest.raises(CorruptObject, match=NAME):
            open_object(keys, profile, "commit", NAME, STORE, damaged)


def test_an_object_in_the_place_of_another_is_found(keys: DomainKeys, profile: Hashing) -> None:
    stored = seal(keys, profile)
    other_epoch = DomainKeys.from_bytes(8, keys.to_bytes())
    other_keys = DomainKeys.from_bytes(7, bytes(160))
    for opener, kind, name, store_id in [
        (keys, "lease", NAME, STORE),
        (keys, "commit", NAME + "1", STORE),
        (keys, "commit", NAME, bytes(16)),
        (keys, "commit" + NAME[:1], NAME[1:], STORE),
        (other_epoch, "commit", NAME, STORE),
        (other_keys, "commit", NAME, STORE),
    ]:
        with pytest.raises(CorruptObject, match=name):
            open_object(opener, profile, kind, name, store_id, stored)


def test_the_other_profile_does_not_open(keys: DomainKeys) -> None:
    stored = seal(keys, hashing("blake3"))
    with pytest.raises(CorruptObject):
        open_object(keys, hashing("hmac-sha256"), "commit", NAME, STORE, stored)


def test_repeated_chance_never_repeats_a_salt_for_another_text(keys: DomainKeys, profile: Hashing) -> None:
    # The key is made of the salt, and the nonce is fixed: two texts under one salt would lose both.
    salts = {seal(keys, profile, data)[8:40] for data in (b"a small text", b"b small text", b"")}

    assert len(salts) == 3
    assert seal(keys, profile)[8:40] != seal(keys, profile, random=bytes(32))[8:40]


def test_short_chance_is_refused(keys: DomainKeys, profile: Hashing) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        seal(keys, profile, random=bytes(31))
