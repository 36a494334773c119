# SPDX-License-Identifier: Apache-2.0
"""Writing a pack: frames go in one after the other, sealed straight into the upload's buffer.

Invariants
* The pack's id exists before its first frame, so a chunk's place is final when it is appended.
* Nothing refers to a pack durably before its upload is finished and its name synced; the writer sees to that.
* A sample of the frames (every `SAMPLE`-th and the first; all with `check=True`) is opened again from the sealed
  bytes before the pack is finished, so that bad memory is found while the source is still there.
"""

from __future__ import annotations

from xxhash import xxh3_128

from keepstone.crypto import frame_key, open_frame, seal_frame
from keepstone.errors import CorruptObject, WriterFailed
from keepstone.store.context import Context
from keepstone.store.footer import (
    HEADER_SIZE,
    METADATA,
    TAG_SIZE,
    TRAILER_SIZE,
    FooterBuilder,
    pack_header,
    pack_trailer,
)
from keepstone.store.frame import Frame, expand
from keepstone.store.layout import pack_name

__all__ = ["MOST_CHUNKS", "PACK_TARGET", "PackWriter", "seal_footer"]

PACK_TARGET = 32 << 20
"""A pack is closed when it has grown to this many bytes."""
MOST_CHUNKS = 1 << 17
"""Or to this many chunks: who wants one of them reads and holds the footer, which is 36 bytes a chunk."""
SAMPLE = 16


def seal_footer(context: Context, pack: bytes, header: bytes, footer: bytes) -> tuple[bytes, bytes]:
    """(sealed footer, its digest). The key depends on the digest, so a pack id used twice never repeats a key."""
    digest = context.hashing.keyed(context.keys.metadata, b"footer-digest/v1" + footer)
    key = context.hashing.keyed(context.keys.metadata, b"footer/v1" + pack + digest)
    sealed = bytearray(len(footer) + TAG_SIZE)
    seal_frame(key, footer, header, memoryview(sealed))
    return bytes(sealed), digest


class PackWriter:
    """One pack while it is being written, by one thread; `finish` may run on another one."""

    def __init__(self, context: Context, kind: int, number: int, pack: bytes, check: bool) -> None:
        self.pack = pack
        self.number = number
        self.name = pack_name(pack)
        self.kind = kind
        self._context = context
        self._header = pack_header(context.store_id, context.keys.epoch, kind, pack)
        self._upload = context.storage.create(self.name)
        self._checksum = xxh3_128()
        self._check = check
        self._columns = FooterBuilder.empty()
        self._put(self._header)
        self.size = HEADER_SIZE

    @property
    def chunks(self) -> int:
        """How many chunks are in the pack so far: the position of the next one."""
        return len(self._columns.chunk_lengths)

    @property
    def full(self) -> bool:
        return self.size >= PACK_TARGET or self.chunks >= MOST_CHUNKS

    def id(self, position: int) -> bytes:
        """The id of a chunk that was appended."""
        return bytes(self._columns.ids[32 * position : 32 * position + 32])

    def append(self, frame: Frame) -> int:
        """Seal a frame into the pack; the place (`refs`) of its first chunk."""
        context, columns = self._context, self._columns
        position = len(columns.frame_lengths)
        sealed_length = len(frame.payload) + TAG_SIZE
        key = frame_key(context.hashing, context.keys, self.pack, position, frame.digest)
        aad = context.frame_aad(self._header, position)
        room = self._upload.room(sealed_length)
        seal_frame(key, frame.payload, aad, room)
        if self._check or position % SAMPLE == 0:
            self._reopen(frame, key, aad, room)
        self._checksum.update(room)
        room.release()
        self._upload.advance(sealed_length)
        first = self.chunks
        columns.frame_lengths.append(sealed_length)
        columns.frame_raw.append(frame.raw_length)
        columns.frame_chunks.append(len(frame.ids))
        columns.codecs.append(frame.codec)
        columns.digests += frame.digest
        columns.ids += b"".join(frame.ids)
        columns.chunk_lengths.extend(frame.lengths)
        self.size += sealed_length
        return self.number << 32 | first

    def _reopen(self, frame: Frame, key: bytes, aad: bytes, sealed: memoryview) -> None:
        opened = memoryview(bytearray(len(sealed) - TAG_SIZE))
        try:
            open_frame(key, sealed, aad, opened)
            data = memoryview(expand(opened, frame.codec, frame.raw_length))
            at = 0
            for identity, length in zip(frame.ids, frame.lengths, strict=True):
                if self._context.hashing.keyed(self._context.keys.id, data[at : at + length]) != identity:
                    raise CorruptObject("a chunk has another id than it had before")
                at += length
        except CorruptObject as error:
            raise WriterFailed(
                f"a frame of {self.name} does not open as it was written ({error}): the memory or processor of this "
                "machine is not to be trusted. Nothing was committed; test the memory, then back up again"
            ) from error

    def _put(self, data: bytes) -> None:
        self._checksum.update(data)
        self._upload.write(data)

    def finish(self) -> None:
        """Write footer and trailer; the pack is visible then, its name durable after a `sync`."""
        footer = self._columns.encode()
        sealed, digest = seal_footer(self._context, self.pack, self._header, footer)
        self._put(sealed)
        trailer = pack_trailer(len(sealed), digest, bytes(16))
        self._checksum.update(trailer[:40])
        self._upload.write(pack_trailer(len(sealed), digest, self._checksum.digest()))
        self._upload.finish()
        self.size += len(sealed) + TRAILER_SIZE

    def abort(self) -> None:
        """Drop the pack."""
        self._upload.abort()

    @property
    def is_metadata(self) -> bool:
        return self.kind == METADATA
