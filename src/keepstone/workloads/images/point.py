# SPDX-License-Identifier: Apache-2.0
"""The disk of a point as a disk to read from: for whoever serves, converts or looks into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keepstone.disks import Extent
from keepstone.env import Env
from keepstone.errors import UsageError
from keepstone.store import Reader
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.content import Content
from keepstone.workloads.images.browse import DiskMap
from keepstone.workloads.images.identity import identity
from keepstone.workloads.images.leaf import read_root

__all__ = ["PointDisk"]


class PointDisk:
    """A `BlockSource` over a point. Who reads on where he stopped finds what comes next fetched already.

    `cache`: bytes of chunks that are kept at most. The reader stays open behind it, and stays its owner's.
    `CorruptObject` where it is no sound point of a disk, and from every function where something of it is damaged.
    """

    def __init__(self, env: Env, reader: Reader, *, cache: int = 64 << 20) -> None:
        image, _, _ = read_root(reader, reader.root())
        self.size = image.size
        self.block_size = image.chunk
        self._reader = reader
        self._map = DiskMap(reader)
        self._chunks = ChunkCache(env, reader, cache)
        self._content = Content(self._map, self._chunks)

    def __enter__(self) -> PointDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._chunks.close()

    def token(self) -> str | None:
        """None: a point does not change."""
        return None

    def identity(self, ranges: Iterable[tuple[int, int]]) -> bytes:
        """See `identity.identity`."""
        return identity(self._reader, ranges)

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """The whole disk, whatever `since` says; what the manifest calls zero, and no chunk is read for it."""
        start = end = 0
        zero = False
        for span in self._map.spans(0, self.size):
            if (span.ref is None) != zero:
                if end > start:
                    yield Extent(start, end - start, zero)
                start, zero = end, not zero
            end += span.length
        if end > start:
            yield Extent(start, end - start, zero)

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        """As the port says; alignment does not matter. What `Content.read` raises."""
        if not 0 <= offset <= self.size:
            raise UsageError(f"the disk has no byte {offset}; it is {self.size} bytes long")
        count = 0
        for part in self._content.read(offset, len(buffer)):
            buffer[count : count + len(part)] = part
            count += len(part)
        return count
