# SPDX-License-Identifier: Apache-2.0
"""Points that machines read: each for a restore or a mount that the machine was told to do, and while that goes on.

The ticket is the job: who holds it may read its point. Readers are kept for a while, since a restore asks many times.

An answer has the chunks in the order in which they were asked for, and says of damage only that there is some: in which
pack a chunk lies, and beside what, would tell what others have. Where there are no others (`control/writers.py`), it
has whole frames, if the machine can read them.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from uuid import UUID

from keepstone.control import points, writers
from keepstone.control.mounting import MOUNT
from keepstone.control.plane import Plane
from keepstone.control.sessions import machine as machines
from keepstone.control.sessions.framing import read_framed
from keepstone.control.sessions.session import blank, namer
from keepstone.control.sessions.view import DAMAGED, View
from keepstone.control.work.loading import subject
from keepstone.control.work.restore import RESTORE
from keepstone.errors import CorruptObject, InvalidRequest, ObjectMissing
from keepstone.jobs import Context
from keepstone.remote.framed import Head
from keepstone.remote.wire import CHUNK_HEAD, CORRUPT, GONE, MISSING, Fetch, Opened, Wanted, chunk_head, decode, encode
from keepstone.store import SEALED, ZERO_REF, LocalReader, Store
from keepstone.vault import RecoveryPoint

__all__ = ["Readings"]

_log = logging.getLogger(__name__)
_KEPT = 16  # readers
_TRUST = 10  # seconds for which a ticket is not looked at again
_BATCH = 8 << 20  # bytes that are read together
_PIECE = 1 << 20  # bytes that are handed on together
_MOST = 1 << 16  # chunks of one request


@dataclass(slots=True)
class _Open:
    vault: UUID
    store: Store
    reader: LocalReader
    view: View


class Readings:
    """Safe for several threads."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._open: OrderedDict[tuple[UUID, str], _Open] = OrderedDict()
        self._tickets: dict[tuple[UUID, str, int], tuple[int, RecoveryPoint]] = {}
        self._lock = threading.Lock()

    def ask(self, machine: UUID, verb: str, job: str, token: int, body: memoryview) -> bytes:
        """One call of a machine's agent; see `remote.reader.Point`."""
        one = self._of(machine, job, token)
        if verb == "open":
            context = one.store.context
            return encode(
                Opened(
                    point=blank(one.reader.point),
                    keys=one.view.keys,
                    id_key=context.keys.id,
                    hashing=one.store.descriptor.hashing,
                    frames=self._framed(one, machine),
                )
            )
        if verb == "nodes":
            return encode(one.view.seen(decode(body, Wanted)))
        if verb == "columns":
            path = decode(body, list[int])
            lengths = [0 if ref == ZERO_REF else _length(one.reader, ref) for ref in one.view.at(path).chunks]
            return one.view.ids(path) + struct.pack(f"<{len(lengths)}I", *lengths)
        raise InvalidRequest(f"there is no call {verb!r}")

    def fetch(self, machine: UUID, job: str, token: int, body: memoryview, put: Callable[[memoryview], None]) -> None:
        """The chunks that are wanted, with their heads, in pieces to `put`; damage is told at the end."""
        one = self._of(machine, job, token)
        fetch = decode(body, Fetch)
        frames = fetch.frames and self._framed(one, machine)
        damage: Exception | None = None
        for refs, heads, lengths in _batches(one.reader, self._wanted(one, fetch), whole=frames):
            if frames:
                pieces, lost = read_framed(one.reader, refs, heads)
                frames = self._framed(one, machine)  # what others brought meanwhile is in no frame that goes
            if not frames:
                data, lost = _read(one.reader, refs, heads, lengths)
                pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
            damage = damage or lost
            for piece in pieces:
                put(piece)
        if damage is not None:
            _log.warning("a point cannot be read as a whole: %s", damage)
            text = DAMAGED.encode()
            put(memoryview(chunk_head(CORRUPT if isinstance(damage, CorruptObject) else MISSING, 0, len(text)) + text))

    def _framed(self, one: _Open, machine: UUID) -> bool:
        """Whether frames may go to this machine: all that there is, is its own, and it is not sealed."""
        is_sealed = one.reader.point.kind.startswith(SEALED)
        return not is_sealed and writers.is_alone(self._plane, one.vault, machine)

    @staticmethod
    def _wanted(one: _Open, fetch: Fetch) -> list[tuple[int, Head]]:
        wanted: list[tuple[int, Head]] = []
        for number, (path, indexes) in enumerate(fetch.nodes):
            chunks = one.view.at(path).chunks
            if len(indexes) % 4:
                raise InvalidRequest("numbers of chunks have 4 bytes each")
            for index, (at,) in enumerate(struct.iter_unpack("<I", indexes)):
                if at >= len(chunks) or len(wanted) >= _MOST or chunks[at] == ZERO_REF:
                    raise InvalidRequest("a chunk was asked for that the point does not have")
                wanted.append((chunks[at], (number, index)))
        return wanted

    def _of(self, machine: UUID, job: str, token: int) -> _Open:
        point = self._ticket(machine, job, token)
        key = point.vault, point.commit_id
        with self._lock:
            one = self._open.get(key)
            if one is None:
                store = self._plane.stores.open(point.vault)
                reader = points.opened(store, point, sealed=True)
                view = View(reader, reader.root(), namer(store, str(point.item)))
                one = self._open[key] = _Open(point.vault, store, reader, view)
                if len(self._open) > _KEPT:
                    self._open.popitem(last=False)  # whoever is at it keeps it until the end of his request
            else:
                self._open.move_to_end(key)
            return one

    def _ticket(self, machine: UUID, job: str, token: int) -> RecoveryPoint:
        now = self._plane.env.boot_time()
        key = machine, job, token
        known = self._tickets.get(key)
        if known is not None and now < known[0]:
            return known[1]
        mine = machines.held(self._plane, machine, job, token)
        if mine.operation not in (RESTORE, MOUNT):
            raise InvalidRequest("a job of another kind reads no point")
        about = subject(self._plane, Context(self._plane.queue, mine))
        with self._plane.look() as connection:
            found = points.find(connection, about.item, mine.arguments["point"])
        with self._lock:
            if len(self._tickets) > 10_000:
                self._tickets.clear()
            self._tickets[key] = now + _TRUST * 10**9, found
        return found


