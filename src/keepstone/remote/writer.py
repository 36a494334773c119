# SPDX-License-Identifier: Apache-2.0
"""Writing a recovery point into a store behind a service: `store.Writer`, as its far half.

What is read, cut, named and compressed here is what the store itself would do; what is sealed, placed and made durable
is the service's. Between them goes one sequence of records (`wire`), which may be cut anywhere and goes on from there.

Invariants
* A place that is handed to the workload is final, though its record may still wait to be sent.
* Records go out in the order of their numbers. At most two batches wait: one fills while one is on its way.
* A point is made by `commit` alone, after the service has every record; `commit` may be asked again.
* Whether the service has had a chunk before is only asked of the item's own previous point; where it is sealed, of its
  nodes on this machine.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Protocol

import msgspec

from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.remote.bodies import Bodies
from keepstone.remote.identities import Identities
from keepstone.remote.manifest import SealedManifest
from keepstone.remote.nodes import NodeCache, Nodes, child_refs, chunk_refs, handle_of
from keepstone.remote.places import EARLIER, FOUND, NODES, earlier, encode_places, split
from keepstone.remote.sealed import Sealed
from keepstone.remote.veil import Parcel, Veil
from keepstone.remote.wire import (
    Begun,
    Commit,
    Found,
    NodeRecord,
    Seen,
    Wanted,
    frame_record,
    handle_record,
    node_record,
)
from keepstone.store import ZERO_REF, Cut, DiskMemory, Fingerprints, Node, Outcome
from keepstone.store.frame import Frame
from keepstone.store.pipeline import Pipeline, Pipelined

__all__ = ["RemoteWriter", "Session"]

_BATCH = 3 << 20  # bytes of records that one request carries
_SPILL = 1 << 14  # chunk ids that are held as Python objects before they become a sorted column
_ID = 32
_IDS_HELD = 8 << 20  # bytes of ids of the previous point


class Session(Protocol):
    """What the service does for a writer. Every call may be repeated by whoever carries it."""

    def send(self, first: int, records: list[list[bytes]]) -> None:
        """Records from this number on, each in pieces."""

    def nodes(self, wanted: Wanted) -> list[Seen]:
        """Nodes of the previous point."""

    def ids(self, path: list[int]) -> bytes:
        """The ids of the chunks of one of these nodes."""

    def known(self, ids: bytes) -> Found:
        """Which of these chunks the previous point has."""

    def commit(self, commit: Commit) -> str:
        """Make the point; its id."""

    def abort(self) -> None:
        """Give up. Never raises."""


class RemoteWriter(Pipelined):
    """`Writer` over a session that has begun; also its pipeline's `ChunkStore`. One thread uses it."""

    def __init__(
        self,
        env: Env,
        session: Session,
        begun: Begun,
        veil: Veil,
        *,
        memory: DiskMemory,
        cache: NodeCache | None = None,
    ) -> None:
        """`memory`: of the disks of the parent."""
        self._session = session
        self._memory = memory
        self._veil = veil
        self._level = begun.level
        self._whole = begun.whole
        self._nodes = Nodes(begun.keys, session.nodes, cache if begun.whole else None)
        self._stale: set[int] = set()
        self._shareable: dict[int, bool] = {}  # by handle, where it is not
        self._ids: OrderedDict[int, bytes] = OrderedDict()
        self._ids_bytes = 0
        self._lock = threading.Lock()
        self._sent = Identities()
        self._made = self._records = 0
        self._batch: list[list[bytes]] = []
        self._batch_bytes = 0
        self._sending: Future[None] | None = None
        self._sender = env.pool()
        self._over = False
        self.messages: list[str] = []
        """Warnings that the service is told with the point."""
        self.parent = begun.parent
        self._manifest: SealedManifest | None = None
        self._open_parent(begun.keys)
        self._pipeline = Pipeline(env, self, spill=_SPILL)

    def _open_parent(self, keys: bytes) -> None:
        """Where the previous point cannot be opened, it is as if there was none: nothing of it is believed."""
        try:
            roots = b""
            if self.parent is not None:
                detail, roots = self._veil.open(self.parent.detail)
                self.parent = msgspec.structs.replace(self.parent, detail=detail)
            if isinstance(self._veil, Sealed):
                bodies = Bodies(self._nodes, self._veil, roots)
                self._manifest = SealedManifest(self._veil, self._nodes, bodies, self._id)
        except CorruptObject as error:
            if not keys:
                raise
            self.parent = None
            self.messages.append(f"the previous point is not used, all is read again: {error}")
            self._nodes = Nodes(b"", self._session.nodes)
            self._open_parent(b"")

    # ------------------------------------------------------------------ what workloads call

    @property
    def cut(self) -> Cut:
        """Where a file is cut into chunks."""
        return self._veil.cut

    def put_node(self, kind: str, chunks: list[int], children: list[int], body: bytes) -> int:
        if self._manifest is None:
            return self._put_node(kind, chunks, children, body)
        place = -1
        for made in self._manifest.make(kind, chunks, children, body):
            place = self._put_node(*made)
        return place

    def _put_node(self, kind: str, chunks: list[int], children: list[int], body: bytes) -> int:
        tell: list[tuple[int, int]] = []
        handles = self._nodes.handles
        record = NodeRecord(kind, encode_places(chunks, handles, tell), encode_places(children, handles, tell), body)
        for above, index in tell:
            self._put([handle_record(above, index)])
        self._put([node_record(record)])
        self._made += 1
        return NODES | self._made - 1

    def node(self, ref: int) -> Node:
        handle, seen = self._nodes.seen(ref)
        if seen.stale:
            self._stale.update(earlier(handle, index) for index in seen.stale)
        if seen.stale_children:
            self._stale.update(earlier(handle, index, child=True) for index in seen.stale_children)
        if not seen.shareable:
            self._shareable[handle] = False
        return self._nodes.node(ref) if self._manifest is None else self._manifest.bodies.node(ref)

    def chunk_refs(self, node: Node) -> list[int]:
        return chunk_refs(node)

    def child_refs(self, node: Node) -> list[int]:
        return child_refs(node)

    def parent_root(self) -> list[int]:
        roots = self._nodes.roots()
        if roots and not self._whole:
            (top,) = self._session.nodes(Wanted([[]]))
            self._stale.update([roots[index] for index in top.stale_children])
        return roots

    def fingerprints(self, disk: str) -> Fingerprints | None:
        return self._memory.of(disk)

    def usable(self, refs: list[int]) -> list[int] | None:
        if self._stale and not self._stale.isdisjoint(refs):
            return None
        return refs

    def shareable(self, node: Node) -> bool:
        return self._shareable.get(handle_of(node), True)

    def commit(self, outcome: Outcome) -> str:
        try:
            self.drain()
            tell: list[tuple[int, int]] = []
            root = encode_places(outcome.root, self._nodes.handles, tell)
            names = b"" if self._manifest is None else self._manifest.names(outcome.root)
            for above, index in tell:
                self._put([handle_record(above, index)])
            self._flush()
            self._settle()
            self._pipeline.close()
            point = self._session.commit(
                Commit(
                    records=self._records,
                    root=root,
                    detail=self._veil.close(outcome.detail, names),
                    source=outcome.source,
                    logical=outcome.logical,
                    read=outcome.read,
                    files=outcome.files,
                    warnings=outcome.warnings,
                    messages=self.messages,
                )
            )
        except BaseException:
            self.abort()
            raise
        self._memory.keep(point)
        self._close()
        return point

    def abort(self) -> None:
        if not self._over:
            self._close()
            self._session.abort()

    def __enter__(self) -> RemoteWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _close(self) -> None:
        self._over = True
        self._pipeline.close()
        self._memory.close()
        self._sender.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ what the pipeline calls

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._veil.identify(chunk)

    def compress(self, data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool) -> Frame:
        return self._veil.frame(self._level, data, ids, lengths, sample=sample)

    def append(self, frame: Frame) -> int:
        assert isinstance(frame, Parcel)
        lengths, ids = frame.wire_lengths, frame.wire_ids
        payload = bytes(frame.payload)  # a copy of what is stored as it is: it is sent later
        self._put(frame_record(frame.codec, sum(lengths), lengths, ids, payload))
        first = len(self._sent)
        self._sent.extend(frame.ids)
        if self._manifest is not None:
            self._manifest.sent(frame.lengths)
        return first

    def known(self, ids: list[bytes], hints: list[int]) -> list[int | None]:
        found: list[int | None] = [None] * len(ids)
        for index, hint in enumerate(hints):
            if 0 <= hint < ZERO_REF and self._id(hint) == ids[index]:
                found[index] = hint
        missing = [index for index, place in enumerate(found) if place is None]
        if not missing or self.parent is None:
            return found
        if self._manifest is not None:
            before = self._manifest.find([ids[index] for index in missing])
            for index in missing:
                found[index] = before.get(ids[index])
            return found
        answer = self._session.known(b"".join([ids[index] for index in missing]))
        for number, index in enumerate(answer.indexes):
            found[missing[index]] = FOUND | answer.first + number
        return found

    def appended(self, place: int) -> bytes:
        return self._sent.find(place)

    # ------------------------------------------------------------------ sending

    def _put(self, record: list[bytes]) -> None:
        self._batch.append(record)
        self._records += 1
        self._batch_bytes += sum(map(len, record))
        if self._batch_bytes >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        """Send what waits, beside other work."""
        if not self._batch:
            return
        self._settle()
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        self._sending = self._sender.submit(self._session.send, self._records - len(batch), batch)

    def _settle(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()

    # ------------------------------------------------------------------ ids

    def _id(self, place: int) -> bytes:
        """The id of a chunk of the previous point, or of what was sent."""
        if not place & EARLIER:
            return b"" if place & FOUND else self.appended(place)
        handle, index = split(place)
        with self._lock:
            ids = self._ids.get(handle)
            if ids is None:
                ids = self._ids[handle] = self._ids_of(handle)
                self._ids_bytes += len(ids)
                while self._ids_bytes > _IDS_HELD and len(self._ids) > 1:
                    self._ids_bytes -= len(self._ids.popitem(last=False)[1])
            else:
                self._ids.move_to_end(handle)
        return ids[_ID * index : _ID * index + _ID]

    def _ids_of(self, handle: int) -> bytes:
        if self._manifest is not None:
            return self._manifest.bodies.column(handle)[0]
        return self._session.ids(self._nodes.handles.path(handle))
