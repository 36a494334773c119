# SPDX-License-Identifier: Apache-2.0
"""A disk's previous recovery point, as far as it helps to make the next one.

A parent that cannot be read any more is no reason to fail: the backup then compares with the whole store instead, and
says so in a warning.
"""

from __future__ import annotations

from collections.abc import Callable

from keepstone.errors import CorruptObject, ObjectMissing
from keepstone.store import Node, Writer
from keepstone.workloads.images.leaf import Image, read_leaf, read_root

__all__ = ["Parent"]

_Place = tuple[int, Node]


class Parent:
    """What the writer's parent has of the disk, beneath these `roots`; nothing where there are none."""

    def __init__(self, writer: Writer, roots: Callable[[], list[int]], warn: Callable[[str], None]) -> None:
        self._writer = writer
        self._warn = warn
        self._image = Image(0)
        self._leaves: list[int] = []
        self._root: _Place | None = None
        self._current: _Place | None = None
        self._refs: list[int] = []
        try:
            found = roots()
            if found:
                self._image, node, self._leaves = read_root(writer, found)
                self._root = found[0], node
        except (CorruptObject, ObjectMissing) as error:
            self._damaged(error)

    def _damaged(self, error: Exception) -> None:
        self._warn(f"the previous recovery point is no help to this backup: {error}")

    def kept(self, image: Image) -> int:
        """How many bytes of a disk that is this one some time later consist of the parent's chunks, where they did not
        change: none of one that became shorter."""
        if image == self._image:
            return image.size
        grown = image.chunk == self._image.chunk and image.size > self._image.size
        return self._image.size // image.chunk * image.chunk if grown else 0

    def hints(self, index: int, image: Image) -> list[int]:
        """Where the chunks of the leaf with this index are, all of them usable; empty where nothing is known of it."""
        self._current, self._refs = None, []
        if index >= self._image.leaves or image.chunk != self._image.chunk:
            return []
        try:
            node, self._refs = read_leaf(self._writer, self._image, self._leaves, index)
        except (CorruptObject, ObjectMissing) as error:
            self._damaged(error)
            return []
        self._current = self._leaves[index], node
        return self._writer.usable(self._refs) or []

    def same_leaf(self, refs: list[int]) -> int | None:
        """The place of the leaf that `hints` gave last, if it consists of these chunks and may be used as it stands."""
        return self._usable(self._current) if refs == self._refs else None

    def same_root(self, leaves: list[int], body: bytes) -> int | None:
        """The place of the root, if it consists of these leaves and this body and may be used as it stands."""
        same = self._root is not None and (leaves, body) == (self._leaves, self._root[1].body)
        return self._usable(self._root) if same else None

    def _usable(self, place: _Place | None) -> int | None:
        if place is None or not self._writer.shareable(place[1]):
            return None
        usable = self._writer.usable([place[0]])
        return usable[0] if usable else None
