# SPDX-License-Identifier: Apache-2.0
"""Reading recovery points: nodes one by one, chunks many at a time in pack order.

`fetch` takes requests (place, cookie) in any order and hands every chunk to the sink beside other chunks: each
frame is read, opened and decompressed once for all its requests, each chunk compared with its id before anybody
sees it. Neighbouring frames are fetched by one ranged read, skipping gaps up to `GAP`. There are more workers than
processors, so that these open frames while others wait for what they read, or for a sink that writes, or for their
turn at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from keepstone.errors import CorruptObject, ObjectMissing
from keepstone.objects import aligned
from keepstone.store.commits import Commits, MoveRecord, PointRecord
from keepstone.store.context import Context
from keepstone.store.footer import Footer
from keepstone.store.layout import MOVES_TAG, pack_name
from keepstone.store.moves import Moves
from keepstone.store.node import Node, decode_node
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers

__all__ = ["LocalReader", "Reader", "Roomy", "StoredFrame", "TakingTurns", "Turn", "no_turn", "turn_of"]

GAP = 1 << 20
"""Bytes of unwanted frames that one ranged read reads over."""
_READ = 8 << 20  # bytes of one ranged read at most, unless a single frame is longer
_WAITING = 2  # workers beyond one a processor

Cookie = TypeVar("Cookie")
Turn = Callable[[int, int], AbstractContextManager[object]]
"""Held by a thread while it hands out so many chunks of a frame, so many bytes together."""


class Reader(Protocol):
    """What a restore reads through; the same whether the store is here or behind a service."""

    point: PointRecord

    def root(self) -> list[int]:
        """The places of the point's root nodes."""

    def node(self, ref: int) -> Node:
        """A node of the manifest."""

    def chunk_refs(self, node: Node) -> list[int]:
        """The places of a node's data chunks."""

    def child_refs(self, node: Node) -> list[int]:
        """The places of a node's children."""

    def chunk_length(self, ref: int) -> int:
        """The length of a chunk in bytes, without reading it."""

    def chunk_id(self, ref: int) -> bytes:
        """The id of a chunk, without reading it: equal ids are equal bytes."""

    def identify(self, chunk: bytes | memoryview) -> bytes:
        """The id that this chunk would have."""

    def fetch(self, requests: Iterable[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        """Call `sink(cookie, chunk)` for every request, in pack order, on several threads; the chunk is valid
        during the call only."""


@runtime_checkable
class Roomy(Protocol):
    """A sink with memory of its own, where a reader may put chunks that it would have to copy otherwise."""

    def __call__(self, cookie: Any, chunk: memoryview, /) -> None:
        """As any sink. What lies in its `room` stays there until this thread asks for the next."""

    def room(self, count: int, /) -> memoryview | None:
        """Memory of the calling thread for the `count` bytes of a frame; None where it has none for so many.

        Nothing of it is the disk's before the thread calls the sink with it: what else is there, nobody vouches for.
        """


@runtime_checkable
class TakingTurns(Protocol):
    """A sink that several threads would hinder one another at."""

    def __call__(self, cookie: Any, chunk: memoryview, /) -> None:
        """As any sink."""

    def turn(self, count: int, size: int, /) -> AbstractContextManager[object]:
        """A `Turn`."""


def turn_of(sink: object) -> Turn:
    """The turns of a sink; where it takes none nobody waits for one."""
    return sink.turn if isinstance(sink, TakingTurns) else no_turn


def no_turn(count: int, size: int) -> AbstractContextManager[object]:
    """The turn where nobody waits for one."""
    return nullcontext()


class StoredFrame(NamedTuple):
    """A frame as it is stored, opened and not decompressed. `lengths`: of its chunks. `payload` is valid during the
    call that it came by."""

    codec: int
    raw_length: int
    lengths: list[int]
    payload: memoryview


class LocalReader:
    """`Reader` over a storage of this machine."""

    def __init__(self, context: Context, point: PointRecord) -> None:
        self.point = point
        self._context = context
        self._numbers = PackNumbers()
        self._packs = Packs(context, self._numbers)
        self._local = threading.local()
        self._pool = context.env.pool(_WAITING)
        self._load_moves()

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> LocalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load_moves(self) -> None:
        records = Commits(self._context).records(MOVES_TAG, damaged=[])  # who needs a damaged one is told so
        self._moves = Moves(self._numbers, (record for _, record in records if isinstance(record, MoveRecord)))

    def root(self) -> list[int]:
        return Node("", self.point.packs, b"", self.point.root, b"").child_refs(self._numbers)

    def node(self, ref: int) -> Node:
        try:
            return decode_node(self._packs.chunk(self._moves.resolve(ref)))
        except ObjectMissing:
            self._load_moves()  # compacted since this reader was opened
            return decode_node(self._packs.chunk(self._moves.resolve(ref)))

    def chunk_refs(self, node: Node) -> list[int]:
        return node.chunk_refs(self._numbers)

    def child_refs(self, node: Node) -> list[int]:
        return node.child_refs(self._numbers)

    def _footer(self, ref: int) -> tuple[Footer, int]:
        resolved = self._moves.resolve(ref)
        try:
            footer = self._packs.footer(self._numbers.ids[resolved >> 32])
        except ObjectMissing:
            self._load_moves()
            resolved = self._moves.resolve(ref)
            footer = self._packs.footer(self._numbers.ids[resolved >> 32])
        ref = resolved
        position = ref & 0xFFFFFFFF
        if position >= footer.chunks:
            raise CorruptObject(f"{pack_name(footer.pack)} has no chunk {position}; run `keepstone store verify`")
        return footer, position

    def chunk_length(self, ref: int) -> int:
        footer, position = self._footer(ref)
        return footer.chunk_lengths[position]

    def chunk_id(self, ref: int) -> bytes:
        footer, position = self._footer(ref)
        return footer.id(position)

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._context.hashing.keyed(self._context.keys.id, chunk)

    def in_one_frame(self, ref: int, other: int) -> bool:
        """Whether these chunks lie in one frame, as far as that can be told."""
        try:
            (footer, position), (second, behind) = self._footer(ref), self._footer(other)
        except (CorruptObject, ObjectMissing):
            return False
        return footer is second and footer.frame_of(position) == footer.frame_of(behind)

    def fetch(
        self,
        requests: Iterable[tuple[int, Cookie]],
        sink: Callable[[Cookie, memoryview], None],
        *,
        frames: Callable[[list[Cookie], StoredFrame], None] | None = None,
    ) -> None:
        """As `Reader` has it. `frames`: called, in place of the sink, with each frame all of whose chunks are asked for
        once, and their cookies in the order of the frame; then nobody has compared them with their ids."""
        wanted = list(requests)
        try:
            self._fetch(wanted, sink, frames)
        except ObjectMissing:
            self._load_moves()
            self._fetch(wanted, sink, frames)  # sinks write the same bytes to the same place again

    def _fetch(
        self,
        requests: list[tuple[int, Cookie]],
        sink: Callable[[Cookie, memoryview], None],
        whole: Callable[[list[Cookie], StoredFrame], None] | None,
    ) -> None:
        moves = self._moves
        by_pack: dict[int, list[tuple[int, Cookie]]] = {}
        for ref, cookie in requests:
            if moves:
                ref = moves.resolve(ref)
            by_pack.setdefault(ref >> 32, []).append((ref & 0xFFFFFFFF, cookie))
        spans: list[tuple[Footer, list[tuple[int, list[tuple[int, Cookie]]]]]] = []
        for number, positions in by_pack.items():
            pack = self._numbers.ids[number]
            positions.sort(key=itemgetter(0))
            footer = self._packs.footer(pack)
            if positions[-1][0] >= footer.chunks:
                raise CorruptObject(f"{pack_name(pack)} has no chunk {positions[-1][0]}; run `keepstone store verify`")
            spans += [(footer, span) for span in _spans(footer, positions)]
        futures = []
        failure: BaseException | None = None
        try:
            for footer, span in spans:
                futures.append(self._pool.submit(self._read_span, footer, span, sink, whole))
        except BaseException as error:  # such as no thread to be had; who calls the sink must end before this returns
            failure = error
            self._pool.shutdown(cancel_futures=True)
            self._pool = self._context.env.pool(_WAITING)
        for future in futures:
            try:
                future.result()
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _read_span(
        self,
        footer: Footer,
        frames: list[tuple[int, list[tuple[int, Cookie]]]],
        sink: Callable[[Cookie, memoryview], None],
        whole: Callable[[list[Cookie], StoredFrame], None] | None,
    ) -> None:
        """Read the frames of one span with one ranged read and hand out their chunks."""
        begin = footer.offsets[frames[0][0]]
        end = footer.offsets[frames[-1][0] + 1]
        buffer = self._buffer(end - begin + 4096)
        skip = begin % 4096  # from a page boundary, so that the storage can read past the page cache
        name = pack_name(footer.pack)
        size = -(-(end - begin + skip) // 4096) * 4096
        if self._context.storage.read_into(name, begin - skip, buffer[:size]) < end - begin + skip:
            raise CorruptObject(f"{name} is shorter than its footer says; restore it from a copy")
        rooms = sink if isinstance(sink, Roomy) else None
        turn = turn_of(sink)
        for frame, wanted in frames:
            at = footer.offsets[frame] - begin + skip
            sealed = buffer[at : at + footer.frame_lengths[frame]]
            first, last = footer.first_chunk[frame], footer.first_chunk[frame + 1]
            if whole is not None and [position for position, _ in wanted] == list(range(first, last)):
                lengths = list(footer.chunk_lengths[first:last])
                payload = self._packs.open_payload(footer, frame, sealed)
                stored = StoredFrame(footer.codecs[frame], footer.frame_raw[frame], lengths, payload)
                whole([cookie for _, cookie in wanted], stored)
                continue
            offsets = footer.chunk_offsets(frame)
            # Files that are stored once for many copies leave few wanted chunks in a frame: what is behind the last of
            # them is not decompressed, an eighth of all in a restore of 157,000 files.
            end = offsets[wanted[-1][0] - first + 1]
            room = None if rooms is None else rooms.room(footer.frame_raw[frame])
            data = memoryview(self._packs.open_sealed(footer, frame, sealed, wanted=end, into=room))
            chunks: list[tuple[Cookie, memoryview]] = []
            chunk, checked, length = data[:0], -1, 0
            for position, cookie in wanted:
                if position != checked:
                    chunk = data[offsets[position - first] : offsets[position - first + 1]]
                    self._packs.check_id(footer, position, chunk)
                    checked = position
                chunks.append((cookie, chunk))
                length += len(chunk)
            with turn(len(chunks), length):
                for cookie, chunk in chunks:
                    sink(cookie, chunk)

    def _buffer(self, size: int) -> memoryview:
        size = -(-size // 4096) * 4096
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._local.buffer = aligned(max(size, _READ + (1 << 20)))
        return buffer


def _spans(footer: Footer, requests: list[tuple[int, Cookie]]) -> list[list[tuple[int, list[tuple[int, Cookie]]]]]:
    """Requests, sorted by position, grouped by frame, and frames by ranged read."""
    spans: list[list[tuple[int, list[tuple[int, Cookie]]]]] = []
    offsets, current, end = footer.offsets, -1, 0
    inside: list[tuple[int, Cookie]] = []
    for request in requests:
        if request[0] < end:
            inside.append(request)
            continue
        frame, inside = footer.frame_of(request[0]), [request]
        if (
            spans
            and offsets[frame] - offsets[current + 1] <= GAP
            and offsets[frame + 1] - offsets[spans[-1][0][0]] <= _READ
        ):
            spans[-1].append((frame, inside))
        else:
            spans.append([(frame, inside)])
        current, end = frame, footer.first_chunk[frame + 1]
    return spans
