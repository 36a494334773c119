# SPDX-License-Identifier: Apache-2.0
"""Neighbouring chunks written by one call.

A disk takes megabytes several times as fast as quarters of them, and each call costs its own. Each thread gathers in
its own page-aligned buffer, which also is what direct I/O needs.
"""

from __future__ import annotations

import threading

from keepstone.disks import BlockSink
from keepstone.objects import aligned

__all__ = ["Gather"]

_ROOM = 2 << 20


class _Run:
    """Bytes that wait to be written: `count` of them, for `offset` of the disk."""

    __slots__ = ("count", "offset", "view")

    def __init__(self) -> None:
        self.view = aligned(_ROOM)
        self.offset = 0
        self.count = 0


class Gather:
    """Writes into a sink from many threads; nothing is surely there before `flush`."""

    def __init__(self, sink: BlockSink) -> None:
        self._sink = sink
        self._local = threading.local()
        self._runs: list[_Run] = []

    def write(self, offset: int, chunk: memoryview) -> None:
        """Put a chunk of at most `_ROOM` bytes at `offset`, now or later."""
        run: _Run | None = getattr(self._local, "run", None)
        if run is None:
            run = self._local.run = _Run()
            self._runs.append(run)
        if offset != run.offset + run.count or run.count + len(chunk) > _ROOM:
            self._write(run)
            run.offset = offset
        run.view[run.count : run.count + len(chunk)] = chunk
        run.count += len(chunk)

    def flush(self) -> None:
        """Write what waits; no thread may call `write` meanwhile."""
        for run in self._runs:
            self._write(run)

    def _write(self, run: _Run) -> None:
        count, run.count = run.count, 0
        if count:
            self._sink.write(run.offset, run.view[:count])
