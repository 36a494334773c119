# SPDX-License-Identifier: Apache-2.0
"""A disk under a name, as a server offers it: to be read, or with an overlay to be written too."""

from __future__ import annotations

from collections.abc import Iterator

from keepstone.disks.nbd.allocation import Allocation
from keepstone.disks.nbd.overlay import Overlay
from keepstone.disks.nbd.protocol import Transmission
from keepstone.disks.port import BlockSource

__all__ = ["Export"]

_ALWAYS = Transmission.HAS_FLAGS | Transmission.CAN_MULTI_CONN | Transmission.SEND_FLUSH
# All connections see one overlay at once; nothing of it is durable, and nobody is told that it is.
_WRITABLE = _ALWAYS | Transmission.SEND_FUA | Transmission.SEND_TRIM | Transmission.SEND_WRITE_ZEROES


class Export:
    """Safe for several threads, as its source has to be; source and overlay stay their owner's."""

    def __init__(self, name: str, source: BlockSource, overlay: Overlay | None = None) -> None:
        self.name = name
        self.size = source.size
        self.overlay = overlay
        self._source = source
        self._allocation = Allocation(source) if overlay is None else overlay

    @property
    def flags(self) -> Transmission:
        """What a client may do with it ("Transmission flags")."""
        return _ALWAYS | Transmission.READ_ONLY if self.overlay is None else _WRITABLE

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        """As `BlockSource.pread_into`."""
        return (self.overlay or self._source).pread_into(buffer, offset)

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """As `Allocation.runs`."""
        return self._allocation.runs(offset, length)
