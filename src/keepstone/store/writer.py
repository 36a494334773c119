# SPDX-License-Identifier: Apache-2.0
"""Writing a recovery point into a store on this machine.

Order, each step durable before the next where it says so
1. lease (durable); then the tombstones are listed: what is condemned counts as absent.
2. packs: content durable when finished; chunks are looked up in the parent, in this session, in the index.
3. barrier: the names of all packs that this point newly refers to, its own and borrowed ones of other writers.
4. the commit cell (durable) = the point exists; `LeaseLost` where a collector was first.
5. the head entry (durable), then the lease goes. The caller may acknowledge.

Anything that fails before 4 leaves packs that no manifest names: reclaim collects them. Nothing that was there
before is touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from keepstone.crypto import Hashing
from keepstone.errors import KeepstoneError, LeaseLost, ObjectMissing
from keepstone.store.chunking import Cut, cut_file
from keepstone.store.commits import PointRecord
from keepstone.store.context import Context
from keepstone.store.fingerprints import DiskMemory, Fingerprints
from keepstone.store.footer import DATA, METADATA
from keepstone.store.frame import NODE_FRAME_LIMIT, Frame, make_frame
from keepstone.store.lane import Lane
from keepstone.store.layout import pack_id
from keepstone.store.node import Node, decode_node, encode_node
from keepstone.store.pipeline import Chunks, Pipeline, Pipelined, Scratch
from keepstone.store.refs import ZERO_REF, PackNumbers, encode_runs
from keepstone.store.session import Session

if TYPE_CHECKING:
    from keepstone.store.index import ChunkIndex
    from keepstone.store.lookup import Lookup

__all__ = ["LocalWriter", "Outcome", "Writer"]

_NODE_LEVEL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a workload says of its point when it commits: see `PointRecord`. `root`: places of the root nodes."""

    root: list[int]
    detail: bytes
    source: bytes
    logical: int
    read: int
    files: int
    warnings: int


class Writer(Protocol):
    """What a workload writes through; the same whether the store is here or behind a service."""

    parent: PointRecord | None

    @property
    def cut(self) -> Cut:
        """Where a file is cut into chunks."""

    @property
    def lane(self) -> Lane:
        """For whoever submits, where he makes many short calls."""

    def submit(
        self, read: Callable[[Scratch], Chunks], done: Callable[[list[int], Any], None], *, short_calls: bool = False
    ) -> None:
        """Queue a piece of data: see `Pipeline.submit`."""

    def drain(self) -> None:
        """Settle everything that was submitted."""

    def put_node(self, kind: str, chunks: list[int], children: list[int], body: bytes) -> int:
        """Store a manifest node; its place."""

    def node(self, ref: int) -> Node:
        """A node of the parent."""

    def chunk_refs(self, node: Node) -> list[int]:
        """The places of a node's data chunks."""

    def child_refs(self, node: Node) -> list[int]:
        """The places of a node's children."""

    def parent_root(self) -> list[int]:
        """The places of the parent's root nodes."""

    def fingerprints(self, disk: str) -> Fingerprints | None:
        """What this machine remembers of a disk of the parent, and will of the point's; None where it does not. `disk`:
        tells it from the item's others."""

    def usable(self, refs: list[int]) -> list[int] | None:
        """These places as a new node may name them; None where a chunk is about to be reclaimed and must be read
        again."""

    def shareable(self, node: Node) -> bool:
        """Whether the parent's node may be used as it stands."""

    def commit(self, outcome: Outcome) -> str:
        """Make the point visible and durable; its id."""

    def abort(self) -> None:
        """Give up; harmless after `commit`."""


