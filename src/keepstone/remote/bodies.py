# SPDX-License-Identifier: Apache-2.0
"""The nodes of a sealed point, opened: each is the one that the node above it names, and so on up to the detail."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from typing import TypeAlias

import msgspec

from keepstone.errors import CorruptObject
from keepstone.remote.nodes import Nodes
from keepstone.remote.places import earlier
from keepstone.remote.sealed import COLUMNS, Body, Sealed, slices_of
from keepstone.remote.wire import zero_runs
from keepstone.store import Node

__all__ = ["Bodies", "Column"]

_HELD = 16 << 20  # bytes of bodies
_ID = 32

Column: TypeAlias = "tuple[bytes, array[int]]"
"""The ids of a node's chunks, 32 bytes each, and their lengths; of a chunk of zeros both are zero."""


class Bodies:
    """`roots`: the names of the point's roots. `CorruptObject` where there are not as many. Safe for several
    threads."""

    def __init__(self, nodes: Nodes, veil: Sealed, roots: bytes) -> None:
        if len(nodes.roots()) * _ID != len(roots):
            raise CorruptObject("a recovery point has not the roots that it had; restore another one")
        self._nodes = nodes
        self._veil = veil
        self._roots = roots
        self._held: OrderedDict[int, Body] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()

    def node(self, place: int) -> Node:
        """The node at a place, as `Nodes.node` has it; what the service says of its chunks has to agree."""
        node, (handle, seen) = self._nodes.node(place), self._nodes.seen(place)
        body = self.of(handle)
        lengths = self.column(handle)[1]
        if seen.zeros != zero_runs([not length for length in lengths]):
            raise _disagree()
        count = body.children.to_bytes(len(node.children) // 2, "little")
        children = node.children[: -len(count)] + count
        return msgspec.structs.replace(node, children=children, body=body.text)

    def of(self, handle: int) -> Body:
        """The body of the node with this handle."""
        with self._lock:
            way = []
            while handle and handle not in self._held:
                way.append(handle)
                handle = self._nodes.handles.above(handle)[0]
            body = self._held.get(handle)
            if body is not None:
                self._held.move_to_end(handle)
            for below in reversed(way):
                names = self._roots if body is None else body.names
                body = self._open(below, names)
            assert body is not None
            return body

    def column(self, handle: int) -> Column:
        """Of the chunks of the node with this handle."""
        body = self.of(handle)
        slices = slices_of(body.chunks)
        if not slices:
            return body.ids, body.lengths
        ids, lengths = bytearray(), array("I")
        for number in range(slices):
            part = self.of(self._nodes.seen(earlier(handle, body.children + number, child=True))[0])
            ids += part.ids
            lengths += part.lengths
        if len(lengths) != body.chunks:
            raise _disagree()
        return bytes(ids), lengths

    def name(self, handle: int, index: int) -> bytes:
        """The name of a child of the node with this handle; 0: of the point."""
        names = self.of(handle).names if handle else self._roots
        return names[_ID * index : _ID * index + _ID]

    def _open(self, handle: int, names: bytes) -> Body:
        above, index = self._nodes.handles.above(handle)
        seen = self._nodes.seen(earlier(above, index, child=True))[1]
        body = self._veil.open_node(seen.kind, seen.body, names[_ID * index : _ID * index + _ID])
        chunks = 0 if seen.kind.endswith(COLUMNS) else body.chunks
        if seen.chunks != chunks or seen.children * _ID != len(body.names):
            raise _disagree()
        self._held[handle] = body
        self._bytes += _weight(body)
        while self._bytes > _HELD and len(self._held) > 1:
            self._bytes -= _weight(self._held.popitem(last=False)[1])
        return body


def _weight(body: Body) -> int:
    return 200 + len(body.text) + len(body.ids) + 4 * len(body.lengths) + len(body.names)


def _disagree() -> CorruptObject:
    return CorruptObject(
        "the service says something else of a node of the manifest than the node itself; restore another point"
    )
