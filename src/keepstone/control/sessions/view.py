# SPDX-License-Identifier: Apache-2.0
"""A point as its own machine may see it: its nodes by their paths, without a word about where they lie.

What the store says of places would tell whether others have the same data. So nodes go out with numbers of chunks
instead of places, and come back as "the i-th chunk of that node" (`remote.places`).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from keepstone.errors import CorruptObject, InvalidRequest, ObjectMissing
from keepstone.remote.wire import KEY, Seen, Wanted, zero_runs
from keepstone.store import ZERO_REF, Node

__all__ = ["DAMAGED", "Manifest", "Shown", "View"]

_log = logging.getLogger(__name__)
DAMAGED = "a part of it is damaged or gone; run `keepstone store verify` where the store is"
"""All that a machine is told of damage: the names of packs are not for it. The log has the rest."""
_HELD = 16 << 20  # bytes of nodes
_ANSWER = 2 << 20  # bytes of nodes that one answer has, unless a single one is larger
_MOST = 4096  # nodes of one answer
_ID = 32


class Manifest(Protocol):
    """What a `LocalReader` and a `LocalWriter` (of its parent) have in common."""

    def node(self, ref: int) -> Node: ...
    def chunk_refs(self, node: Node) -> list[int]: ...
    def child_refs(self, node: Node) -> list[int]: ...
    def chunk_id(self, ref: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A node that was looked at. `chunks`, `children`: places of the store."""

    node: Node
    chunks: list[int]
    children: list[int]

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return 500 + len(self.node.body) + 40 * (len(self.chunks) + len(self.children))


class View:
    """`roots`: places of the point's roots. `name`: what a machine knows a node by, out of the node's id. `judge` says
    of a node whether it may be named as it stands, and which of its chunks and children may not be."""

    def __init__(
        self,
        manifest: Manifest,
        roots: list[int],
        name: Callable[[bytes], bytes],
        judge: Callable[[Shown], tuple[bool, list[int], list[int]]] | None = None,
    ) -> None:
        self._manifest = manifest
        self._name = name
        self._judge = judge
        self._top = Shown(Node("", b"", b"", b"", b""), [], roots)
        self._held: OrderedDict[tuple[int, ...], Shown] = OrderedDict()
        self._bytes = self._deepest = 0
        self._lock = threading.RLock()

    @property
    def keys(self) -> bytes:
        """What the machine knows the roots by."""
        return self._keys(self._top)

    def at(self, path: Sequence[int]) -> Shown:
        """The node at a path. `InvalidRequest` where there is none; `CorruptObject`, `ObjectMissing`."""
        with self._lock:
            whole = tuple(path)
            known = min(len(whole), self._deepest)
            while known and whole[:known] not in self._held:  # the node above is nearly always there
                known -= 1
            shown = self._top
            if known:
                shown = self._held[whole[:known]]
                self._held.move_to_end(whole[:known])
            for depth in range(known, len(whole)):
                index = whole[depth]
                if not 0 <= index < len(shown.children):
                    raise InvalidRequest("the point has no such node")
                node = self._manifest.node(shown.children[index])
                shown = Shown(node, self._manifest.chunk_refs(node), self._manifest.child_refs(node))
                self._hold(whole[: depth + 1], shown)
            return shown

    def seen(self, wanted: Wanted) -> list[Seen]:
        """The nodes that are wanted, and as many below them as fit into an answer where these are wanted too."""
        found: list[Seen] = []
        size = 0
        pending = [tuple(path) for path in reversed(wanted.paths[:_MOST])]
        while pending and len(found) < _MOST and (size < _ANSWER or not found):
            path = pending.pop()
            seen = self._seen(path)
            found.append(seen)
            size += 64 + len(seen.body) + len(seen.keys)
            if wanted.deep and seen.children:
                pending += [(*path, index) for index in range(min(seen.children, _MOST) - 1, -1, -1)]
        return found

    def ids(self, path: Sequence[int]) -> bytes:
        """The ids of a node's chunks, 32 bytes each; zeros for a chunk of zeros, and for one that is gone."""
        return b"".join([self._id(ref) for ref in self.at(path).chunks])

    def _id(self, ref: int) -> bytes:
        if ref == ZERO_REF:
            return bytes(_ID)
        try:
            return self._manifest.chunk_id(ref)
        except (CorruptObject, ObjectMissing):
            return bytes(_ID)

    def _seen(self, path: tuple[int, ...]) -> Seen:
        try:
            shown = self.at(path)
            keys = self._keys(shown)
        except (CorruptObject, ObjectMissing) as error:
            _log.warning("a node cannot be read: %s", error)
            return Seen(list(path), "", 0, b"", b"", error=DAMAGED)
        shareable, stale, stale_children = (True, [], []) if self._judge is None else self._judge(shown)
        return Seen(
            list(path),
            shown.node.kind,
            len(shown.chunks),
            keys,
            shown.node.body,
            shareable,
            stale,
            stale_children,
            zero_runs([ref == ZERO_REF for ref in shown.chunks]),
        )

    def _keys(self, shown: Shown) -> bytes:
        return b"".join([self._key(ref) for ref in shown.children])

    def _key(self, ref: int) -> bytes:
        try:
            return self._name(self._manifest.chunk_id(ref))[:KEY]
        except (CorruptObject, ObjectMissing):  # who asks for that node is told so; its siblings are as good as ever
            return bytes(KEY)

    def _hold(self, path: tuple[int, ...], shown: Shown) -> None:
        self._held[path] = shown
        self._deepest = max(self._deepest, len(path))
        self._bytes += shown.weight
        while self._bytes > _HELD and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].weight
