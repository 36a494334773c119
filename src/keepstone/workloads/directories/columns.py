# SPDX-License-Identifier: Apache-2.0
"""Names and columns of numbers: how the entries of a directory stand in a page, and where a long directory is cut."""

from __future__ import annotations

import struct
from functools import cache

__all__ = ["COLUMNS", "DIRECTORY", "PAGE_ENTRIES", "REGULAR", "SYMLINK", "layout", "split_names"]

PAGE_ENTRIES = 4096
COLUMNS = "IIIqqqQ"
"""Types of the columns from `modes` to `inodes`, as `array` and `struct` call them."""
REGULAR, DIRECTORY, SYMLINK = 0o10, 0o04, 0o12
"""Kinds of entries: the type bits of st_mode, shifted."""


@cache
def layout(count: int) -> struct.Struct:
    """A table of so many entries: the columns, one behind the other; its values are those of the first column, then
    those of the second, and so on."""
    return struct.Struct("<" + "".join(f"{count}{code}" for code in COLUMNS))


def split_names(names: bytes) -> list[bytes]:
    """The names of a page: one behind the other, each ended by a NUL byte."""
    return names.split(b"\0")[:-1]
