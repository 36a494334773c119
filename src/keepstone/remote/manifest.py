# SPDX-License-Identifier: Apache-2.0
"""The manifest of a sealed item while a point of it is made: what its nodes say that the service is not to know.

It remembers the length of every chunk and the name of every node that was sent. What the previous point has is found by
its own nodes, since the service cannot look for it: the ids in them are gathered once, when a chunk is met that is not
where it was.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from keepstone.errors import CorruptObject, WriterFailed
from keepstone.remote.bodies import Bodies
from keepstone.remote.nodes import Nodes
from keepstone.remote.places import EARLIER, FOUND, NODES, earlier, split
from keepstone.remote.sealed import COLUMNS, SLICE, Body, Sealed, slices_of
from keepstone.store import ZERO_REF

if TYPE_CHECKING:
    from keepstone.store.spilled import SpilledIds

__all__ = ["Made", "SealedManifest"]

_ID = 32
_GATHERED = 1 << 16  # ids that are held as Python objects before they become a sorted column


class Made(NamedTuple):
    """A node as it is sent. `chunks`, `children`: places."""

    kind: str
    chunks: list[int]
    children: list[int]
    body: bytes


class SealedManifest:
    """`nodes`, `bodies`: of the previous point. `identity`: the id of a chunk at a place, of it or of what was sent.
    One thread uses it; `find` is for several."""

    def __init__(self, veil: Sealed, nodes: Nodes, bodies: Bodies, identity: Callable[[int], bytes]) -> None:
        self.bodies = bodies
        self._veil = veil
        self._nodes = nodes
        self._identity = identity
        self._lengths = array("I")  # of the chunks that were sent
        self._names = bytearray()  # of the nodes that were sent
        self._before: SpilledIds | None = None
        self._lock = threading.Lock()

    def sent(self, lengths: list[int]) -> None:
        """Chunks of these lengths were sent."""
        self._lengths.extend(lengths)

    def make(self, kind: str, chunks: list[int], children: list[int], body: bytes) -> Iterator[Made]:
        """The node, after those that hold what it has no room for. Each has to be sent before the next one is asked
        for."""
        ids, lengths = self._columns(chunks)
        names = self.names(children)
        beside: list[int] = []
        for number in range(slices_of(len(chunks))):
            part = slice(number * SLICE, (number + 1) * SLICE)
            beside.append(NODES | len(self._names) // _ID)
            some = lengths[part]
            yield self._made(
                kind + COLUMNS, [], [], Body(b"", ids[_ID * part.start : _ID * part.stop], some, b"", len(some), 0)
            )
        if beside:
            ids, lengths = b"", array("I")
            names += self.names(beside)
        whole = Body(body, ids, lengths, names, len(chunks), len(children))
        yield self._made(kind, chunks, children + beside, whole)

    def _made(self, kind: str, chunks: list[int], children: list[int], body: Body) -> Made:
        sealed = self._veil.seal_node(kind, body)
        self._names += sealed[:_ID]
        return Made(kind, chunks, children, sealed)

    def names(self, places: list[int]) -> bytes:
        """The names of the nodes at these places."""
        names = []
        for place in places:
            if place & EARLIER:
                names.append(self.bodies.name(*split(place)))
            else:
                number = place & ~NODES
                names.append(bytes(self._names[_ID * number : _ID * number + _ID]))
        return b"".join(names)

    def _columns(self, chunks: list[int]) -> tuple[bytes, array[int]]:
        """The ids and lengths of these chunks."""
        ids, lengths = [], array("I")
        handle, column = -1, (b"", array("I"))
        for place in chunks:
            if place == ZERO_REF:
                ids.append(bytes(_ID))
                lengths.append(0)
            elif place & EARLIER:
                before = handle
                handle, index = split(place)
                if handle != before:
                    column = self.bodies.column(handle)
                ids.append(column[0][_ID * index : _ID * index + _ID])
                lengths.append(column[1][index])
            elif place & FOUND:
                raise WriterFailed("a chunk of a sealed item was looked for by its service; start the backup again")
            else:
                ids.append(self._identity(place))
                lengths.append(self._lengths[place])
        return b"".join(ids), lengths

    # ------------------------------------------------------------------ the chunks of the previous point

    def find(self, ids: list[bytes]) -> dict[bytes, int]:
        """The places of those that the previous point has."""
        with self._lock:
            if self._before is None:
                self._before = self._gather()
        return self._before.find(ids) if ids else {}

    def _gather(self) -> SpilledIds:
        from keepstone.store.spilled import SpilledIds

        found = SpilledIds(self._identity)
        some: dict[bytes, int] = {}
        pending = self._nodes.roots()
        while pending:
            try:
                handle, seen = self._nodes.seen(pending.pop())
                body = self.bodies.of(handle)
                ids = self.bodies.column(handle)[0]
            except CorruptObject:
                continue  # what cannot be read is not known
            stale = set(seen.stale)
            for index in range(body.chunks):
                identity = ids[_ID * index : _ID * index + _ID]
                if index not in stale and any(identity):
                    some[identity] = earlier(handle, index)
            if len(some) >= _GATHERED:
                found.add(some)
                some = {}
            pending += [earlier(handle, index, child=True) for index in range(body.children)]
        if some:
            found.add(some)
        return found
