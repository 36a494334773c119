# SPDX-License-Identifier: Apache-2.0
"""Reading a recovery point of a store behind a service: `store.Reader`, as its far half.

Nodes come as in writing (`nodes`). Chunks are fetched many at a time, several requests beside one another; the service
opens, decompresses and checks them, and sends them as they are, whatever else lies beside them in its packs. Where all
in its store is this machine's, it may send whole frames, which are decompressed and checked here (`framed.py`).
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Protocol, TypeVar

import msgspec

from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.remote.bodies import Bodies
from keepstone.remote.framed import Taker
from keepstone.remote.nodes import NodeCache, Nodes, child_refs, chunk_refs
from keepstone.remote.places import EARLIER, split
from keepstone.remote.sealed import Sealed
from keepstone.remote.veil import Veil
from keepstone.remote.wire import GONE, Fetch, Opened, Seen, Wanted
from keepstone.store import SEALED, Node, Roomy, turn_of

__all__ = ["Point", "RemoteReader"]

_REQUEST = 512  # chunks of one request
_WAITING = 2  # workers beyond one a processor, as some wait for the service
_COLUMNS = 8 << 20  # bytes
_ROW = 36

Cookie = TypeVar("Cookie")


class Point(Protocol):
    """What the service does for a reader."""

    def nodes(self, wanted: Wanted) -> list[Seen]:
        """Nodes of the point."""

    def columns(self, path: list[int]) -> bytes:
        """The ids of a node's chunks, 32 bytes each, and then their lengths, u32 each; `GONE` for what cannot be
        read."""

    def fetch(self, fetch: Fetch, taker: Taker) -> None:
        """Every chunk that is asked for, with the numbers of its node and of itself in the request; valid during the
        call. `CorruptObject`, `ObjectMissing`."""


class RemoteReader:
    """`Reader` of a point that was opened."""

    def __init__(self, env: Env, point: Point, opened: Opened, veil: Veil, *, cache: NodeCache | None = None) -> None:
        detail, roots = veil.open(opened.point.detail)
        kind = opened.point.kind.removeprefix(SEALED)
        self.point = msgspec.structs.replace(opened.point, kind=kind, detail=detail)
        self._point = point
        self._veil = veil
        self._nodes = Nodes(opened.keys, point.nodes, cache)
        self._sealed = veil if isinstance(veil, Sealed) else None
        self._frames = opened.frames and self._sealed is None
        self._bodies = None if self._sealed is None else Bodies(self._nodes, self._sealed, roots)
        self._pool = env.pool(_WAITING)
        self._local = threading.local()
        self._columns: OrderedDict[int, tuple[bytes, array[int]]] = OrderedDict()
        self._columns_bytes = 0
        self._loading: dict[int, threading.Lock] = {}  # columns that somebody asks for
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> RemoteReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def root(self) -> list[int]:
        return self._nodes.roots()

    def node(self, ref: int) -> Node:
        return self._nodes.node(ref) if self._bodies is None else self._bodies.node(ref)

    def chunk_refs(self, node: Node) -> list[int]:
        return chunk_refs(node)

    def child_refs(self, node: Node) -> list[int]:
        return child_refs(node)

    def chunk_length(self, ref: int) -> int:
        handle, index = _of(ref)
        length = self._column(handle)[1][index]
        if length == GONE:
            raise CorruptObject("a chunk is damaged or gone; run `keepstone store verify` where the store is")
        return length

    def chunk_id(self, ref: int) -> bytes:
        self.chunk_length(ref)
        handle, index = _of(ref)
        return self._column(handle)[0][32 * index : 32 * index + 32]

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._veil.identify(chunk)

    def fetch(self, requests: Iterable[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        futures: list[Future[None]] = []
        wanted = sorted(requests, key=lambda request: request[0])
        for at in range(0, len(wanted), _REQUEST):
            futures.append(self._pool.submit(self._fetch, wanted[at : at + _REQUEST], sink))
        failure: BaseException | None = None
        for future in futures:
            try:
                future.result()
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _fetch(self, wanted: list[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        nodes: list[tuple[list[int], array[int]]] = []
        cookies: list[list[list[Cookie]]] = []
        places: list[list[int]] = []
        handle = index = -1
        for ref, cookie in wanted:
            before = handle, index
            handle, index = _of(ref)
            if handle != before[0]:
                nodes.append((self._nodes.handles.path(handle), array("I")))
                cookies.append([])
                places.append([])
            elif index == before[1]:
                cookies[-1][-1].append(cookie)
                continue
            nodes[-1][1].append(index)
            cookies[-1].append([cookie])
            places[-1].append(ref)

        missing = {(node, number) for node, those in enumerate(cookies) for number in range(len(those))}

        def take(node: int, number: int, chunk: memoryview) -> None:
            missing.discard((node, number))
            if self._sealed is not None:
                chunk = self._sealed.open_chunk(self.chunk_id(places[node][number]), chunk)
            for cookie in cookies[node][number]:
                sink(cookie, chunk)

        ids = [[self.chunk_id(ref) for ref in those] for those in places] if self._frames else []

        def check(node: int, number: int, chunk: memoryview) -> None:
            if self.identify(chunk) != ids[node][number]:
                raise CorruptObject("a chunk is not what was stored; run `keepstone store verify` where the store is")

        fetch = Fetch([(path, _u32s(indexes)) for path, indexes in nodes])
        room = sink.room if isinstance(sink, Roomy) else self._room
        self._point.fetch(fetch, Taker(take, check if self._frames else None, room, turn_of(sink)))
        if missing:
            raise CorruptObject("the service did not send all chunks that it was asked for")

    def _room(self, count: int) -> memoryview:
        """A buffer of this thread: fresh megabytes would cost their page faults each time."""
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < count:
            buffer = self._local.buffer = memoryview(bytearray(count))
        return buffer[:count]

    def _column(self, handle: int) -> tuple[bytes, array[int]]:
        """Of the chunks of a node. Workers begin with the same one, and only the first of them asks for it."""
        with self._lock:
            column = self._columns.get(handle)
            if column is not None:
                self._columns.move_to_end(handle)
                return column
            loading = self._loading.setdefault(handle, threading.Lock())
        with loading:
            column = self._columns.get(handle)
            if column is None:
                column = self._load(handle)
                self._keep(handle, column)
        return column

    def _keep(self, handle: int, column: tuple[bytes, array[int]]) -> None:
        with self._lock:
            self._loading.pop(handle, None)
            if handle not in self._columns:
                self._columns[handle] = column
                self._columns_bytes += _ROW * len(column[1])
                while self._columns_bytes > _COLUMNS and len(self._columns) > 1:
                    self._columns_bytes -= _ROW * len(self._columns.popitem(last=False)[1][1])

    def _load(self, handle: int) -> tuple[bytes, array[int]]:
        if self._bodies is not None:
            return self._bodies.column(handle)
        data = self._point.columns(self._nodes.handles.path(handle))
        count = len(data) // _ROW
        if len(data) != _ROW * count:
            raise CorruptObject("the service sent ids and lengths that do not agree with one another")
        return data[: 32 * count], array("I", struct.unpack(f"<{count}I", data[32 * count :]))


def _of(ref: int) -> tuple[int, int]:
    if not ref & EARLIER:
        raise CorruptObject("a place is none of this point")
    return split(ref)


def _u32s(values: array[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)
