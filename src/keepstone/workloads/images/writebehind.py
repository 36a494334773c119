# SPDX-License-Identifier: Apache-2.0
"""Buffers that are written into a sink beside those who fill them.

A file system writes into one new file one call at a time, and its disk likes that best. Who opens frames and then waits
for his own write, behind those of others, leaves processors and disk idle by turns: a restore took a quarter longer.
So whoever has filled a buffer hands it over and goes on in another one, and all writes are one thread's, in order.

Invariants
* What was handed over does not change before it is written; its buffer is nobody's until then.
* Each thread that fills has one buffer at most, and there are `_SPARE` more than such threads: some are always free or
  on their way to be, so nobody waits for himself.
* After a failure nothing more is written, and every call raises it. Behind `close` nobody is in the sink.
"""

from __future__ import annotations

import threading
from collections import deque

from keepstone.disks import BlockSink
from keepstone.env import Env
from keepstone.objects import address, aligned

__all__ = ["BUFFER", "FillBuffer", "WriteBehind"]

BUFFER = 4 << 20
"""Bytes of a buffer."""
_SPARE = 4


class FillBuffer:
    """`BUFFER` bytes, page aligned. `begin`: their address. `waits`: how many writes out of it are to come; `left`:
    nobody fills it any more."""

    __slots__ = ("begin", "left", "view", "waits")

    def __init__(self) -> None:
        self.view = aligned(BUFFER)
        self.begin = address(self.view) or 0
        self.waits = 0
        self.left = False


class WriteBehind:
    """See the module. Several threads fill; `flush` and `close` are called while none of them does."""

    def __init__(self, env: Env, sink: BlockSink) -> None:
        self._sink = sink
        self._pool = env.pool()
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, FillBuffer, int, int]] = deque()
        self._free: list[FillBuffer] = []
        self._more = _SPARE  # buffers that may still be made
        self._writing = False
        self._failed: BaseException | None = None

    def join(self) -> FillBuffer:
        """A buffer for a thread that has none yet."""
        with self._changed:
            self._more += 1
        return self.take()

    def take(self) -> FillBuffer:
        """The next buffer of a thread that has left its last one; waits until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._more or self._failed is not None)
            self._check()
            if self._free:
                return self._free.pop()
            self._more -= 1
        return FillBuffer()

    def write(self, offset: int, buffer: FillBuffer, start: int, end: int) -> None:
        """Put these bytes of the buffer at `offset` of the disk, soon."""
        with self._changed:
            self._check()
            buffer.waits += 1
            self._queue.append((offset, buffer, start, end))
            if self._writing:
                return
            self._writing = True
        try:
            self._pool.submit(self._write)
        except BaseException as error:  # such as no thread to be had
            self._fail(error)
            raise

    def leave(self, buffer: FillBuffer) -> None:
        """Nobody fills this buffer any more; it is free when it is written."""
        with self._changed:
            buffer.left = True
            self._release(buffer)

    def flush(self) -> None:
        """All that was handed over is in the sink."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing)
            self._check()

    def close(self) -> None:
        """What is not written yet is dropped."""
        with self._changed:
            self._queue.clear()
        self._pool.shutdown(wait=True)

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failed = self._failed or error
            self._queue.clear()
            self._writing = False
            self._changed.notify_all()

    def _release(self, buffer: FillBuffer) -> None:
        if buffer.left and not buffer.waits:
            buffer.left = False
            self._free.append(buffer)
            self._changed.notify()

    def _write(self) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._writing = False
                    self._changed.notify_all()
                    return
                offset, buffer, start, end = self._queue.popleft()
            try:
                self._sink.write(offset, buffer.view[start:end])
            except BaseException as error:
                self._fail(error)
                return
            with self._changed:
                buffer.waits -= 1
                self._release(buffer)
