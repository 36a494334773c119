# SPDX-License-Identifier: Apache-2.0
"""The manifest of a disk image: a root node and one leaf node for every `LEAF_SPAN` bytes of the disk.

    images/root   body: `Image` as msgpack; children: the leaves, in order
    images/leaf   chunks: one place for every chunk of the span, `ZERO_REF` where it is all zeros; no body

The last chunk of the disk may be short, so the last leaf may have fewer chunks. A leaf knows nothing of its position:
equal spans of two points are one node, and the difference of two points is found without reading a byte of data.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.errors import CorruptObject, UsageError
from keepstone.objects import PAGE
from keepstone.store import DISK_CHUNK, SEGMENT, Node

__all__ = [
    "LEAF_KIND",
    "LEAF_SPAN",
    "ROOT_KIND",
    "Image",
    "Nodes",
    "leaf_chunks",
    "leaf_refs",
    "read_leaf",
    "read_root",
]

LEAF_KIND = "images/leaf"
ROOT_KIND = "images/root"
LEAF_SPAN = 1 << 30
_MACHINE = "machine/root"  # see workloads/machines
_LARGEST = 1 << 20  # bytes of a chunk


class Image(msgspec.Struct, frozen=True):
    """Length of the disk and of its chunks, in bytes."""

    size: int
    chunk: int = DISK_CHUNK

    @property
    def leaves(self) -> int:
        """How many leaves the disk has."""
        return -(-self.size // LEAF_SPAN)


class Nodes(Protocol):
    """What a writer (of its parent) and a reader have in common."""

    def node(self, ref: int) -> Node: ...
    def chunk_refs(self, node: Node) -> list[int]: ...
    def child_refs(self, node: Node) -> list[int]: ...


def leaf_chunks(image: Image, index: int) -> int:
    """How many chunks the leaf with this index has."""
    return -(-min(LEAF_SPAN, image.size - index * LEAF_SPAN) // image.chunk)


def read_root(nodes: Nodes, root: list[int]) -> tuple[Image, Node, list[int]]:
    """(what the root says, the root, the places of its leaves); `CorruptObject` where it is no image's root."""
    if len(root) != 1:
        raise CorruptObject(f"the manifest of a disk image has {len(root)} roots; run `keepstone store verify`")
    node = nodes.node(root[0])
    if node.kind == _MACHINE:
        raise UsageError("the point is of a whole machine; choose one of its disks, or restore all of it")
    try:
        image = from_msgpack(Image).decode(node.body) if node.kind == ROOT_KIND else None
    except msgspec.MsgspecError:
        image = None
    if image is None or image.size < 0 or not PAGE <= image.chunk <= _LARGEST or SEGMENT % image.chunk:
        raise CorruptObject("the root of a disk image's manifest cannot be read; run `keepstone store verify`")
    leaves = nodes.child_refs(node)
    if len(leaves) != image.leaves:
        raise CorruptObject(
            f"the manifest of a disk image of {image.size} bytes has {len(leaves)} leaves; run `keepstone store verify`"
        )
    return image, node, leaves


def read_leaf(nodes: Nodes, image: Image, leaves: list[int], index: int) -> tuple[Node, list[int]]:
    """(the leaf with this index, the places of its chunks); `CorruptObject` where it has another form."""
    node = nodes.node(leaves[index])
    return node, leaf_refs(nodes, image, node, index)


def leaf_refs(nodes: Nodes, image: Image, leaf: Node, index: int) -> list[int]:
    """The places of the chunks of this leaf, which has this index; `CorruptObject` where it has another form."""
    refs = nodes.chunk_refs(leaf) if leaf.kind == LEAF_KIND else []
    if len(refs) != leaf_chunks(image, index):
        raise CorruptObject(
            f"leaf {index} of a disk image's manifest has {len(refs)} chunks; run `keepstone store verify`"
        )
    return refs
