# SPDX-License-Identifier: Apache-2.0
"""How a machine names chunks and nodes of a store that it cannot see.

Places of the store itself (`store/refs.py`) tell in which pack a chunk lies, and so whether somebody else had it
before. Here a place only repeats what the machine knows anyway:

    uploaded   the n-th chunk, or the n-th node, that it has sent in this session
    earlier    the i-th chunk, or the i-th child, of a node of the item's previous point; the node by its handle
    found      the n-th chunk that the previous points were asked for and have

A handle is a number for a node of the previous point: 0 is the point itself, whose children are its roots, any other is
a child of a handle before it (`Handles`). A place is one integer, as the workloads want it, and consecutive chunks have
consecutive places. Chunks of zeros have the store's own `ZERO_REF`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator

from keepstone.errors import CorruptObject
from keepstone.store import ZERO_REF

__all__ = [
    "EARLIER",
    "FOUND",
    "INDEX_BITS",
    "NODES",
    "UPLOADED",
    "ZEROS",
    "Handles",
    "decode_places",
    "earlier",
    "encode_places",
    "split",
]

INDEX_BITS = 26
"""A node names at most 2**26 chunks (`store/refs.py`)."""
UPLOADED, NODES, FOUND, EARLIER = 0, 1 << 61, 1 << 60, 1 << 62
"""The beginnings of the ranges of places; `EARLIER` also of those of children, with `NODES` on top of it."""
_INDEX = (1 << INDEX_BITS) - 1
_RUN = struct.Struct("<III")
ZEROS = 0xFFFFFFFF
_UPLOADED, _FOUND, _FIRST_HANDLE = 0, 1, 2  # what the first number of a run means on the wire


def earlier(handle: int, index: int, *, child: bool = False) -> int:
    """The place of a chunk, or a child, of the node with this handle."""
    return EARLIER | (NODES if child else 0) | handle << INDEX_BITS | index


def split(place: int) -> tuple[int, int]:
    """(handle, index) of a place of the previous point."""
    return (place & ~(EARLIER | NODES)) >> INDEX_BITS, place & _INDEX


class Handles:
    """The nodes of the previous point that this session has met, and which of them the other side knows by now."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}  # by the place of the node, its handle
        self._parents = array("Q", [0])
        self._indexes = array("I", [0])
        self._told: dict[int, int] = {0: 0}

    def of(self, place: int) -> int:
        """The handle of the node at a place of the previous point."""
        handle = self._numbers.get(place)
        if handle is None:
            if not place & EARLIER or not place & NODES:
                raise CorruptObject("a manifest names a chunk where a node has to be; run `keepstone store verify`")
            handle = len(self._parents)
            self._numbers[place] = handle
            above, index = split(place)
            self._parents.append(above)
            self._indexes.append(index)
        return handle

    def above(self, handle: int) -> tuple[int, int]:
        """(the handle of the node above, which child of it this one is)."""
        return self._parents[handle], self._indexes[handle]

    def path(self, handle: int) -> list[int]:
        """The way to a node from the point: which child of which child it is."""
        path = []
        while handle:
            path.append(self._indexes[handle])
            handle = self._parents[handle]
        return path[::-1]

    def number(self, handle: int, tell: list[tuple[int, int]]) -> int:
        """What the other side calls this handle. What it has to be told before that is appended to `tell`: (its number
        of the node above, which child of it)."""
        way = []
        while handle not in self._told:
            way.append(handle)
            handle = self._parents[handle]
        number = self._told[handle]
        for below in reversed(way):  # not by recursion: trees are deeper than Python's stack
            tell.append((number, self._indexes[below]))
            number = self._told[below] = len(self._told)
        return number


def encode_places(places: Iterable[int], handles: Handles, tell: list[tuple[int, int]]) -> bytes:
    """Places as runs of three u32: of what, the first, how many."""
    runs = bytearray()
    expected = first = -1
    count = 0
    for place in places:
        if place == expected:
            count += 1
            expected += place != ZERO_REF
            continue
        if count:
            runs += _run(first, count, handles, tell)
        first, count = place, 1
        expected = place if place == ZERO_REF else place + 1
    if count:
        runs += _run(first, count, handles, tell)
    return bytes(runs)


def _run(first: int, count: int, handles: Handles, tell: list[tuple[int, int]]) -> bytes:
    if first == ZERO_REF:
        return _RUN.pack(ZEROS, 0, count)
    if first & EARLIER:
        handle, index = split(first)
        return _RUN.pack(_FIRST_HANDLE + handles.number(handle, tell), index, count)
    if first & FOUND:
        return _RUN.pack(_FOUND, first & ~FOUND, count)
    return _RUN.pack(_UPLOADED, first & ~NODES, count)


def decode_places(runs: bytes) -> Iterator[tuple[int, int, int]]:
    """(`ZEROS`, 0, count), (`UPLOADED`, first, count), (`FOUND`, first, count) or (`EARLIER` | number of the handle,
    first, count) of each run. `CorruptObject` where it is none."""
    if len(runs) % _RUN.size:
        raise CorruptObject("a list of places has a broken length")
    for of, first, count in _RUN.iter_unpack(runs):
        if first + count > 1 << 32 or not count:
            raise CorruptObject("a list of places names what cannot be")
        if of == ZEROS:
            yield ZEROS, 0, count
        elif of == _UPLOADED:
            yield UPLOADED, first, count
        elif of == _FOUND:
            yield FOUND, first, count
        else:
            yield EARLIER | of - _FIRST_HANDLE, first, count
