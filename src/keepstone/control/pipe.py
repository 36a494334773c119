# SPDX-License-Identifier: Apache-2.0
"""What a function writes into a stream, as pieces for somebody who takes them when he can.

The function runs on a thread of its own, at most `WAITING` bytes ahead. Whoever stops taking ends it: its next write
raises `BrokenPipeError`.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["WAITING", "poured"]

WAITING = 4 << 20
_PIECE = 256 << 10  # bytes that are handed on together


def poured(write: Callable[[Any], object]) -> Iterator[bytes]:
    """The pieces that `write` puts into the stream that it is given; then what it raised, if it did."""
    pipe = _Pipe()
    thread = threading.Thread(target=pipe.run, args=(write,), name="pipe", daemon=True)
    thread.start()
    try:
        while (piece := pipe.take()) is not None:
            yield piece
    finally:
        pipe.leave()
        thread.join()


class _Pipe(io.RawIOBase):
    def __init__(self) -> None:
        super().__init__()
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._over = self._left = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._size < WAITING)
            if self._left:
                raise BrokenPipeError("nobody takes this any more")
            self._parts.append(part)
            self._size += len(part)
            if self._size >= _PIECE:
                self._changed.notify_all()
        return len(part)

    def run(self, write: Callable[[Any], object]) -> None:
        """Write it all."""
        try:
            write(self)
        except BaseException as error:
            self._failure = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def take(self) -> bytes | None:
        """The next piece; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._size >= _PIECE)
            piece = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._changed.notify_all()
        if not piece and self._failure is not None:
            raise self._failure
        return piece or None

    def leave(self) -> None:
        """Nobody takes anything any more."""
        with self._changed:
            self._left = True
            self._changed.notify_all()
