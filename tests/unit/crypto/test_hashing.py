# SPDX-License-Identifier: Apache-2.0
"""Hash profiles against the published vectors of their functions."""

from __future__ import annotations

import pytest

from keepstone.crypto import Blake3Hashing, Hashing, Sha256Hashing, hashing
from keepstone.errors import UnsupportedFormat

pytestmark = pytest.mark.store

PROFILES = [Blake3Hashing(), Sha256Hashing()]


def test_blake3_gives_the_published_vectors() -> None:
    # test_vectors.json of the BLAKE3 team, input lengths 0 and 1
    profile = hashing("blake3")
    key = b"whats the Elvish word for friend"

    assert profile.digest(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert profile.digest(b"\0").hex() == "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"
    assert profile.keyed(key, b"").hex() == "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"
    assert profile.keyed(key, b"\0").hex() == "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b"


def test_sha256_gives_the_published_vectors() -> None:
    # FIPS 180-4 example "abc"; RFC 4231, test case 1
    profile = hashing("hmac-sha256")

    assert profile.digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (
        profile.keyed(b"\x0b" * 20, b"Hi There").hex()
        == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )


def test_profiles_take_every_buffer(profile: Hashing) -> None:
    key = bytes(32)
    results = {profile.keyed(key, buffer) for buffer in (b"text", bytearray(b"text"), memoryview(b"text"))}

    assert len(results) == 1
    assert len(results.pop()) == 32


def test_profile_is_found_by_its_own_name(profile: Hashing) -> None:
    assert hashing(profile.name) is profile


@pytest.mark.parametrize("name", ["", "md5", "BLAKE3", "sha256"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedFormat, match="upgrade Keepstone"):
        hashing(name)
