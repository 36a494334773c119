# SPDX-License-Identifier: Apache-2.0
"""A node of a manifest: the part of it that every kind of item shares.

A recovery point is a Merkle tree of nodes, each stored as a chunk in a metadata pack. `kind` and `body` belong to
the workload (a page of a directory, a span of a disk); the places of data chunks and of child nodes stand beside
them in one form, so that reclaim, verify and compaction walk every kind without knowing it. Equal nodes are stored
once: a point costs what changed.
"""

from __future__ import annotations

import msgspec

from keepstone.store.decoding import decode
from keepstone.store.refs import PackNumbers, decode_runs, encode_runs, expand_runs

__all__ = ["Node", "decode_node", "encode_node"]


class Node(msgspec.Struct, frozen=True, array_like=True):
    """`packs`: pack ids, 32 bytes each. `chunks`, `children`: runs over them (see `refs`)."""

    kind: str
    packs: bytes
    chunks: bytes
    children: bytes
    body: bytes

    def chunk_runs(self, numbers: PackNumbers) -> list[tuple[int, int]]:
        """(first place, count) of each run of data chunks."""
        return list(decode_runs(self.packs, self.chunks, numbers)) if self.chunks else []

    def child_runs(self, numbers: PackNumbers) -> list[tuple[int, int]]:
        """(first place, count) of each run of child nodes."""
        return list(decode_runs(self.packs, self.children, numbers)) if self.children else []

    def chunk_refs(self, numbers: PackNumbers) -> list[int]:
        """The places of all data chunks, in order."""
        return expand_runs(self.chunk_runs(numbers))

    def child_refs(self, numbers: PackNumbers) -> list[int]:
        """The places of all child nodes, in order."""
        return expand_runs(self.child_runs(numbers))


_decoder = msgspec.msgpack.Decoder(Node)
_encoder = msgspec.msgpack.Encoder()


def encode_node(kind: str, chunks: list[int], children: list[int], body: bytes, numbers: PackNumbers) -> bytes:
    """The stored form of a node."""
    table: dict[int, int] = {}
    chunk_runs = encode_runs(chunks, table)
    child_runs = encode_runs(children, table)
    packs = b"".join([numbers.ids[number] for number in table])
    return _encoder.encode(Node(kind, packs, chunk_runs, child_runs, body))


def decode_node(data: bytes | memoryview) -> Node:
    """Read a stored node; `CorruptObject` where it is none."""
    return decode(_decoder, data, "a manifest node")
