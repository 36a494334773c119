# SPDX-License-Identifier: Apache-2.0
"""What a reader that stands before another one leaves to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from keepstone.store import Node, Reader

__all__ = ["Through"]

Cookie = TypeVar("Cookie")


class Through:
    """A `Reader` that asks `reader` for everything. Whoever is another one says what differs."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.point = reader.point

    def root(self) -> list[int]:
        return self._reader.root()

    def node(self, ref: int) -> Node:
        return self._reader.node(ref)

    def chunk_refs(self, node: Node) -> list[int]:
        return self._reader.chunk_refs(node)

    def child_refs(self, node: Node) -> list[int]:
        return self._reader.child_refs(node)

    def chunk_length(self, ref: int) -> int:
        return self._reader.chunk_length(ref)

    def chunk_id(self, ref: int) -> bytes:
        return self._reader.chunk_id(ref)

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._reader.identify(chunk)

    def fetch(self, requests: Iterable[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        self._reader.fetch(requests, sink)
