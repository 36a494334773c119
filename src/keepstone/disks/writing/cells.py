# SPDX-License-Identifier: Apache-2.0
"""Which cells of a disk an image has, and where.

A cell is what the image allocates at once: a block of a VHD or VHDX, a cluster of a qcow2, a grain of a VMDK. Those
that are stored have numbers, from 0 on in the order in which they came. Four bytes are kept for each cell of a page
that has a stored one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

__all__ = ["Cells"]


class Cells:
    """In pages of `page` cells: what one table of the format describes."""

    def __init__(self, page: int) -> None:
        self.page = page
        self.stored = 0
        self._pages: dict[int, array[int]] = {}

    def take(self, cell: int) -> int:
        """The number of a cell, which is stored from now on. No two threads at once."""
        index, at = divmod(cell, self.page)
        page = self._pages.get(index)
        if page is None:
            page = self._pages[index] = array("I", bytes(4 * self.page))
        if not page[at]:
            self.stored += 1
            page[at] = self.stored
        return page[at] - 1

    def tables(self) -> list[int]:
        """Which pages have a stored cell, in ascending order."""
        return sorted(self._pages)

    def pages(self) -> Iterator[tuple[int, list[int | None]]]:
        """In ascending order the pages that have a stored cell: which one, and the numbers of its cells, None for those
        that are not stored. The last page has as many as the others."""
        for index in self.tables():
            yield index, [number - 1 if number else None for number in self._pages[index]]
