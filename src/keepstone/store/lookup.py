# SPDX-License-Identifier: Apache-2.0
"""What one session sees of the chunk index: the chunks that it may refer to.

Invariants
* A hit is returned only after the footer of its pack confirmed the whole 32-byte id at that position, and never for a
  pack that is to be avoided, or was gone as the session began to look.
"""

from __future__ import annotations

from keepstone.store.index import ChunkIndex
from keepstone.store.packs import Packs
from keepstone.store.segment import prefixes

__all__ = ["Lookup"]


class Lookup:
    """Looks chunk ids up in batches. `packs`: the session's own, whose numbers are in the places; those in `avoided`
    count as absent."""

    def __init__(self, index: ChunkIndex, packs: Packs, avoided: frozenset[bytes]) -> None:
        self._packs = packs
        self._segments, there = index.refresh()
        usable = there - avoided
        number = packs.numbers.number
        self._numbers = [  # of each pack of each segment, -1 where it is not usable
            [number(pack) if pack in usable else -1 for pack in segment.packs] for segment in self._segments
        ]

    def find(self, ids: list[bytes]) -> dict[bytes, int]:
        """The places of those of these ids that the store holds, confirmed by footers."""
        found: dict[bytes, int] = {}
        if not self._segments:
            return found
        wanted = prefixes(b"".join(ids))
        for segment, numbers in zip(self._segments, self._numbers, strict=True):
            for index, place in segment.find(wanted):
                number = numbers[place >> 32] if place >> 32 < len(numbers) else -1
                identity = ids[index]
                if number >= 0 and identity not in found:
                    ref = number << 32 | place & 0xFFFFFFFF
                    if self._packs.chunk_id(ref) == identity:
                        found[identity] = ref
        return found
