# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file or disk out of a point, from any offset on, without the rest of it.

Whoever reads on where he stopped finds what comes next fetched already: in pieces that begin at multiples of `PIECE`,
so that hardly a frame is opened twice, several at a time, and the further ahead the longer he has read on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from keepstone.errors import CorruptObject
from keepstone.workloads.chunks import ChunkCache

__all__ = ["Content", "Map", "Span"]

PIECE = 4 << 20
_WINDOW = 16 << 20  # bytes ahead of a reader at most
_STEADY = 256 << 10  # bytes read on without a jump before anything is fetched ahead
_SLACK = 2 << 20  # requests of one reader that come out of order are no jump
_ZEROS = memoryview(bytes(1 << 20))


class Span(NamedTuple):
    """`length` bytes: those of the chunk at `ref` from its byte `skip` on; zeros where `ref` is None."""

    ref: int | None
    skip: int
    length: int


class Map(Protocol):
    """Where the bytes of something are. Safe for several threads."""

    size: int

    def spans(self, offset: int, length: int) -> Iterator[Span]:
        """What these bytes, which lie within the size, are made of, in order."""

    def data(self, offset: int) -> int | None:
        """Where at or after this offset data begins; None where only holes follow."""

    def hole(self, offset: int) -> int:
        """Where at or after this offset a hole begins; there is one at the end."""


class Content:
    """What is read of one file or disk. `beside`: as in `ChunkCache.get`. Safe for several threads."""

    def __init__(self, layout: Map, chunks: ChunkCache, beside: Sequence[int] = ()) -> None:
        self.map = layout
        self._chunks = chunks
        self._beside = beside
        self._window = min(_WINDOW, chunks.limit // 4)
        self._lock = threading.Lock()
        self._first, self._last = 0, -_SLACK - 1  # what was read without a jump; at first nothing was
        self._begun = 0  # as far as it is fetched ahead

    def read(self, offset: int, length: int) -> list[memoryview]:
        """At most `length` bytes from `offset` on, in parts; fewer at the end, none behind it.

        `CorruptObject`, `ObjectMissing` where one of these bytes cannot be had, and what else `Reader.fetch` raises.
        """
        end = min(offset + length, self.map.size)
        if offset >= end:
            return []
        spans = list(self.map.spans(offset, end - offset))
        self._look_ahead(offset, end)
        found = self._chunks.get([span.ref for span in spans if span.ref is not None], self._beside)
        parts: list[memoryview] = []
        for ref, skip, count in spans:
            if ref is None:
                parts += [_ZEROS] * (count // len(_ZEROS))
                parts.append(_ZEROS[: count % len(_ZEROS)])
                continue
            part = memoryview(found[ref])[skip : skip + count]
            if len(part) != count:
                raise CorruptObject("one of its chunks is shorter than it should be; run `keepstone store verify`")
            parts.append(part)
        return parts

    def _look_ahead(self, offset: int, end: int) -> None:
        pieces = []
        with self._lock:
            if not self._first <= offset <= self._last + _SLACK:
                self._first, self._last = offset, end
                self._begun = end
                return
            self._last = max(self._last, end)
            self._begun = max(self._begun, end)
            run = self._last - self._first
            if run < _STEADY:
                return
            reach = min(self._last + min(4 * run, self._window), self.map.size)
            while self._begun < reach:
                stop = min((self._begun // PIECE + 1) * PIECE, self.map.size)
                pieces.append((self._begun, stop))
                self._begun = stop
        for begin, stop in pieces:
            self._chunks.ahead([span.ref for span in self.map.spans(begin, stop - begin) if span.ref is not None])
