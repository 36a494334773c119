# SPDX-License-Identifier: Apache-2.0
"""Reading packs: footers (cached), frames, chunks.

Every byte that leaves here has been authenticated by its frame, and its chunk id recomputed from the plain text
where `chunks` is used. Footers are the authority on where a chunk is; the index only guesses.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from keepstone.crypto import frame_key, open_frame
from keepstone.errors import CorruptObject, ObjectMissing, StorageError
from keepstone.store.context import Context
from keepstone.store.footer import (
    HEADER_SIZE,
    TAG_SIZE,
    TRAILER_SIZE,
    Footer,
    pack_header,
    parse_header,
    parse_trailer,
)
from keepstone.store.frame import CODEC_RAW, FRAME_LIMIT, expand
from keepstone.store.layout import PACKS, listing, names, pack_id, pack_name
from keepstone.store.refs import PackNumbers

__all__ = ["Packs"]

_TAIL = 64 << 10  # one read fetches most footers whole
_FOOTER_MEMORY = 24 << 20
_FRAME_MEMORY = 12 << 20


class _Part(NamedTuple):
    """An open frame: the positions of its first chunk and of the one behind its last, and what `Packs.frame` gives."""

    number: int
    first: int
    end: int
    footer: Footer
    data: memoryview
    offsets: list[int]


class Packs:
    """The packs of a store. Safe for several threads."""

    def __init__(self, context: Context, numbers: PackNumbers) -> None:
        self.numbers = numbers
        self._context = context
        self._footers: OrderedDict[bytes, Footer] = OrderedDict()
        self._footer_memory = 0
        self._frames: OrderedDict[tuple[bytes, int], tuple[memoryview, list[int]]] = OrderedDict()
        self._frame_memory = 0
        self._newest: _Part | None = None  # nodes are read in their order: most lie in the frame of the one before
        self._lock = threading.Lock()
        self._local = threading.local()

    def listing(self) -> Iterator[tuple[bytes, int]]:
        """(id, stored bytes) of every pack that is there."""
        for info in listing(self._context.storage, PACKS):
            yield pack_id(info.name), info.size

    def ids(self) -> Iterator[bytes]:
        """The id of every pack that is there."""
        return map(pack_id, names(self._context.storage, PACKS))

    def footer(self, pack: bytes) -> Footer:
        """The footer of this pack. `ObjectMissing` where the pack is gone, `CorruptObject` where it is damaged."""
        with self._lock:
            footer = self._footers.get(pack)
            if footer is not None:
                self._footers.move_to_end(pack)
                return footer
        footer = self.read_footer(pack)
        with self._lock:
            if pack not in self._footers:
                self._footers[pack] = footer
                self._footer_memory += footer.memory
                while self._footer_memory > _FOOTER_MEMORY and len(self._footers) > 1:
                    self._footer_memory -= self._footers.popitem(last=False)[1].memory
        return footer

    def read_footer(self, pack: bytes) -> Footer:
        """As `footer`, without remembering it: for whoever reads each once."""
        name = pack_name(pack)
        storage = self._context.storage
        tail = storage.read(name, -_TAIL)
        length, digest, _ = parse_trailer(tail[-TRAILER_SIZE:], name)
        if length + TRAILER_SIZE > len(tail):
            tail = storage.read(name, -(length + TRAILER_SIZE))
            if length + TRAILER_SIZE > len(tail):
                raise CorruptObject(f"{name} is shorter than its trailer says; restore it from a copy")
        header = storage.read(name, 0, HEADER_SIZE)
        return self.open_footer(pack, header, tail[-TRAILER_SIZE - length : -TRAILER_SIZE], digest)

    def open_footer(self, pack: bytes, header: bytes, sealed: bytes, digest: bytes) -> Footer:
        """The footer out of the bytes of its pack."""
        context = self._context
        name = pack_name(pack)
        store_id, epoch, kind, identity = parse_header(header, name)
        if identity != pack or store_id != context.store_id or epoch != context.keys.epoch:
            raise CorruptObject(f"{name} belongs elsewhere (another pack or store); restore it from a copy")
        if len(sealed) < TAG_SIZE:
            raise CorruptObject(f"{name} has no footer; restore it from a copy")
        key = context.hashing.keyed(context.keys.metadata, b"footer/v1" + pack + digest)
        data = bytearray(len(sealed) - TAG_SIZE)
        try:
            open_frame(key, sealed, header, memoryview(data))
        except CorruptObject as error:
            raise CorruptObject(f"the footer of {name} is damaged; restore the pack from a copy") from error
        return Footer(bytes(data), pack, kind, name)

    def open_sealed(
        self,
        footer: Footer,
        frame: int,
        sealed: bytes | memoryview,
        payload: memoryview | None = None,
        wanted: int | None = None,
        into: memoryview | None = None,
    ) -> bytes | bytearray | memoryview:
        """The chunks of a frame out of its sealed bytes, authenticated but not yet compared with their ids; with
        `wanted` at least this many bytes of them. `into`: memory for all of them, where they are put.

        Valid until this thread opens the next frame: a frame that is stored uncompressed lies in the thread's own
        buffer, unless there is an `into`.
        """
        if payload is None and into is not None and footer.codecs[frame] == CODEC_RAW:
            payload = into if len(into) == len(sealed) - TAG_SIZE else None
        payload = self.open_payload(footer, frame, sealed, payload)
        try:
            return expand(payload, footer.codecs[frame], footer.frame_raw[frame], wanted, into=into)
        except CorruptObject as error:
            raise _damaged(footer, frame, error) from error

    def open_payload(
        self, footer: Footer, frame: int, sealed: bytes | memoryview, payload: memoryview | None = None
    ) -> memoryview:
        """A frame as it is stored, out of its sealed bytes: authenticated, not decompressed. It is in `payload`, or
        valid until this thread opens the next one."""
        context = self._context
        header = pack_header(context.store_id, context.keys.epoch, footer.kind, footer.pack)
        digest = footer.digests[32 * frame : 32 * frame + 32]
        key = frame_key(context.hashing, context.keys, footer.pack, frame, digest)
        opened = self._payload(len(sealed) - TAG_SIZE) if payload is None else payload
        try:
            open_frame(key, sealed, context.frame_aad(header, frame), opened)
        except CorruptObject as error:
            raise _damaged(footer, frame, error) from error
        return opened

    def _payload(self, size: int) -> memoryview:
        """A buffer of this thread: fresh megabytes would cost their page faults each time."""
        buffer: memoryview | None = getattr(self._local, "payload", None)
        if buffer is None or len(buffer) < size:
            buffer = self._local.payload = memoryview(bytearray(max(size, FRAME_LIMIT)))
        return buffer[:size]

    def check_id(self, footer: Footer, position: int, chunk: bytes | memoryview) -> None:
        """Compare a chunk with its id; `CorruptObject` where they differ."""
        if self._context.hashing.keyed(self._context.keys.id, chunk) != footer.id(position):
            raise _mismatched(footer, position)

    def check_ids(self, footer: Footer, frame: int, chunks: memoryview) -> list[tuple[int, CorruptObject]]:
        """Compare all chunks of an open frame with their ids: the positions of those that differ, each with the error
        of `check_id`."""
        first, end = footer.first_chunk[frame : frame + 2]
        keyed, key = self._context.hashing.keyed, self._context.keys.id
        ids = [keyed(key, chunks[at:to]) for at, to in pairwise(footer.chunk_offsets(frame))]
        if b"".join(ids) == footer.ids_of(first, end):
            return []
        return [
            (position, _mismatched(footer, position))
            for position, found in zip(range(first, end), ids, strict=True)
            if found != footer.id(position)
        ]

    def frame(self, pack: bytes, frame: int) -> tuple[memoryview, list[int]]:
        """(chunks, their offsets and the end) of one frame, through a small cache: manifest nodes lie close
        together."""
        with self._lock:
            cached = self._frames.get((pack, frame))
            if cached is not None:
                self._frames.move_to_end((pack, frame))
                return cached
        footer = self.footer(pack)
        length = footer.frame_lengths[frame]
        name = pack_name(pack)
        sealed = self._context.storage.read(name, footer.offsets[frame], length)
        if len(sealed) != length:
            raise CorruptObject(f"{name} is shorter than its footer says; restore it from a copy")
        opened = (
            memoryview(self.open_sealed(footer, frame, sealed, memoryview(bytearray(length - TAG_SIZE)))),
            footer.chunk_offsets(frame),
        )
        with self._lock:
            if (pack, frame) not in self._frames:
                self._frames[pack, frame] = opened
                self._frame_memory += len(opened[0])
                while self._frame_memory > _FRAME_MEMORY and len(self._frames) > 1:
                    self._frame_memory -= len(self._frames.popitem(last=False)[1][0])
        return opened

    def chunk(self, ref: int) -> memoryview:
        """One chunk by its place, checked against its id."""
        number, position = ref >> 32, ref & 0xFFFFFFFF
        newest = self._newest
        if newest is None or newest.number != number or not newest.first <= position < newest.end:
            newest = self._newest = self._part(number, position)
        at = position - newest.first
        chunk = newest.data[newest.offsets[at] : newest.offsets[at + 1]]
        self.check_id(newest.footer, position, chunk)
        return chunk

    def _part(self, number: int, position: int) -> _Part:
        pack = self.numbers.ids[number]
        footer = self.footer(pack)
        if position >= footer.chunks:
            raise CorruptObject(f"{pack_name(pack)} has no chunk {position}; run `keepstone store verify`")
        frame = footer.frame_of(position)
        first, end = footer.first_chunk[frame : frame + 2]
        return _Part(number, first, end, footer, *self.frame(pack, frame))

    def chunk_id(self, ref: int) -> bytes | None:
        """The id of the chunk at this place; None where there is no such pack or chunk, or nobody can read it any
        more."""
        try:
            footer = self.footer(self.numbers.ids[ref >> 32])
        except (ObjectMissing, CorruptObject, StorageError):
            return None
        position = ref & 0xFFFFFFFF
        return footer.id(position) if position < footer.chunks else None

    def forget(self, pack: bytes) -> None:
        """Drop what is cached of a pack."""
        with self._lock:
            footer = self._footers.pop(pack, None)
            if footer is not None:
                self._footer_memory -= footer.memory


def _mismatched(footer: Footer, position: int) -> CorruptObject:
    return CorruptObject(
        f"chunk {position} of {pack_name(footer.pack)} is not what was stored; restore the pack from a copy"
    )


def _damaged(footer: Footer, frame: int, error: CorruptObject) -> CorruptObject:
    return CorruptObject(
        f"frame {frame} of {pack_name(footer.pack)} is damaged ({error}); restore the pack from a copy"
    )