def _length(reader: LocalReader, ref: int) -> int:
    try:
        return reader.chunk_length(ref)
    except (CorruptObject, ObjectMissing):
        return GONE


def _batches(
    reader: LocalReader, wanted: list[tuple[int, Head]], *, whole: bool
) -> Iterator[tuple[list[int], list[Head], list[int]]]:
    """(places, heads, lengths) in their order, as many at a time as fit into memory. `whole`: no frame is divided where
    its chunks follow one another."""
    refs: list[int] = []
    heads: list[Head] = []
    lengths: list[int] = []
    size = 0
    for ref, head in wanted:
        if size >= _BATCH and not (whole and reader.in_one_frame(refs[-1], ref)):
            yield refs, heads, lengths
            refs, heads, lengths, size = [], [], [], 0
        length = _length(reader, ref)
        refs.append(ref)
        heads.append(head)
        lengths.append(length if length != GONE else 0)
        size += lengths[-1]
    if refs:
        yield refs, heads, lengths


def _read(
    reader: LocalReader, refs: list[int], heads: list[Head], lengths: list[int]
) -> tuple[memoryview, CorruptObject | ObjectMissing | None]:
    """Chunks with their heads, each copied once to where it belongs; those that can be read, and why not all."""
    begins = list(accumulate([length + CHUNK_HEAD for length in lengths], initial=0))
    data = memoryview(bytearray(begins[-1]))
    there = bytearray(len(refs))

    def take(number: int, chunk: memoryview) -> None:
        at = begins[number] + CHUNK_HEAD
        data[at - CHUNK_HEAD : at] = chunk_head(*heads[number], len(chunk))
        data[at : at + len(chunk)] = chunk
        there[number] = 1

    try:
        reader.fetch([(ref, number) for number, ref in enumerate(refs)], take)
    except (CorruptObject, ObjectMissing) as error:
        kept = [data[begins[number] : begins[number + 1]] for number, found in enumerate(there) if found]
        return memoryview(b"".join(kept)), error
    return data, None
