# SPDX-License-Identifier: Apache-2.0
"""The columns of a page from `modes` to `inodes`, one behind the other in one byte string.

So a directory is compared with the parent's in one step, and made by one call.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence

from keepstone.workloads.directories.columns import COLUMNS, layout
from keepstone.workloads.files.page import Extra, Page, column, stored

__all__ = ["kinds", "picked", "restated", "table_of", "to_page"]


def kinds(table: bytes, count: int) -> list[int]:
    """The kinds of its entries."""
    return [mode >> 12 for mode in column("I", table[: 4 * count], count)]


def table_of(page: Page) -> bytes:
    """The table of a stored page."""
    return b"".join((page.modes, page.uids, page.gids, page.sizes, page.mtimes, page.ctimes, page.inodes))


def to_page(names: bytes, table: bytes, counts: Sequence[int], extras: dict[int, Extra]) -> Page:
    """A page of these names."""
    columns = []
    begin = 0
    for code in COLUMNS:
        end = begin + len(counts) * struct.calcsize("<" + code)
        columns.append(table[begin:end])
        begin = end
    modes, uids, gids, sizes, mtimes, ctimes, inodes = columns
    return Page(names, modes, uids, gids, sizes, mtimes, ctimes, inodes, stored("I", counts), extras)


def picked(table: bytes, count: int, rows: Sequence[int]) -> bytes:
    """Only these of `count` entries."""
    values = layout(count).unpack(table)
    return layout(len(rows)).pack(*(values[at + row] for at in range(0, len(values), count) for row in rows))


def restated(table: bytes, count: int, changes: Mapping[int, tuple[os.stat_result, int]]) -> bytes:
    """With another status and size of some entries."""
    values = list(layout(count).unpack(table))
    for index, (status, size) in changes.items():
        values[index::count] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
        )
    return layout(count).pack(*values)
