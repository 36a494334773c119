# SPDX-License-Identifier: Apache-2.0
"""The chunk index: which chunks the store already holds, and where.

The authority is the packs' footers; this is a cache of them in sorted segments (`segment.py`) that a machine keeps
outside the store and can lose at any time. `refresh` lists the packs and reads the footers of those that no segment
covers.

Invariants
* A hit is returned only after the footer of its pack confirmed the whole 32-byte id at that position, and never for
  a pack that is
  condemned or gone at the time of `refresh`.
* Private memory does not grow with the store: segments are mapped, footers are cached up to a bound.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from pathlib import Path

from keepstone.errors import CorruptObject, ObjectMissing, StorageError
from keepstone.store.context import Context
from keepstone.store.footer import DATA
from keepstone.store.packs import Packs
from keepstone.store.segment import Column, Segment, merge_segments, prefixes, read_segment, write_segment

__all__ = ["ChunkIndex"]

_SUFFIX = ".segment"
_MERGE_AT = 6  # segments; then the smaller half becomes one
_BATCH = 1 << 20  # chunk ids gathered from footers before they are sorted into a segment


class ChunkIndex:
    """Looks chunk ids up in batches. `folder` holds the cached segments; None keeps them in memory only."""

    def __init__(self, context: Context, packs: Packs, folder: Path | None) -> None:
        self._context = context
        self._packs = packs
        self._folder = folder
        self._segments: list[Segment] = []
        self._numbers: list[
            list[int]
        ] = []  # per segment: the process-wide number of each of its packs, -1 where unusable

    def refresh(self, condemned: frozenset[bytes]) -> None:
        """Cover every pack that is in the store now; packs in `condemned` count as absent."""
        there = {pack for pack, _ in self._packs.listing()}
        segments = self._load(there)
        covered = {pack for segment in segments for pack in segment.packs}
        missing = sorted(there - covered)
        segments += self._read_footers(missing)
        if len(segments) > _MERGE_AT and self._folder is not None:
            segments = self._merge(segments, there)
        usable = there - condemned
        numbers = self._packs.numbers
        self._segments = segments
        self._numbers = [
            [numbers.number(pack) if pack in usable else -1 for pack in segment.packs] for segment in segments
        ]

    def __len__(self) -> int:
        """How many hints there are; about the number of chunks in the store."""
        return sum(len(segment) for segment in self._segments)

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

    def clear(self) -> None:
        """Forget the cached segments; the next `refresh` reads every footer."""
        self._segments, self._numbers = [], []
        for path in self._paths():
            os.unlink(path)

    def _paths(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)

    def _load(self, there: set[bytes]) -> list[Segment]:
        mapped = [(path, read_segment(self._context.env, str(path))) for path in self._paths()]
        mapped.sort(key=lambda pair: len(pair[1].packs) if pair[1] is not None else 0, reverse=True)
        loaded = []
        seen: set[bytes] = set()
        for path, segment in mapped:  # the larger first: what was merged into one of them is then seen to be
            if segment is None or not there.intersection(segment.packs) or seen.issuperset(segment.packs):
                path.unlink(missing_ok=True)  # damaged, of packs that are gone, or merged
                continue
            seen.update(segment.packs)
            loaded.append(segment)
        if self._folder is None:
            loaded = [segment for segment in self._segments if there.intersection(segment.packs)]
        return loaded

    def _read_footers(self, missing: list[bytes]) -> list[Segment]:
        segments: list[Segment] = []
        packs: list[bytes] = []
        ids = bytearray()
        places = array("Q")

        def close() -> None:
            if packs:
                segments.append(self._keep(Segment.build(list(packs), ids, places)))
            packs.clear()
            del places[:]
            ids.clear()

        for pack in missing:
            try:
                footer = self._packs.footer(pack)
            except (ObjectMissing, CorruptObject, StorageError):
                continue  # reclaimed since it was listed, or damaged: nobody can refer to it
            if footer.kind == DATA:
                first = len(packs) << 32
                places.extend(range(first, first + footer.chunks))
                ids += footer.ids
            packs.append(pack)
            if len(ids) >= 32 * _BATCH:
                close()
        close()
        return segments

    def _keep(self, segment: Segment) -> Segment:
        return self._store(segment.packs, len(segment), [(segment.prefix, segment.place)]) or segment

    def _store(self, packs: list[bytes], rows: int, parts: Iterable[tuple[Column, Column]]) -> Segment | None:
        if self._folder is None:
            return None
        path = str(self._folder / f"{self._context.env.random(8).hex()}{_SUFFIX}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_segment(self._context.env, path, packs, rows, parts)
        except OSError:
            return None  # a cache that cannot be written is no reason to fail
        return read_segment(self._context.env, path)

    def _merge(self, segments: list[Segment], there: set[bytes]) -> list[Segment]:
        segments = sorted(segments, key=len)
        small, large = segments[: len(segments) - 1], segments[-1:]
        if sum(map(len, small)) * 2 > len(large[0]):
            small, large = segments, []
        dead = {pack for segment in small for pack in segment.packs if pack not in there}
        packs, rows, parts = merge_segments(small, dead)
        merged = self._store(packs, rows, parts)
        return segments if merged is None else [*large, merged]
