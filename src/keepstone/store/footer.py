# SPDX-License-Identifier: Apache-2.0
"""Header, footer and trailer of a pack: what is in it and where.

Layout of a pack (little-endian)
    header   64 bytes: magic, store id 16, epoch u32, kind u8 (0 data, 1 metadata), 3 zero bytes, pack id 32
    frames   sealed payloads (payload + 16 bytes tag) one after the other
    footer   sealed; columns of frames and chunks, see `Footer`
    trailer  64 bytes: footer length u32, zero u32, footer digest 32 (keyed), checksum 16 (XXH3-128 of all bytes
             before, most significant byte first), magic

The footer is encrypted, so that no length of a chunk is visible in storage; the checksum needs no key, so that any
machine can scrub. It is one against accidents, and costs a tenth of a hash: against forgery all is sealed. The frame
digests in the footer are part of the frame's key (`crypto.frame_key`).
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from itertools import accumulate, pairwise

import msgspec

from keepstone.errors import CorruptObject
from keepstone.store.frame import MAX_FRAME
from keepstone.store.refs import stored_u32s, u32s

__all__ = [
    "DATA",
    "HEADER_SIZE",
    "METADATA",
    "TAG_SIZE",
    "TRAILER_SIZE",
    "Footer",
    "FooterBuilder",
    "pack_header",
    "pack_trailer",
    "parse_header",
    "parse_trailer",
]

DATA = 0
METADATA = 1
TAG_SIZE = 16
HEADER_SIZE = 60 + 4
TRAILER_SIZE = 64
_MAGIC = b"KSPACK1\n"
_END = b"KSPEND1\n"
_HEADER = struct.Struct("<8s16sIB3x32s")
_TRAILER = struct.Struct("<II32s16s8s")
_COUNTS = struct.Struct("<II")
_ID = 32


def pack_header(store_id: bytes, epoch: int, kind: int, pack: bytes) -> bytes:
    """The first 64 bytes of a pack; also the associated data of its footer and frames."""
    return _HEADER.pack(_MAGIC, store_id, epoch, kind, pack)


def parse_header(data: bytes, name: str) -> tuple[bytes, int, int, bytes]:
    """(store id, epoch, kind, pack id); `CorruptObject` where it is no pack."""
    if len(data) < HEADER_SIZE:
        raise CorruptObject(f"{name} is too short for a pack; restore it from a copy")
    magic, store_id, epoch, kind, pack = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptObject(f"{name} does not begin like a pack; restore it from a copy")
    return store_id, epoch, kind, pack


def pack_trailer(footer_length: int, digest: bytes, checksum: bytes) -> bytes:
    """The last 64 bytes of a pack."""
    return _TRAILER.pack(footer_length, 0, digest, checksum, _END)


def parse_trailer(data: bytes, name: str) -> tuple[int, bytes, bytes]:
    """(footer length, footer digest, checksum)."""
    if len(data) != TRAILER_SIZE:
        raise CorruptObject(f"{name} is too short for a pack; restore it from a copy")
    length, zero, digest, checksum, magic = _TRAILER.unpack(data)
    if magic != _END or zero:
        raise CorruptObject(f"{name} does not end like a pack; restore it from a copy")
    return length, digest, checksum


class FooterBuilder(msgspec.Struct):
    """The columns of a pack that is being written."""

    frame_lengths: array[int]
    frame_raw: array[int]
    frame_chunks: array[int]
    codecs: bytearray
    digests: bytearray
    ids: bytearray
    chunk_lengths: array[int]

    @classmethod
    def empty(cls) -> FooterBuilder:
        return cls(array("I"), array("I"), array("I"), bytearray(), bytearray(), bytearray(), array("I"))

    def encode(self) -> bytes:
        """The footer before sealing."""
        return b"".join(
            (
                _COUNTS.pack(len(self.frame_lengths), len(self.chunk_lengths)),
                stored_u32s(self.frame_lengths),
                stored_u32s(self.frame_raw),
                stored_u32s(self.frame_chunks),
                self.codecs,
                self.digests,
                stored_u32s(self.chunk_lengths),
                self.ids,
            )
        )


class Footer:
    """What a pack holds. Columns: per frame its sealed length, raw length, number of chunks, codec, digest; per
    chunk its length and id.

    `first_chunk[f]` is the position of the first chunk of frame f, `offsets[f]` the frame's offset in the pack.
    """

    __slots__ = (
        "chunk_lengths",
        "codecs",
        "digests",
        "first_chunk",
        "frame_lengths",
        "frame_raw",
        "ids",
        "kind",
        "offsets",
        "pack",
    )

    def __init__(self, data: bytes, pack: bytes, kind: int, name: str) -> None:
        """Read an opened footer; `CorruptObject` where its columns do not agree with one another."""
        damaged = CorruptObject(f"the footer of {name} is inconsistent; restore the pack from a copy")
        if len(data) < _COUNTS.size:
            raise damaged
        frames, chunks = _COUNTS.unpack_from(data)
        if len(data) != _COUNTS.size + frames * (12 + 1 + 32) + chunks * (4 + _ID):
            raise damaged
        at = _COUNTS.size

        def column(count: int) -> array[int]:
            nonlocal at
            values = u32s(data[at : at + 4 * count])
            at += 4 * count
            return values

        self.pack = pack
        self.kind = kind
        self.frame_lengths = column(frames)
        self.frame_raw = column(frames)
        counts = column(frames)
        self.codecs = data[at : at + frames]
        self.digests = data[at + frames : at + 33 * frames]
        at += 33 * frames
        self.chunk_lengths = column(chunks)
        self.ids = data[at:]
        if sum(counts) != chunks:
            raise damaged
        self.first_chunk = array("I", [0, *accumulate(counts)])
        self.offsets = array("Q", accumulate(self.frame_lengths, initial=HEADER_SIZE))
        if max(self.frame_raw, default=0) > MAX_FRAME or min(self.frame_lengths, default=TAG_SIZE) < TAG_SIZE:
            raise damaged
        for frame, (first, last) in enumerate(pairwise(self.first_chunk)):
            if sum(self.chunk_lengths[first:last]) != self.frame_raw[frame]:
                raise damaged

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.chunk_lengths)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.frame_lengths)

    @property
    def raw_bytes(self) -> int:
        """Length of all chunks together."""
        return sum(self.frame_raw)

    @property
    def memory(self) -> int:
        """About how many bytes this object takes."""
        return len(self.ids) + 4 * self.chunks + 57 * self.frames + 500

    def id(self, position: int) -> bytes:
        """The id of the chunk at this position."""
        return self.ids[_ID * position : _ID * position + _ID]

    def ids_of(self, first: int, end: int) -> bytes:
        """The ids of the chunks from one position to before another, one after the other."""
        return self.ids[_ID * first : _ID * end]

    def frame_of(self, position: int) -> int:
        """The frame that holds the chunk at this position."""
        return bisect_right(self.first_chunk, position) - 1

    def chunk_offsets(self, frame: int) -> list[int]:
        """Where the chunks of a frame begin in it; one more entry for the end."""
        first, last = self.first_chunk[frame], self.first_chunk[frame + 1]
        return list(accumulate(self.chunk_lengths[first:last], initial=0))
