# SPDX-License-Identifier: Apache-2.0
"""A machine and its service without anything between them but the messages: each is encoded and decoded as on the wire.

The near half is the service's own (`WriteSession`, `Readings`), the far half the agent's (`RemoteWriter`,
`RemoteReader`), and both are asked as their workloads ask a store that is here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec

from keepstone.control.sessions.reading import Readings, _Open
from keepstone.control.sessions.session import WriteSession, namer
from keepstone.control.sessions.view import View
from keepstone.crypto import hashing
from keepstone.disks import RawSource
from keepstone.env import Env
from keepstone.errors import CorruptObject, ObjectMissing
from keepstone.remote.framed import Taker, unframed
from keepstone.remote.nodes import NodeCache
from keepstone.remote.reader import RemoteReader
from keepstone.remote.veil import Plain, Veil
from keepstone.remote.wire import (
    CHUNK_HEAD,
    CORRUPT,
    FRAMED,
    MISSING,
    Begun,
    Commit,
    Fetch,
    Found,
    Opened,
    Seen,
    Wanted,
    decode,
    encode,
    parse_chunk_head,
)
from keepstone.remote.writer import RemoteWriter
from keepstone.store import DiskMemory, LocalReader, Point, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import Report, Selection, backup_files
from keepstone.workloads.images import Report as ImageReport
from keepstone.workloads.images import backup_image

__all__ = ["Direct", "DirectPoint", "Far"]

MACHINE = UUID(int=7)


class Direct:
    """`remote.writer.Session` over the service's own, with what was said in the order in which it was."""

    def __init__(self, session: WriteSession) -> None:
        self.session = session
        self.said: list[tuple[str, bytes, bytes]] = []
        """(call, request, answer)"""
        self.next = 0

    @property
    def sent(self) -> int:
        """Bytes of records."""
        return sum(len(request) for call, request, _ in self.said if call == "records")

    def count(self, call: str) -> int:
        """How often this was asked."""
        return sum(call == one for one, _, _ in self.said)

    def send(self, first: int, records: list[list[bytes]]) -> None:
        assert first == self.next
        data = b"".join([b"".join(record) for record in records])
        self.next = self.session.receive(first, memoryview(data))
        assert self.next == first + len(records)
        self.said.append(("records", data, b""))

    def nodes(self, wanted: Wanted) -> list[Seen]:
        return decode(
            self._ask("nodes", encode(wanted), lambda body: self.session.nodes(decode(body, Wanted))), list[Seen]
        )

    def ids(self, path: list[int]) -> bytes:
        answer = self.session.ids(decode(encode(path), list[int]))
        self.said.append(("ids", encode(path), answer))
        return answer

    def known(self, ids: bytes) -> Found:
        return decode(self._ask("known", ids, self.session.known), Found)

    def commit(self, commit: Commit) -> str:
        self.said.append(("commit", encode(commit), b""))
        return self.session.commit(decode(encode(commit), Commit))

    def abort(self) -> None:
        self.session.abort()

    def _ask(self, call: str, body: bytes, answer: Callable[[bytes], object]) -> bytes:
        said = encode(answer(body))  # type: ignore[arg-type]
        self.said.append((call, body, said))
        return said


class _Readings(Readings):
    """Those of one point, which is open."""

    def __init__(self, store: Store, reader: LocalReader, item: str) -> None:
        self.alone = False
        self._one = _Open(UUID(int=1), store, reader, View(reader, reader.root(), namer(store, item)))

    def _of(self, machine: UUID, job: str, token: int) -> _Open:
        return self._one

    def _framed(self, one: _Open, machine: UUID) -> bool:
        return self.alone


