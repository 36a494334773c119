# SPDX-License-Identifier: Apache-2.0
"""Reading every byte of a pack: checksum, frames, chunk ids."""

from __future__ import annotations

import threading
from collections.abc import Callable

from keepstone.errors import CorruptObject
from keepstone.objects import aligned
from keepstone.store.context import Context
from keepstone.store.footer import HEADER_SIZE, TRAILER_SIZE, Footer, parse_trailer
from keepstone.store.layout import pack_name
from keepstone.store.packs import Packs

__all__ = ["Scrubber"]

_READ = 8 << 20
_PAGE = 4096
_BEFORE_CHECKSUM = TRAILER_SIZE - 40


class Scrubber:
    """Safe for several threads; each has a buffer of its own."""

    def __init__(self, context: Context, packs: Packs) -> None:
        self._context = context
        self._packs = packs
        self._local = threading.local()

    def scrub(self, pack: bytes, size: int) -> int:
        """Read a pack of `size` bytes whole; the bytes of chunks in it. `CorruptObject`, `ObjectMissing`."""
        name = pack_name(pack)
        footer = self._packs.footer(pack)
        storage = self._context.storage
        checksum = self._context.hashing.stream()
        checksum.update(storage.read(name, 0, HEADER_SIZE))
        frame = 0
        while frame < footer.frames:
            last = frame
            while last + 1 < footer.frames and footer.offsets[last + 2] - footer.offsets[frame] <= _READ:
                last += 1
            self._span(footer, frame, last, checksum.update)
            frame = last + 1
        rest = storage.read(name, footer.offsets[footer.frames])
        checksum.update(rest[:-_BEFORE_CHECKSUM])
        length, _, expected = parse_trailer(rest[-TRAILER_SIZE:], name)
        if footer.offsets[footer.frames] + length + TRAILER_SIZE != size:
            raise CorruptObject(f"{name} has bytes that belong to nothing; restore it from a copy")
        if checksum.digest() != expected:
            raise CorruptObject(f"{name} does not match its checksum; restore it from a copy")
        return footer.raw_bytes

    def _span(self, footer: Footer, first: int, last: int, update: Callable[[memoryview], object]) -> None:
        begin, end = footer.offsets[first], footer.offsets[last + 1]
        skip = begin % _PAGE
        size = -(-(end - begin + skip) // _PAGE) * _PAGE
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._local.buffer = aligned(max(size, _READ + 2 * _PAGE))
        name = pack_name(footer.pack)
        if self._context.storage.read_into(name, begin - skip, buffer[:size]) < end - begin + skip:
            raise CorruptObject(f"{name} is shorter than its footer says; restore it from a copy")
        update(buffer[skip : skip + end - begin])
        for frame in range(first, last + 1):
            at = footer.offsets[frame] - begin + skip
            data = memoryview(self._packs.open_sealed(footer, frame, buffer[at : at + footer.frame_lengths[frame]]))
            offsets = footer.chunk_offsets(frame)
            if offsets[-1] != len(data):
                raise CorruptObject(
                    f"frame {frame} of {name} has another length than its chunks; restore it from a copy"
                )
            for index, position in enumerate(range(footer.first_chunk[frame], footer.first_chunk[frame + 1])):
                self._packs.check_id(footer, position, data[offsets[index] : offsets[index + 1]])
