# SPDX-License-Identifier: Apache-2.0
"""How a manifest names chunks: by pack and position, in runs.

A chunk's place is (pack id, position in the pack). Inside one process a place is one integer, `pack number << 32 |
position`; `PackNumbers` gives each pack id its number. In a stored node the places of consecutive chunks are runs
of three little-endian u32: index into the node's own table of pack ids, first position, count. The index
`ZERO_PACK` marks chunks that are all zeros and stored nowhere.

Why places and not chunk ids: a restore needs no index; a first backup of a disk costs a dozen runs per GiB; and
reclaim marks by filling intervals. A pack that was compacted away is found through a move record (`moves.py`).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator

from keepstone.errors import CorruptObject

__all__ = ["ZERO_PACK", "ZERO_REF", "PackNumbers", "decode_runs", "encode_runs", "expand_runs", "stored_u32s", "u32s"]

ZERO_PACK = 0xFFFFFFFF
ZERO_REF = ZERO_PACK << 32
_ID = 32
_RUN = struct.Struct("<III")
_MOST = 1 << 26  # chunks of one node: tens of TiB in one file


class PackNumbers:
    """Pack ids and their numbers in this process, in order of first appearance."""

    __slots__ = ("_numbers", "ids")

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self._numbers: dict[bytes, int] = {}

    def number(self, pack: bytes) -> int:
        """The number of this pack; a new one when it is seen for the first time."""
        numbers = self._numbers
        number = numbers.get(pack)
        if number is None:
            number = numbers.setdefault(pack, len(self.ids))
            if number == len(self.ids):
                self.ids.append(pack)
        return number

    def known(self, pack: bytes) -> int | None:
        """The number of this pack if it has one."""
        return self._numbers.get(pack)


def u32s(data: bytes) -> array[int]:
    """Little-endian u32 values out of stored bytes."""
    values = array("I")
    try:
        values.frombytes(data)
    except ValueError as error:
        raise CorruptObject("a column of a manifest node has a broken length; run `keepstone store verify`") from error
    if sys.byteorder == "big":
        values.byteswap()
    return values


def stored_u32s(values: array[int]) -> bytes:
    """The stored, little-endian form of u32 values."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def encode_runs(refs: Iterable[int], table: dict[int, int]) -> bytes:
    """The runs for these places, in order; zero chunks are given as `ZERO_REF` each.

    `table` maps pack numbers to indexes in the node's table of packs, and grows by what is new to it.
    """
    runs = array("I")
    pack = start = -1
    count = 0
    expected = -1
    for ref in refs:
        if ref == expected:
            count += 1
            if pack != ZERO_PACK:
                expected += 1
            continue
        if count:
            runs.extend((pack, start, count))
        number = ref >> 32
        if number == ZERO_PACK:
            pack, start, expected = ZERO_PACK, 0, ZERO_REF
        else:
            pack = table.setdefault(number, len(table))
            start = ref & 0xFFFFFFFF
            expected = ref + 1
        count = 1
    if count:
        runs.extend((pack, start, count))
    return stored_u32s(runs)


def decode_runs(packs: bytes, runs: bytes, numbers: PackNumbers) -> Iterator[tuple[int, int]]:
    """(first place, count) of each run.

    Raises `CorruptObject` where a run names a pack that is not in the table.
    """
    if len(packs) % _ID or len(runs) % _RUN.size:
        raise CorruptObject("a manifest node has a broken table of packs or runs; run `keepstone store verify`")
    table = [numbers.number(packs[at : at + _ID]) << 32 for at in range(0, len(packs), _ID)]
    for pack, start, count in _RUN.iter_unpack(runs):
        if pack == ZERO_PACK:
            yield ZERO_REF, count
        elif pack < len(table) and start + count <= ZERO_PACK:
            yield table[pack] + start, count
        else:
            raise CorruptObject("a manifest node names a pack that is not in its table, or a chunk past its end")


def expand_runs(runs: Iterable[tuple[int, int]]) -> list[int]:
    """Every place, one by one."""
    refs: list[int] = []
    for first, count in runs:
        if len(refs) + count > _MOST:
            raise CorruptObject("a manifest node names more chunks than any can; run `keepstone store verify`")
        if first == ZERO_REF:
            refs.extend([ZERO_REF] * count)
        else:
            refs.extend(range(first, first + count))
    return refs
