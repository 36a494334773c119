# SPDX-License-Identifier: Apache-2.0
"""The chunks of a store by ordinals: dense numbers for tables with a row for each chunk.

An ordinal is the base of a chunk's pack and its position there. Packs that were compacted have theirs first, and where
their chunks are now is looked up at once: what is given out names each chunk by the place where it lies.

A chunk's stored bytes are its share of its frame and its row in the footer, 36 bytes. The share is in proportion to raw
lengths, rounded such that the shares of a frame add up to it. What else is in a pack (its header, its trailer, and in
the footer what there is of frames) is nobody's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from keepstone.errors import CorruptObject, KeepstoneError
from keepstone.store.commits import MoveRecord
from keepstone.store.context import Context
from keepstone.store.footer import Footer
from keepstone.store.layout import pack_name
from keepstone.store.moves import Moves
from keepstone.store.node import Node, decode_node
from keepstone.store.packs import Packs
from keepstone.store.refs import ZERO_PACK, PackNumbers

__all__ = ["Array", "Ordinals"]

Array = npt.NDArray[np.int64]

_BLOCK = 1 << 18  # chunks that are given out together, and at most a pack's more
_ID, _RUN = 32, 12
_ROW = 4 + 32  # length and id in the footer
_GONE = -1


class Ordinals:
    """`shares`: stored bytes by ordinal. `stored`: bytes of all packs. `problem` is told what is damaged or missing;
    it is left out."""

    def __init__(
        self, context: Context, records: Iterable[MoveRecord], problem: Callable[[KeepstoneError], None]
    ) -> None:
        self._problem = problem
        self._numbers = PackNumbers()
        self._packs = Packs(context, self._numbers)
        self._moves = Moves(self._numbers, records)
        self._bases: list[int] = []
        self._names: list[bytes] = []  # of the packs, in the order of their bases
        self._places: dict[bytes, tuple[int, int]] = {}  # base and chunks of each pack
        sizes = dict(self._packs.listing())
        self.stored = sum(sizes.values())
        self.shares = self._cover(sizes)
        self._now = self._resolved(sizes)

    def _cover(self, sizes: dict[bytes, int]) -> npt.NDArray[np.uint32]:
        moved = {self._numbers.ids[number]: chunks for number, (chunks, _, _) in self._moves.old.items()}
        shares = [np.zeros(0, np.uint32)]
        at = 0
        for pack in (*moved, *(pack for pack in sizes if pack not in moved)):
            found = self._read(pack, moved.get(pack)) if pack in sizes else None
            if found is None and pack in moved:
                found = np.zeros(moved[pack], np.uint32)
            if found is not None:
                self._bases.append(at)
                self._names.append(pack)
                self._places[pack] = at, len(found)
                shares.append(found)
                at += len(found)
        return np.concatenate(shares)

    def _read(self, pack: bytes, expected: int | None) -> npt.NDArray[np.uint32] | None:
        try:
            footer = self._packs.footer(pack)
            if expected not in (None, footer.chunks):
                raise CorruptObject(f"{pack_name(pack)} has other chunks than were moved; run `keepstone store verify`")
        except KeepstoneError as error:
            self._problem(error)
            return None
        return _shares(footer)

    def _resolved(self, there: Iterable[bytes]) -> Array:
        """Where each chunk of the packs that were compacted is now."""
        count = sum(chunks for chunks, _, _ in self._moves.old.values())
        now = np.full(count, _GONE, np.int64)
        for pack in there:
            base, chunks = self._places.get(pack, (count, 0))
            if base < count:
                now[base : base + chunks] = np.arange(base, base + chunks)
        for number, (_, starts, targets) in self._moves.old.items():
            base, _ = self._places[self._numbers.ids[number]]
            for start, (length, first) in zip(starts, targets, strict=True):
                to, chunks = self._places.get(self._numbers.ids[first >> 32], (0, 0))
                position = first & 0xFFFFFFFF
                fits = position + length <= chunks
                now[base + start : base + start + length] = np.arange(length) + to + position if fits else _GONE
        for _ in self._moves.old:  # what was moved again and again
            again = (now != _GONE) & (now < count)
            now[again] = now[now[again]]
        return now

    def node(self, ordinal: int) -> Node:
        """The node that this chunk is. Raises what reading it raises."""
        at = bisect_right(self._bases, ordinal) - 1
        number = self._numbers.number(self._names[at])
        return decode_node(self._packs.chunk(number << 32 | ordinal - self._bases[at]))

    def named(self, parts: list[tuple[bytes, bytes]]) -> Iterator[Array]:
        """The chunks that nodes name, each by its table of packs and its runs; in blocks, and in a block each once."""
        sound = [part for part in parts if self._is_sound(*part)]
        tables = [[self._place(packs[at : at + _ID]) for at in range(0, len(packs), _ID)] for packs, _ in sound]
        places = np.array([place for table in tables for place in table] or [(0, 0)], np.int64)
        sizes = np.array([len(table) for table in tables], np.int64)
        runs = np.frombuffer(b"".join([runs for _, runs in sound]), "<u4").reshape(-1, 3).astype(np.int64)
        counts = [len(runs) // _RUN for _, runs in sound]
        table, size = np.repeat(np.cumsum(sizes) - sizes, counts), np.repeat(sizes, counts)
        data = (runs[:, 0] != ZERO_PACK) & (runs[:, 2] > 0)
        known = data & (runs[:, 0] < size)
        index, position, length = runs[known].T
        base, chunks = places[index + table[known]].T
        fits = position + length <= chunks
        if (data & ~known).any() or (~fits & (chunks > 0)).any():
            self._problem(CorruptObject("a manifest node names chunks that there never were"))
        yield from self._expanded((base + position)[fits], length[fits])

    def _is_sound(self, packs: bytes, runs: bytes) -> bool:
        if len(packs) % _ID == 0 and len(runs) % _RUN == 0:
            return True
        self._problem(CorruptObject("a manifest node has a broken table of packs or runs"))
        return False

    def _place(self, pack: bytes) -> tuple[int, int]:
        place = self._places.get(pack)
        if place is None:
            self._problem(CorruptObject(f"{pack_name(pack)} is gone or damaged, and a manifest needs it"))
        return place or (0, 0)

    def _expanded(self, begin: Array, length: Array) -> Iterator[Array]:
        """Every chunk of these runs, which may lie over one another."""
        order = np.argsort(begin, kind="stable")
        begin = begin[order]
        end = np.maximum.accumulate(begin + length[order])
        first = np.ones(len(begin), bool)
        first[1:] = begin[1:] >= end[:-1]
        begin, end = begin[first], end[np.append(first[1:], True)[: len(end)]]
        length = end - begin
        total = np.cumsum(length)
        at = 0
        while at < len(begin):
            stop = max(at + 1, int(np.searchsorted(total, total[at] - length[at] + _BLOCK, "right")))
            some = length[at:stop]
            yield self._moved(np.repeat(begin[at:stop] - np.cumsum(some) + some, some) + np.arange(some.sum()))
            at = stop

    def _moved(self, ordinals: Array) -> Array:
        """Where these are now, each once."""
        old = ordinals < len(self._now)
        if not old.any():
            return ordinals
        now = ordinals.copy()
        now[old] = self._now[ordinals[old]]
        for gone in ordinals[now == _GONE].tolist()[:1]:  # one says enough
            at = bisect_right(self._bases, gone) - 1
            name = pack_name(self._names[at])
            self._problem(CorruptObject(f"chunk {gone - self._bases[at]} of {name} is gone, and a manifest needs it"))
        found: Array = np.unique(now[now != _GONE])
        return found


def _shares(footer: Footer) -> npt.NDArray[np.uint32]:
    """The stored bytes of each chunk of a pack."""
    lengths, raw, stored, first = (
        np.asarray(column, np.int64)
        for column in (footer.chunk_lengths, footer.frame_raw, footer.frame_lengths, footer.first_chunk)
    )
    counts = first[1:] - first[:-1]
    end = np.cumsum(lengths) - np.repeat(np.cumsum(raw) - raw, counts)  # within the frame
    stored, raw = np.repeat(stored, counts), np.repeat(np.maximum(raw, 1), counts)
    return (stored * end // raw - stored * (end - lengths) // raw + _ROW).astype(np.uint32)
