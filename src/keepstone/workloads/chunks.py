# SPDX-License-Identifier: Apache-2.0
"""Chunks for whoever reads here and there: fetched once for all who want them, kept for a while, begun ahead of time.

Whatever is damaged in the store is told to those who want that chunk, and to nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.store import Reader
from keepstone.workloads.recent import Recent
from keepstone.workloads.salvage import fetch

__all__ = ["ChunkCache"]

_Wanted: TypeAlias = "dict[int, Future[bytes]]"


class ChunkCache:
    """The chunks of one reader, at most `limit` bytes of them. Safe for several threads, as the reader has to be."""

    def __init__(self, env: Env, reader: Reader, limit: int = 64 << 20) -> None:
        self.limit = limit
        self._reader = reader
        self._kept: Recent[int, bytes] = Recent(limit)
        self._coming: _Wanted = {}
        self._lock = threading.Lock()
        self._pool = env.pool()

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._kept.size

    def close(self) -> None:
        """Stop the workers; nobody may want anything any more."""
        self._pool.shutdown()

    def __enter__(self) -> ChunkCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, refs: Sequence[int], beside: Sequence[int] = ()) -> dict[int, bytes]:
        """The chunks at these places.

        Where one of them has to be fetched, those `beside` are fetched along: who opens a frame for one chunk has the
        others almost for nothing. `CorruptObject`, `ObjectMissing`, and what else `Reader.fetch` raises.
        """
        found, coming, missing = self._sort(refs)
        if missing:
            self._fetch({**missing, **self._sort(beside)[2]} if beside else missing)
        for ref, future in (*coming.items(), *missing.items()):
            found[ref] = future.result()
        return found

    def ahead(self, refs: Iterable[int]) -> None:
        """Begin to fetch what of this is not here yet, on another thread."""
        missing = self._sort(refs)[2]
        if missing:
            try:
                self._pool.submit(self._fetch, missing)
            except RuntimeError as error:  # such as no thread to be had
                self._fail(missing, error)
                self._settle(missing)

    def _sort(self, refs: Iterable[int]) -> tuple[dict[int, bytes], _Wanted, _Wanted]:
        """What is here, what others are fetching, and what the caller has to fetch now."""
        found: dict[int, bytes] = {}
        coming: _Wanted = {}
        missing: _Wanted = {}
        with self._lock:
            for ref in refs:
                if ref in found or ref in coming or ref in missing:
                    continue
                kept = self._kept.get(ref)
                if kept is not None:
                    found[ref] = kept
                elif ref in self._coming:
                    coming[ref] = self._coming[ref]
                else:
                    missing[ref] = self._coming[ref] = Future()
        return found, coming, missing

    def _fetch(self, wanted: _Wanted) -> None:
        def take(ref: int, chunk: memoryview) -> None:
            future = wanted[ref]
            if not future.done():  # a reader that has to begin again hands out the same chunk again
                data = bytes(chunk)
                self._kept.put(ref, data, len(data))
                future.set_result(data)

        def lose(ref: int, error: KeepstoneError) -> None:
            wanted[ref].set_exception(error)

        try:
            fetch(self._reader, [(ref, ref) for ref in wanted], take, lambda ref: not wanted[ref].done(), lose)
        except Exception as error:
            self._fail(wanted, error)
        finally:
            self._settle(wanted)

    @staticmethod
    def _fail(wanted: _Wanted, error: Exception) -> None:
        for future in wanted.values():
            if not future.done():
                future.set_exception(error)

    def _settle(self, wanted: _Wanted) -> None:
        with self._lock:
            for ref in wanted:
                self._coming.pop(ref, None)
