# SPDX-License-Identifier: Apache-2.0
"""The ids of what a session has sent, by their numbers.

In blocks: a single buffer of a million ids would be copied each time it grows, and so take its memory twice.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Identities"]

_ID = 32
_BLOCK = 1 << 20  # bytes


class Identities:
    """One thread appends; any may look."""

    def __init__(self) -> None:
        self._blocks: list[bytearray] = []

    def __len__(self) -> int:
        return ((len(self._blocks) - 1) * _BLOCK + len(self._blocks[-1])) // _ID if self._blocks else 0

    def extend(self, ids: Sequence[bytes]) -> None:
        """The next ones, 32 bytes each."""
        rows = memoryview(b"".join(ids))
        while rows:
            if not self._blocks or len(self._blocks[-1]) == _BLOCK:
                self._blocks.append(bytearray())
            block = self._blocks[-1]
            room = _BLOCK - len(block)
            block += rows[:room]
            rows = rows[room:]

    def find(self, number: int) -> bytes:
        """The id of this number; empty where there is none."""
        block, at = divmod(_ID * number, _BLOCK)
        return bytes(self._blocks[block][at : at + _ID]) if block < len(self._blocks) else b""
