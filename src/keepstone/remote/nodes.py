# SPDX-License-Identifier: Apache-2.0
"""The nodes of a point behind a service: fetched many at a time, and kept on this machine as far as there is room.

A node is known by a key that its parent has, which no two nodes share; so one that was fetched once is good for every
later point that has it. What is kept is a cache: it may go at any moment, and nothing in it is trusted without the
service naming its key.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from keepstone.errors import CorruptObject
from keepstone.remote.places import Handles, earlier, split
from keepstone.remote.wire import KEY, Seen, Wanted, parse_zeros
from keepstone.store import ZERO_REF, Node

__all__ = ["NodeCache", "Nodes", "child_refs", "chunk_refs", "handle_of"]

_AHEAD = 8 << 20  # bytes of nodes that are held though nobody has asked for them yet
_SIBLINGS = 256  # nodes that one request asks for at most
_COUNT = 8  # bytes


class NodeCache(Protocol):
    """Where nodes are kept by their keys. What cannot be kept or found is no error."""

    def get(self, key: bytes) -> Seen | None:
        """The node with this key, if it is there."""

    def has(self, key: bytes) -> bool:
        """Whether it is there."""

    def put(self, key: bytes, node: Seen) -> None:
        """Keep a node."""


class Nodes:
    """The nodes of one point. `keys`: of its roots. `ask` fetches nodes. One thread at a time is in here."""

    def __init__(self, keys: bytes, ask: Callable[[Wanted], list[Seen]], cache: NodeCache | None = None) -> None:
        self.handles = Handles()
        self._ask = ask
        self._cache = cache
        self._lock = threading.RLock()
        self._keys: dict[int, bytes] = {0: keys}
        self._ahead: OrderedDict[int, Seen] = OrderedDict()
        self._ahead_bytes = 0
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._seen_bytes = 0

    def roots(self) -> list[int]:
        """The places of the point's roots."""
        return [earlier(0, index, child=True) for index in range(len(self._keys[0]) // KEY)]

    def seen(self, place: int) -> tuple[int, Seen]:
        """(handle, node) at a place. `CorruptObject` where it cannot be read."""
        with self._lock:
            handle = self.handles.of(place)
            node = self._seen.get(handle)
            if node is not None:
                self._seen.move_to_end(handle)
            else:
                node = self._ahead.pop(place, None)
                if node is not None:
                    self._ahead_bytes -= _weight(node)
                else:
                    node = self._kept(place) or self._fetch(place)
                self._keep(handle, node)
            if node.error:
                raise CorruptObject(node.error)
            return handle, node

    def node(self, place: int) -> Node:
        """The same as a node. Its runs mean something to `chunk_refs` and `child_refs` only."""
        handle, seen = self.seen(place)
        runs = handle.to_bytes(_COUNT, "little")
        chunks, children = seen.chunks.to_bytes(_COUNT, "little"), seen.children.to_bytes(_COUNT, "little")
        return Node(seen.kind, seen.zeros, runs + chunks, runs + children, seen.body)

    def _keep(self, handle: int, node: Seen) -> None:
        self._keys[handle] = node.keys
        self._seen[handle] = node
        self._seen_bytes += _weight(node)
        while self._seen_bytes > _AHEAD and len(self._seen) > 1:
            gone, old = self._seen.popitem(last=False)
            self._seen_bytes -= _weight(old)
            self._keys.pop(gone, None)

    def _key(self, place: int) -> bytes:
        above, index = split(place)
        keys = self._keys.get(above)
        if keys is None:  # the node above was let go
            path = self.handles.path(above)
            keys = self._keys[above] = self._ask(Wanted([path]))[0].keys
        return keys[KEY * index : KEY * index + KEY]

    def _kept(self, place: int) -> Seen | None:
        return self._cache.get(self._key(place)) if self._cache is not None else None

    def _fetch(self, place: int) -> Seen:
        """This node, and with it those that will be asked for next."""
        above, index = split(place)
        self._key(place)
        keys = self._keys[above]
        way = self.handles.path(above)
        paths, kept = [], 0
        for sibling in range(index, min(len(keys) // KEY, index + _SIBLINGS)):
            other = earlier(above, sibling, child=True)
            if sibling != index and (other in self._ahead or self._cached(keys, sibling)):
                kept += 1
                continue
            paths.append([*way, sibling])
        wanted = None
        deep = not kept and (above > 0 or self._cache is None)  # beneath a new root is mostly what is kept
        for node in self._ask(Wanted(paths, deep)):
            at = self._place(node.path)
            if self._cache is not None and not node.error and not node.stale and not node.stale_children:
                key = self._key_of(node.path)
                if key:
                    self._cache.put(key, node)
            if at == place:
                wanted = node
                self._keys[self.handles.of(at)] = node.keys  # those below it come in the same answer
                continue
            if at not in self._ahead:
                self._ahead[at] = node
                self._ahead_bytes += _weight(node)
        while self._ahead_bytes > 2 * _AHEAD and self._ahead:
            self._ahead_bytes -= _weight(self._ahead.popitem(last=False)[1])  # what nobody came for, or will again
        if wanted is None:
            raise CorruptObject("the service did not send a node of the manifest that it was asked for")
        return wanted

    def _cached(self, keys: bytes, index: int) -> bool:
        return self._cache is not None and self._cache.has(keys[KEY * index : KEY * index + KEY])

    def _place(self, path: list[int]) -> int:
        handle = 0
        for index in path[:-1]:
            handle = self.handles.of(earlier(handle, index, child=True))
        return earlier(handle, path[-1], child=True)

    def _key_of(self, path: list[int]) -> bytes:
        """The key of a node that came with its parent, or after it."""
        place = self._place(path)
        above, _ = split(place)
        keys = self._keys.get(above)
        if keys is None:
            node = self._ahead.get(self._place(path[:-1])) if len(path) > 1 else None
            keys = node.keys if node is not None else b""
        return keys[KEY * path[-1] : KEY * path[-1] + KEY]


def chunk_refs(node: Node) -> list[int]:
    """The places of the chunks of a node of `Nodes.node`."""
    places = list(_range(node.chunks, child=False))
    for first, count in parse_zeros(node.packs):
        places[first : first + count] = [ZERO_REF] * len(places[first : first + count])
    return places


def child_refs(node: Node) -> list[int]:
    """The places of its children."""
    return list(_range(node.children, child=True))


def _range(runs: bytes, *, child: bool) -> range:
    handle, count = int.from_bytes(runs[:_COUNT], "little"), int.from_bytes(runs[_COUNT:], "little")
    first = earlier(handle, 0, child=child)
    return range(first, first + count)


def handle_of(node: Node) -> int:
    """The handle of a node of `Nodes.node`."""
    return int.from_bytes(node.chunks[:_COUNT], "little")


def _weight(node: Seen) -> int:
    return len(node.body) + len(node.keys) + 200
