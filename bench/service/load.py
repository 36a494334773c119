# SPDX-License-Identifier: Apache-2.0
"""Asks a server over HTTPS with connections that stay open, from a process of its own.

    python -m bench.service.load ORDER.json

Each connection sends its next request when it has the answer to the last one, and no sooner than the pace allows: where
there is a pace, an answer is timed from the moment at which its request was due. Of an answer the status is looked at,
which has to be 200 or 204, and the length: whoever asks is to cost little, because its CPU counts against the same
cores. The last line is JSON: the seconds of every answer, and the CPU
seconds of this process.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import cast

import uvloop

__all__ = ["Order", "Run", "main"]


@dataclass(frozen=True, slots=True)
class Order:
    """`requests`: whole ones, asked again and again in this order. `seconds`: for how long; 0: each once. `rate`:
    requests a second; 0: as many as are answered."""

    port: int
    ca: str
    requests: list[str]
    connections: int = 1
    seconds: float = 0
    rate: float = 0


class _Asker(asyncio.Protocol):
    """A connection. It is over when there is nothing to ask any more."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._got = bytearray()
        self._began = 0.0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def ask(self) -> None:
        """The next one, when it is due."""
        request, due = self._run.following()
        if request is None:
            self.over.set_result(None)
        elif due is None:
            self._send(request, time.perf_counter())
        else:  # one that is late has waited since it was due
            pause = max(0.0, due - time.perf_counter())
            asyncio.get_running_loop().call_later(pause, self._send, request, due)

    def leave(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _send(self, request: bytes, began: float) -> None:
        self._began = began
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._got[:end]).lower()
        at = head.find(b"\r\ncontent-length: ")
        length = int(head[at + 18 :].split(b"\r", 1)[0]) if at >= 0 else 0
        if len(self._got) < end + 4 + length:
            return
        self._run.seconds.append(time.perf_counter() - self._began)
        if head[9:12] not in (b"200", b"204") and not self.over.done():
            self.over.set_exception(RuntimeError(bytes(self._got[:2000]).decode(errors="replace")))
            return
        self._got.clear()
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or ConnectionError("the server has closed the connection"))


class Run:
    """What all connections do together."""

    def __init__(self, order: Order) -> None:
        self._order = order
        each = [request.encode() for request in order.requests]
        self._requests: Iterator[bytes] = cycle(each) if order.seconds else iter(each)
        self.seconds: list[float] = []
        self._begin = self._end = 0.0
        self._asked = 0

    async def run(self) -> None:
        """Until all is answered. RuntimeError for an answer that is an error."""
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context(cafile=self._order.ca)
        askers = []
        for _ in range(self._order.connections):
            made = loop.create_connection(lambda: _Asker(self), "localhost", self._order.port, ssl=context)
            askers.append((await made)[1])
        self._begin = time.perf_counter()
        self._end = self._begin + self._order.seconds if self._order.seconds else float("inf")
        try:
            for asker in askers:
                asker.ask()
            await asyncio.gather(*(asker.over for asker in askers))
        finally:
            for asker in askers:
                asker.leave()

    def following(self) -> tuple[bytes | None, float | None]:
        """The next request, and when it is due, where there is a pace."""
        due = self._begin + self._asked / self._order.rate if self._order.rate else None
        if (time.perf_counter() if due is None else due) >= self._end:
            return None, None
        self._asked += 1
        return next(self._requests, None), due


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    order = Order(**json.loads(Path(arguments[0]).read_text()))
    run = Run(order)
    before, began = time.process_time(), time.perf_counter()
    uvloop.run(run.run())
    spent, took = time.process_time() - before, time.perf_counter() - began
    print(json.dumps({"seconds": run.seconds, "cpu_s": spent, "wall_s": took}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