class DirectPoint:
    """`remote.reader.Point` over the service's own. `pieces`: the answers to `fetch`, as they were handed on."""

    def __init__(self, store: Store, reader: LocalReader, item: str) -> None:
        self.readings = _Readings(store, reader, item)
        self.pieces: list[bytes] = []

    def open(self) -> Opened:
        return decode(self.ask("open"), Opened)

    def nodes(self, wanted: Wanted) -> list[Seen]:
        return decode(self.ask("nodes", encode(wanted)), list[Seen])

    def columns(self, path: list[int]) -> bytes:
        return self.ask("columns", encode(path))

    def ask(self, verb: str, body: bytes = b"") -> bytes:
        """One call."""
        return self.readings.ask(MACHINE, verb, "", 0, memoryview(body))

    def fetch(self, fetch: Fetch, taker: Taker) -> None:
        fetch = msgspec.structs.replace(fetch, frames=taker.check is not None)
        pieces: list[bytes] = []
        self.readings.fetch(MACHINE, "", 0, memoryview(encode(fetch)), lambda piece: pieces.append(bytes(piece)))
        self.pieces += pieces
        data = memoryview(b"".join(pieces))
        at = 0
        while at < len(data):
            node, index, length = parse_chunk_head(data[at : at + CHUNK_HEAD])
            at += CHUNK_HEAD
            chunk = data[at : at + length]
            at += length
            if node == MISSING:
                raise ObjectMissing(bytes(chunk).decode())
            if node == CORRUPT:
                raise CorruptObject(bytes(chunk).decode())
            if node != FRAMED:
                taker.sink(node, index, chunk)
                continue
            assert taker.check is not None
            parts = list(unframed(index, chunk, taker.room))
            with taker.turn(len(parts), sum(len(part) for _, _, part in parts)):
                for one, number, part in parts:
                    taker.check(one, number, part)
                    taker.sink(one, number, part)


class Far:
    """A machine that has one item in a store. `begun`: what its newest session was told; `direct`: that session."""

    def __init__(self, env: Env, store: Store, item: str = "tree", cache: NodeCache | None = None) -> None:
        self.env, self.store, self.item = env, store, item
        self.cache = cache
        self.memory: Path | None = None
        self.begun: Begun
        self.direct: Direct
        self.heard = Silent()

    def session(self, kind: str = "files") -> Direct:
        """Begin a session, as `Registry` does."""
        writer = self.store.writer(self.item, kind)
        session = WriteSession(self.env.random(16).hex(), self.store, self.item, writer, self.env.pool(), kind)
        self.direct = Direct(session)
        self.begun = decode(encode(session.begun()), Begun)
        return self.direct

    def veil(self, named: Begun | Opened) -> Veil:
        """Between the workload and the wire: nothing."""
        return Plain(hashing(named.hashing), named.id_key)

    def writer(self, kind: str = "files") -> RemoteWriter:
        """A writer for the next point."""
        return self.writer_of(self.session(kind), self.begun)

    def writer_of(self, session: Direct, begun: Begun) -> RemoteWriter:
        """The machine's writer of a session that has begun so."""
        veil = self.veil(begun)
        memory = DiskMemory(self.env, self.memory, self.item, veil.derive, begun.parent_id)
        return RemoteWriter(self.env, session, begun, veil, memory=memory, cache=self.cache)

    def back_up(self, source: Path, selection: Selection | None = None) -> Report:
        """A point of a tree."""
        self.heard = Silent()
        with self.writer() as writer:
            return backup_files(self.env, writer, source, selection or Selection(), self.heard)

    def back_up_image(self, source: Path) -> ImageReport:
        """A point of a disk."""
        self.heard = Silent()
        with self.writer("images") as writer, RawSource(self.env, source) as disk:
            return backup_image(self.env, writer, disk, self.heard, name=b"/dev/disk")

    def point(self, commit: str) -> Point:
        """What the store has of it."""
        return self.store.points.find(commit)

    def far(self, commit: str) -> DirectPoint:
        """The point as the service shows it."""
        return DirectPoint(self.store, self.store.reader(self.point(commit)), self.item)

    def reader(self, commit: str) -> RemoteReader:
        """The point as the machine reads it."""
        point = self.far(commit)
        opened = point.open()
        return RemoteReader(self.env, point, opened, self.veil(opened))
