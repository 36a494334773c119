# SPDX-License-Identifier: Apache-2.0
"""A disk as backup and restore see it, wherever it is: sized, read and written by ranges.

Offsets, lengths and sizes are in bytes. Reads and writes may come from several threads at once. The last range may be
shorter than a block; all others begin and end on blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from keepstone.objects import Buffer

__all__ = ["BlockSink", "BlockSource", "Extent"]


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of a disk; `zero`: all its bytes are known to be zero, nobody needs to read them."""

    offset: int
    length: int
    zero: bool

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.length


class BlockSource(Protocol):
    """A disk that does not change while it is read."""

    @property
    def size(self) -> int:
        """Length of the disk."""

    @property
    def block_size(self) -> int:
        """Granularity of change tracking, and of `extents`."""

    def token(self) -> str | None:
        """Names this state for the next incremental; None where the disk does not track changes."""

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """In ascending order, without overlap: the whole disk, or what changed `since` the state of that token.

        A token that is not known gives the whole disk, never a guess.
        """

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`, as far as the disk goes; the number of bytes.

        Fast where offset and buffer are page aligned and the buffer is whole pages, also for the last range.
        `SourceFailed` where the disk cannot be read or ends before its size.
        """

    def close(self) -> None:
        """Let go of the disk; harmless when repeated."""


class BlockSink(Protocol):
    """A disk that is being restored. Each range is given once; what is given by nobody has any content."""

    @property
    def size(self) -> int:
        """Length of the disk."""

    def write(self, offset: int, data: Buffer) -> None:
        """Put `data` at `offset`; fast where both and the length are whole pages."""

    def zero(self, offset: int, length: int) -> None:
        """Make this range read as zeros, without storing them where that is possible."""

    def finish(self) -> None:
        """All of it is durable on return."""

    def abort(self) -> None:
        """Give up, and remove what was created. Harmless after `finish` and when repeated."""
