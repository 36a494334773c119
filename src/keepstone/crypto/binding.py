# SPDX-License-Identifier: Apache-2.0
"""One byte string out of several, so that no two lists of parts give the same string.

It makes the contexts, associated data and key derivation inputs of this package. Each part is preceded by its length
(u32, little-endian).
"""

from __future__ import annotations

__all__ = ["bind"]


def bind(*parts: bytes) -> bytes:
    """The parts, each with its length before it."""
    return b"".join([len(part).to_bytes(4, "little") + part for part in parts])
