# SPDX-License-Identifier: Apache-2.0
"""qcow2, version 3, clusters of 64 KiB. Source: docs/interop/qcow2.txt of QEMU. Big-endian.

The header, the data in the order in which it came, then L2 tables, the L1 table, refcount blocks and their table. A
cluster that is absent reads as zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from keepstone.disks.writing.cells import Cells
from keepstone.disks.writing.file import Piece
from keepstone.disks.writing.sink import whole
from keepstone.env import Env

__all__ = ["LIMIT", "Qcow2"]

LIMIT = 128 << 40
"""Keeps the numbers of clusters below 2³², and the L1 table far below the 32 MiB that QEMU takes."""

_BITS = 16
_CLUSTER = 1 << _BITS
_ONCE = 1 << 63  # "copied": the cluster's refcount is one


def _clusters(count: int) -> int:
    return -(-count // _CLUSTER)


class Qcow2:
    """One file, no backing file, no snapshots; refcounts of 16 bits."""

    cell = _CLUSTER
    page = _CLUSTER // 8

    def __init__(self, env: Env, size: int) -> None:
        self.size = whole(size, 512)
        self._pages = -(-self.size // (self.cell * self.page))

    def place(self, number: int) -> int:
        return (1 + number) * _CLUSTER

    def length(self, cells: Cells) -> int:
        return self._map(cells).clusters * _CLUSTER

    def body(self, cells: Cells) -> Iterator[Piece]:
        places = self._map(cells)
        index = [0] * self._pages
        offset = places.tables * _CLUSTER
        for page, numbers in cells.pages():
            entries = (0 if number is None else self.place(number) | _ONCE for number in numbers)
            yield offset, struct.pack(f">{self.page}Q", *entries)
            index[page] = offset | _ONCE
            offset += _CLUSTER
        yield places.index * _CLUSTER, struct.pack(f">{len(index)}Q", *index)
        for block in range(places.blocks):
            counted = min(places.clusters - block * _CLUSTER // 2, _CLUSTER // 2)
            yield (places.counts + block) * _CLUSTER, b"\0\1" * counted
        blocks = ((places.counts + block) * _CLUSTER for block in range(places.blocks))
        yield places.directory * _CLUSTER, struct.pack(f">{places.blocks}Q", *blocks)

    def head(self, cells: Cells) -> Iterator[Piece]:
        places = self._map(cells)
        yield (
            0,
            struct.pack(
                ">4sIQIIQIIQQIIQQQQII",
                b"QFI\xfb",
                3,
                0,  # no backing file
                0,
                _BITS,
                self.size,
                0,  # not encrypted
                self._pages,
                places.index * _CLUSTER,
                places.directory * _CLUSTER,
                places.directories,
                0,  # no snapshots
                0,
                0,  # no features
                0,
                0,
                4,  # refcounts of 2⁴ bits
                104,
            ),
        )

    def _map(self, cells: Cells) -> _Map:
        return _Map(cells.stored, len(cells.tables()), self._pages)


class _Map:
    """Where in the file what stands, in clusters: L2 `tables`, L1 `index`, refcount blocks (`counts`) and their
    `directory`."""

    def __init__(self, stored: int, tables: int, pages: int) -> None:
        self.tables = 1 + stored
        self.index = self.tables + tables
        self.counts = self.index + max(1, _clusters(8 * pages))
        self.blocks = self.directories = 1
        while True:  # what counts is counted too
            self.clusters = self.counts + self.blocks + self.directories
            blocks = -(-2 * self.clusters // _CLUSTER)
            directories = _clusters(8 * blocks)
            if (blocks, directories) == (self.blocks, self.directories):
                break
            self.blocks, self.directories = blocks, directories
        self.directory = self.counts + self.blocks
