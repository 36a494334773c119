# SPDX-License-Identifier: Apache-2.0
"""A disk that is read no further when that makes no sense any more."""

from __future__ import annotations

from collections.abc import Callable

from keepstone.disks import BlockSource

__all__ = ["Checked"]


class Checked:
    """The `BlockSource` beneath; `check` is called before each read, and raises where it is to be the last."""

    def __init__(self, source: BlockSource, check: Callable[[], None]) -> None:
        self._source = source
        self._check = check
        self.size = source.size
        self.block_size = source.block_size
        self.token = source.token
        self.extents = source.extents
        self.close = source.close

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        self._check()
        return self._source.pread_into(buffer, offset)
