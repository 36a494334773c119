# SPDX-License-Identifier: Apache-2.0
"""Reading every byte of a pack: frames, chunk ids, checksum.

Damage ends nothing: where a frame cannot be read or opened the next one is, so that all that is lost is known, chunk
by chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keepstone.crypto import Checksum
from keepstone.errors import CorruptObject, KeepstoneError, StorageError
from keepstone.objects import aligned
from keepstone.store.context import Context
from keepstone.store.footer import HEADER_SIZE, TRAILER_SIZE, Footer, parse_trailer
from keepstone.store.layout import pack_name
from keepstone.store.packs import Packs

__all__ = ["Scrubbed", "Scrubber"]

_READ = 8 << 20
_PAGE = 4096
_BEFORE_CHECKSUM = TRAILER_SIZE - 40


@dataclass(slots=True)
class Scrubbed:
    """What is known of a pack of so many chunks. `read`: bytes of chunks that the storage gave. `lost`: by position,
    which chunks can be had no more; None while all can. `error`: the first thing that is wrong."""

    chunks: int
    read: int = 0
    lost: npt.NDArray[np.bool_] | None = None
    error: KeepstoneError | None = None

    def lose(self, first: int, end: int, error: KeepstoneError) -> None:
        """The chunks at these positions cannot be had."""
        if self.lost is None:
            self.lost, self.error = np.zeros(self.chunks, np.bool_), error
        self.lost[first:end] = True


class Scrubber:
    """Safe for several threads; each has a buffer of its own."""

    def __init__(self, context: Context, packs: Packs) -> None:
        self._context = context
        self._packs = packs
        self._local = threading.local()

    def scrub(self, pack: bytes, size: int) -> Scrubbed:
        """Read a pack of `size` bytes whole. Raises where it is gone, or its header or footer cannot be read: then
        every chunk of it is lost."""
        footer = self._packs.footer(pack)
        checksum = self._context.hashing.stream()
        checksum.update(self._context.storage.read(pack_name(pack), 0, HEADER_SIZE))
        scrubbed = Scrubbed(footer.chunks)
        frame = 0
        while frame < footer.frames:
            last = frame
            while last + 1 < footer.frames and footer.offsets[last + 2] - footer.offsets[frame] <= _READ:
                last += 1
            self._span(scrubbed, footer, frame, last, checksum.update)
            frame = last + 1
        if scrubbed.lost is None:
            self._rest(scrubbed, footer, size, checksum)
        return scrubbed

    def _rest(self, scrubbed: Scrubbed, footer: Footer, size: int, checksum: Checksum) -> None:
        """What is behind the frames, and the checksum of all; no chunk depends on either."""
        frames, name = footer.offsets[-1], pack_name(footer.pack)
        try:
            rest = self._context.storage.read(name, frames)
            checksum.update(rest[:-_BEFORE_CHECKSUM])
            length, _, expected = parse_trailer(rest[-TRAILER_SIZE:], name)
            if frames + length + TRAILER_SIZE != size:
                raise CorruptObject(f"{name} has bytes that belong to nothing; restore it from a copy")
            if checksum.digest() != expected:
                raise CorruptObject(f"{name} does not match its checksum; restore it from a copy")
        except (CorruptObject, StorageError) as error:
            scrubbed.error = error

    def _span(
        self, scrubbed: Scrubbed, footer: Footer, first: int, last: int, update: Callable[[memoryview], object]
    ) -> None:
        """Read and check some neighbouring frames, by one read where the storage gives them."""
        try:
            sealed = self._read(footer, first, last)
        except (StorageError, CorruptObject) as error:
            if first == last:
                scrubbed.lose(footer.first_chunk[first], footer.first_chunk[first + 1], error)
            else:  # one bad sector is no reason to give up its neighbours
                for frame in range(first, last + 1):
                    self._span(scrubbed, footer, frame, frame, update)
            return
        update(sealed)
        at = 0
        for frame in range(first, last + 1):
            self._frame(scrubbed, footer, frame, sealed[at : at + footer.frame_lengths[frame]])
            at += footer.frame_lengths[frame]

    def _read(self, footer: Footer, first: int, last: int) -> memoryview:
        """The sealed bytes of these frames, valid until this thread reads the next ones."""
        begin, end = footer.offsets[first], footer.offsets[last + 1]
        skip = begin % _PAGE
        size = -(-(end - begin + skip) // _PAGE) * _PAGE
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._local.buffer = aligned(max(size, _READ + 2 * _PAGE))
        name = pack_name(footer.pack)
        if self._context.storage.read_into(name, begin - skip, buffer[:size]) < end - begin + skip:
            raise CorruptObject(f"{name} is shorter than its footer says; restore it from a copy")
        return buffer[skip : skip + end - begin]

    def _frame(self, scrubbed: Scrubbed, footer: Footer, frame: int, sealed: memoryview) -> None:
        first, end = footer.first_chunk[frame], footer.first_chunk[frame + 1]
        scrubbed.read += footer.frame_raw[frame]
        offsets = footer.chunk_offsets(frame)
        try:
            data = memoryview(self._packs.open_sealed(footer, frame, sealed))
            if offsets[-1] != len(data):
                name = pack_name(footer.pack)
                raise CorruptObject(
                    f"frame {frame} of {name} has another length than its chunks; restore it from a copy"
                )
        except CorruptObject as error:
            scrubbed.lose(first, end, error)
            return
        for index, position in enumerate(range(first, end)):
            try:
                self._packs.check_id(footer, position, data[offsets[index] : offsets[index + 1]])
            except CorruptObject as error:
                scrubbed.lose(position, position + 1, error)
