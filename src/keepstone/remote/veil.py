# SPDX-License-Identifier: Apache-2.0
"""What a machine does to its data before a service sees it: nothing (`Plain`), or all of it (`sealed.Sealed`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from keepstone.crypto import Hashing
from keepstone.store import cut_file
from keepstone.store.frame import Frame, compressed

__all__ = ["Parcel", "Plain", "Veil"]


@dataclass(frozen=True, slots=True)
class Parcel(Frame):
    """A frame whose chunks the service knows by other ids and lengths than the machine does."""

    wire_ids: list[bytes]
    wire_lengths: list[int]


class Veil(Protocol):
    """Between a workload and the wire."""

    def cut(self, data: memoryview, last: bool) -> list[int]:
        """Where a file is cut into chunks; see `store.Writer.cut`."""

    def identify(self, chunk: bytes | memoryview) -> bytes:
        """The chunk's id on this machine."""

    def derive(self, text: bytes) -> bytes:
        """A secret of this text, 32 bytes."""

    def frame(
        self, level: int, data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool = False
    ) -> Parcel:
        """Chunks as they go to the service. `sample`: those before did not get smaller; see `store.compressed`."""

    def close(self, detail: bytes, roots: bytes) -> bytes:
        """What only this machine needs of its point; `roots`: the names of its root nodes, 32 bytes each, as far as
        they have any."""

    def open(self, detail: bytes) -> tuple[bytes, bytes]:
        """The inverse. `CorruptObject`."""


class Plain:
    """The service sees what it keeps, and seals it itself."""

    cut = staticmethod(cut_file)

    def __init__(self, hashing: Hashing, id_key: bytes) -> None:
        self._hashing = hashing
        self._id_key = id_key

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._hashing.keyed(self._id_key, chunk)

    def derive(self, text: bytes) -> bytes:
        return self._hashing.keyed(self._id_key, text)

    def frame(
        self, level: int, data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool = False
    ) -> Parcel:
        payload, codec = compressed(level, data, sample=sample)
        return Parcel(payload, codec, len(data), b"", ids, lengths, ids, lengths)  # its digest is the service's to make

    def close(self, detail: bytes, roots: bytes) -> bytes:
        return detail

    def open(self, detail: bytes) -> tuple[bytes, bytes]:
        return detail, b""
