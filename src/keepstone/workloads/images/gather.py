# SPDX-License-Identifier: Apache-2.0
"""Neighbouring chunks written by one call.

A disk takes megabytes several times as fast as quarters of them, and each call costs its own. Each thread gathers in
its own page-aligned buffer, which also is what direct I/O needs. A reader that opens frames in this buffer (`room`)
saves the copy: some 7 % of the processor time of a restore.

Invariant: of what lies in the buffer only that is written which came by `write`.
"""

from __future__ import annotations

import threading

from keepstone.disks import BlockSink
from keepstone.objects import address, aligned, round_up

__all__ = ["Gather"]

_ROOM = 2 << 20


class _Run:
    """A thread's buffer, and what of it waits to be written, from `start` to `end`; for `offset` of the disk."""

    __slots__ = ("begin", "end", "offset", "start", "view")

    def __init__(self) -> None:
        self.view = aligned(_ROOM)
        self.begin = address(self.view) or 0
        self.start = self.end = self.offset = 0

    @property
    def next(self) -> int:
        """The offset of the disk behind what waits."""
        return self.offset + self.end - self.start

    def find(self, chunk: memoryview) -> int | None:
        """Where in the buffer a chunk lies; None for one that is elsewhere."""
        found = address(chunk)
        at = -1 if found is None else found - self.begin
        return at if 0 <= at <= _ROOM - len(chunk) else None


class Gather:
    """Writes into a sink from many threads; nothing is surely there before `flush`."""

    def __init__(self, sink: BlockSink) -> None:
        self._sink = sink
        self._local = threading.local()
        self._runs: list[_Run] = []

    def room(self, count: int) -> memoryview | None:
        """`count` bytes of this thread's buffer, behind what waits there; None for more than it has. Chunks in them
        are written without a copy; they are free again when this thread asks for more."""
        if count > _ROOM:
            return None
        run = self._run()
        if round_up(run.end) + count > _ROOM:
            self._write(run)
        at = round_up(run.end)
        return run.view[at : at + count]

    def write(self, offset: int, chunk: memoryview) -> None:
        """Put a chunk of at most `_ROOM` bytes at `offset`, now or later."""
        run = self._run()
        at = run.find(chunk)
        if at is None:
            if offset != run.next or run.end + len(chunk) > _ROOM:
                self._write(run)
                run.offset = offset
            run.view[run.end : run.end + len(chunk)] = chunk
        elif offset != run.next or at != run.end:
            self._write(run)
            run.start = run.end = at
            run.offset = offset
        run.end += len(chunk)

    def flush(self) -> None:
        """Write what waits; no thread may call `write` meanwhile."""
        for run in self._runs:
            self._write(run)

    def _run(self) -> _Run:
        run: _Run | None = getattr(self._local, "run", None)
        if run is None:
            run = self._local.run = _Run()
            self._runs.append(run)
        return run

    def _write(self, run: _Run) -> None:
        start, end = run.start, run.end
        run.start = run.end = 0
        if start < end:
            self._sink.write(run.offset, run.view[start:end])
