# SPDX-License-Identifier: Apache-2.0
"""Message authentication codes of numbered blocks, four times as fast as a hash: GMAC (NIST SP 800-38D).

    code = the tag of AES-256-GCM of no text: nonce = the block's number, u96 little-endian; associated data = the block

Without the key, the chance that another block of n bytes fits a code is at most (n / 16 + 1) / 2^128: 2^-113 for
256 KiB. Whoever has the key can make such blocks, which a hash does not allow: a code says that a holder of the key has
seen this block, and never stands for a block itself.

Invariant: under one key no number is used for two blocks, or two codes would tell the key.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto.hashing import Buffer

__all__ = ["BlockMac"]


class BlockMac:
    """Codes under a key of 32 bytes. Safe for several threads, which do not wait for one another."""

    __slots__ = ("_cipher",)

    SIZE = 16
    LAST = 2**96 - 1
    """The greatest number."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def of(self, number: int, block: Buffer) -> bytes:
        """The code of a block, `SIZE` bytes."""
        return self._cipher.encrypt(number.to_bytes(12, "little"), b"", block)

    def fits(self, code: bytes, number: int, block: Buffer) -> bool:
        """Whether this is the block's code."""
        return hmac.compare_digest(code, self.of(number, block))