class LocalWriter(Pipelined):
    """`Writer` over a storage of this machine; also the pipeline's `ChunkStore`. One thread uses it."""

    def __init__(
        self,
        context: Context,
        *,
        item: str,
        tag: str,
        kind: str,
        level: int,
        index: ChunkIndex,
        cache: Path | None,
        damaged: frozenset[str] = frozenset(),
        check: bool = False,
        tags: tuple[str, ...] = (),
        lock_until: int = 0,
    ) -> None:
        self._context = context
        self._item, self._kind, self._tags, self._lock_until = item, kind, tags, lock_until
        self._id_key = context.keys.id
        self._index = index
        self._lookup: Lookup | None = None
        self._lookup_lock = threading.Lock()
        self._borrowed: set[int] = set()
        self._nodes: list[bytes] = []
        self._node_bytes = 0
        self._shareable: dict[int, bool] = {}  # by pack, as far as it was asked
        self._session = session = Session(context, tag, level=level, check=check, cache=cache)
        try:
            self._started = context.env.wall_time()
            self._avoided = session.condemned | {pack_id(name) for name in damaged}
            self._usable = {  # packs that are there
                session.numbers.number(pack) for pack in session.packs.ids() if pack not in self._avoided
            }
            self.parent_id, self.parent = self._newest(tag, kind)
            self._memory = self._remembered(tag, cache)
            self._new_bytes = self._stored_bytes = 0
            self._pipeline = Pipeline(context.env, self)
        except BaseException:
            session.close()
            raise

    def _newest(self, tag: str, kind: str) -> tuple[str, PointRecord | None]:
        damaged: list[tuple[str, KeepstoneError]] = []  # a damaged point is no reason not to make a good one
        points = [
            (record.finished, commit, record)
            for commit, record in self._session.commits.records(tag, damaged)
            if isinstance(record, PointRecord) and record.kind == kind
        ]
        if not points:
            return "", None
        _, commit, record = max(points, key=lambda point: point[:2])
        return commit, record

    def _remembered(self, tag: str, cache: Path | None) -> DiskMemory:
        context, folder = self._context, cache / "fingerprints" if cache is not None else None
        derive = partial(context.hashing.keyed, context.keys.metadata)
        return DiskMemory(context.env, folder, tag, derive, self.parent_id)

    # ------------------------------------------------------------------ what workloads call

    @property
    def cut(self) -> Cut:
        return cut_file

    @property
    def commit_id(self) -> str:
        return self._session.commit_id

    @property
    def numbers(self) -> PackNumbers:
        """The packs that this session knows, by number."""
        return self._session.numbers

    @property
    def hashing(self) -> Hashing:
        """How its chunks are named."""
        return self._context.hashing

    @property
    def level(self) -> int:
        """How hard it compresses."""
        return self._session.level

    @property
    def undisturbed(self) -> bool:
        """Whether everything that the parent names may be named again as it stands: nothing is condemned, damaged or
        moved."""
        return not self._avoided and not self._session.moves

    def chunk_id(self, ref: int) -> bytes:
        """The id of a chunk or node of the parent. `ObjectMissing` where it is gone."""
        identity = self._session.chunk_id(self._session.moves.resolve(ref))
        if identity is None:
            raise ObjectMissing("a chunk of the previous recovery point is gone; run `keepstone store verify`")
        return identity

    @property
    def new_bytes(self) -> int:
        """Bytes of chunks that the store did not have, before compression."""
        return self._new_bytes

    @property
    def stored_bytes(self) -> int:
        """The same after compression."""
        return self._stored_bytes

    def put_node(self, kind: str, chunks: list[int], children: list[int], body: bytes) -> int:
        pack = self._session.pack(METADATA)
        ref = pack.number << 32 | pack.chunks + len(self._nodes)
        data = encode_node(kind, chunks, children, body, self._session.numbers)
        self._nodes.append(data)
        self._node_bytes += len(data)
        if self._node_bytes >= NODE_FRAME_LIMIT:
            self._flush_nodes()
        return ref

    def _flush_nodes(self) -> None:
        if self._nodes:
            ids = [self.identify(data) for data in self._nodes]
            lengths = [len(data) for data in self._nodes]
            frame = make_frame(self._context.hashing, _NODE_LEVEL, b"".join(self._nodes), ids, lengths)
            self._nodes, self._node_bytes = [], 0
            self._session.append(METADATA, frame)

    def node(self, ref: int) -> Node:
        try:
            return decode_node(self._session.packs.chunk(self._session.moves.resolve(ref)))
        except ObjectMissing as error:
            if self._session.commits.decided(self.commit_id):  # nothing is kept for a writer that was taken for dead
                raise LeaseLost(f"backup {self.commit_id} was aborted by a reclaim; start it again") from error
            raise

    def chunk_refs(self, node: Node) -> list[int]:
        return node.chunk_refs(self._session.numbers)

    def child_refs(self, node: Node) -> list[int]:
        return node.child_refs(self._session.numbers)

    def parent_root(self) -> list[int]:
        if self.parent is None:
            return []
        return Node("", self.parent.packs, b"", self.parent.root, b"").child_refs(self._session.numbers)

    def fingerprints(self, disk: str) -> Fingerprints | None:
        return self._memory.of(disk)

    def usable(self, refs: list[int]) -> list[int] | None:
        refs = self._session.moves.resolve_all(refs)
        usable = self._usable
        for ref in refs:
            if ref >> 32 not in usable and ref != ZERO_REF:
                return None
        return refs

    def shareable(self, node: Node) -> bool:
        number = self._session.numbers.number
        return all(self._stays(number(node.packs[at : at + 32])) for at in range(0, len(node.packs), 32))

    def _stays(self, number: int) -> bool:
        """Whether all that a node may name in this pack stays where it is, or where compactions moved it."""
        stays = self._shareable.get(number)
        if stays is None:
            moves, ids = self._session.moves, self._session.numbers.ids
            stays = self._shareable[number] = all(
                pack in self._usable or (pack in moves.old and ids[pack] not in self._avoided)
                for pack in moves.leads_to(number)
            )
        return stays

    def commit(self, outcome: Outcome) -> str:
        try:
            self.drain()
            self._flush_nodes()
            table: dict[int, int] = {}
            root = encode_runs(outcome.root, table)
            record = PointRecord(
                item=self._item,
                kind=self._kind,
                host=self._context.env.process().host,
                source=outcome.source,
                started=self._started,
                finished=self._context.env.wall_time(),
                packs=b"".join(self._session.numbers.ids[number] for number in table),
                root=root,
                detail=outcome.detail,
                parent=self.parent_id,
                lock_until=self._lock_until,
                logical=outcome.logical,
                read=outcome.read,
                added=self.new_bytes,
                stored=self.stored_bytes,
                files=outcome.files,
                warnings=outcome.warnings,
                tags=list(self._tags),
            )
            self._pipeline.close()
            commit = self._session.publish(record, self._borrowed, "commit")
        except BaseException:
            self.abort()
            raise
        self._memory.keep(commit)
        return commit

    def abort(self) -> None:
        self._pipeline.close()
        self._memory.close()
        self._session.close()

    def __enter__(self) -> LocalWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    # ------------------------------------------------------------------ what the pipeline calls

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._context.hashing.keyed(self._id_key, chunk)

    def compress(
        self, data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool = False
    ) -> Frame:
        return make_frame(self._context.hashing, self._session.level, data, ids, lengths, sample=sample)

    def append(self, frame: Frame) -> int:
        place = self._session.append(DATA, frame)
        self._new_bytes += frame.raw_length
        self._stored_bytes += len(frame.payload)
        return place

    def known(self, ids: list[bytes], hints: list[int]) -> list[int | None]:
        refs: list[int | None] = [None] * len(ids)
        chunk_id = self._session.packs.chunk_id
        for index, hint in enumerate(hints):
            pack = hint >> 32
            if hint >= 0 and pack in self._usable and chunk_id(hint) == ids[index]:
                refs[index] = self._now(hint)
        wanted = [identity for identity, ref in zip(ids, refs, strict=True) if ref is None]
        found = self._look_up(wanted)
        if found:
            refs = [found.get(identity) if ref is None else ref for identity, ref in zip(ids, refs, strict=True)]
        return refs

    def appended(self, place: int) -> bytes | None:
        return self._session.chunk_id(place)

    def _look_up(self, ids: list[bytes]) -> dict[bytes, int]:
        if not ids:
            return {}
        with self._lookup_lock:
            if self._lookup is None:
                from keepstone.store.lookup import Lookup

                self._lookup = Lookup(self._index, self._session.packs, self._avoided)
        found = {identity: self._now(ref) for identity, ref in self._lookup.find(ids).items()}
        known = {identity: ref for identity, ref in found.items() if ref is not None}
        self._borrowed.update([ref >> 32 for ref in known.values()])
        return known

    def _now(self, ref: int) -> int | None:
        """Where the chunk at this place is now; None where that may go: the old pack alone keeps it from nobody."""
        now = self._session.moves.resolve(ref)
        return now if now == ref or now >> 32 in self._usable else None
