# SPDX-License-Identifier: Apache-2.0
"""The hash functions of a store: keyed for ids and derived keys, unkeyed for checksums.

A store uses one of two profiles for its whole life: BLAKE3, or HMAC-SHA256 and SHA-256 where only FIPS-approved
functions may be used. Every result is 32 bytes. The objects carry no state and may be shared between threads.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol

from blake3 import blake3

from keepstone.errors import UnsupportedFormat

__all__ = ["Blake3Hashing", "Buffer", "Hashing", "Sha256Hashing", "hashing"]

Buffer = bytes | bytearray | memoryview


class Hashing(Protocol):
    """One profile. `name` stands in the formats."""

    @property
    def name(self) -> str: ...

    def keyed(self, key: bytes, data: Buffer) -> bytes:
        """A pseudorandom function of `data` under a key of 32 bytes."""

    def digest(self, data: Buffer) -> bytes:
        """The unkeyed hash of `data`."""


class Blake3Hashing:
    """BLAKE3 in its keyed and its plain mode, on the calling thread only."""

    __slots__ = ()
    name = "blake3"

    def keyed(self, key: bytes, data: Buffer) -> bytes:
        return blake3(data, key=key).digest()

    def digest(self, data: Buffer) -> bytes:
        return blake3(data).digest()


class Sha256Hashing:
    """HMAC-SHA256 (RFC 2104, FIPS 198-1) and SHA-256 (FIPS 180-4)."""

    __slots__ = ()
    name = "hmac-sha256"

    def keyed(self, key: bytes, data: Buffer) -> bytes:
        return hmac.digest(key, data, "sha256")

    def digest(self, data: Buffer) -> bytes:
        return hashlib.sha256(data).digest()


_PROFILES: dict[str, Hashing] = {profile.name: profile for profile in (Blake3Hashing(), Sha256Hashing())}


def hashing(name: str) -> Hashing:
    """The profile of this name; `UnsupportedFormat` where there is none."""
    try:
        return _PROFILES[name]
    except KeyError:
        raise UnsupportedFormat(f"the hash function {name!r} is not known to this version; upgrade Keepstone") from None
