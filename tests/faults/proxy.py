# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that does to connections what bad networks do, exactly where it is told to.

    with FaultProxy(("127.0.0.1", port)) as proxy:
        proxy.plan = Plan(up=Way(cut=Cut(70_000, End.RST)))     # for connections from now on
        proxy.cut_at([10, 500, 501])                            # or: one after the other ends at these bytes
        client(proxy.address)
        proxy.connections[0].up.forwarded                       # 10

It runs in a thread with an event loop of its own. Everything that can be looked at from outside changes under one
condition: `wait` waits for something to come true, without guessing how long that takes.

With `client_tls` and `target_tls` it ends the client's TLS and speaks its own with the target, so that bytes count as
the two programs wrote them: a boundary of frames is one on the wire.

Invariants
* A cut lets exactly its number of bytes through: they have arrived, as far as this machine's kernel can tell, before
  the end does. (A reset would overtake what waits in a send buffer.)
* What is random comes out of `seed` and the number of the connection, never out of timing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import random
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeVar

from tests.faults.plan import CLEAN, BlackHole, Cut, End, Plan, Way

__all__ = ["Connection", "Count", "FaultProxy"]

T = TypeVar("T")
_PIECE = 1 << 16  # bytes that are read at once
_UNDERWAY = 4 << 20  # bytes of one direction that may be under way
_TICK = 0.005  # seconds between looks at a send buffer
_PATIENCE = 5.0  # seconds until a cut no longer waits for somebody who does not read
_LINGER = struct.pack("ii", 1, 0)  # closing means resetting


@dataclass(slots=True)
class Count:
    """Bytes of one direction: `read` from the sender, `forwarded` to the receiver. `record`: the latter themselves."""

    read: int = 0
    forwarded: int = 0
    record: bytearray | None = None


@dataclass(slots=True)
class Connection:
    """`ended`: how, in the end: `cut`, `client` or `target` for who went first, `black hole`, `refused`, `proxy`."""

    number: int
    plan: Plan
    up: Count = field(default_factory=Count)
    down: Count = field(default_factory=Count)
    ended: str | None = None


class FaultProxy:
    """Forwards to `target`. `plan` is for connections from then on, and may be changed at any time. `record`: keep the
    bytes, so that `duplicate` can send them again."""

    def __init__(
        self,
        target: tuple[str, int],
        plan: Plan = CLEAN,
        *,
        seed: int = 0,
        record: bool = False,
        client_tls: ssl.SSLContext | None = None,
        target_tls: ssl.SSLContext | None = None,
        target_name: str | None = None,
    ) -> None:
        self.target = target
        self.plan = plan
        self.connections: list[Connection] = []
        self.address = ("127.0.0.1", 0)
        self._seed = seed
        self._record = record
        self._tls = client_tls, target_tls
        self._name = target_name
        self._boundaries: list[Plan] = []
        self._changed = threading.Condition()
        self._live: dict[int, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self.address[1]

    def cut_at(self, boundaries: Iterable[int], *, up: bool = True, how: End = End.RST) -> None:
        """The next connections end at these bytes, one connection a boundary; those after them follow the plan."""
        cuts = [Way(cut=Cut(after, how)) for after in boundaries]
        with self._changed:
            self._boundaries = [Plan(up=way) if up else Plan(down=way) for way in cuts]

    def cut(self, how: End = End.RST) -> int:
        """End all that are open, now; how many that were."""

        async def now() -> int:
            lines = list(self._live.values())
            for line in lines:
                line.end("proxy", how)
            return len(lines)

        return self._call(now())

    def release(self) -> None:
        """Black holes are over."""

        async def now() -> None:
            for line in self._live.values():
                line.released.set()

        self._call(now())

    def wait(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Until it holds; it is asked after each change. `TimeoutError` with what there is."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"this did not come about in {timeout} seconds: {self.connections}")

    def wait_for_ends(self, timeout: float = 30.0) -> None:
        """Until no connection is open."""
        self.wait(lambda: all(line.ended is not None for line in self.connections), timeout)

    def duplicate(self, number: int, *, answer: bool = True, timeout: float = 30.0) -> bytes:
        """Send what the client of connection `number` had got through, again, on a new connection to the target; what
        it answers until it closes or, where it leaves the connection open, until it has answered as much as before.
        """
        recorded = self.connections[number].up.record, self.connections[number].down.record
        if recorded[0] is None or recorded[1] is None:
            raise ValueError("only a proxy with record=True knows what a client sent")
        with self._changed:
            request, expected = bytes(recorded[0]), len(recorded[1]) if answer else 0

        async def again() -> bytes:
            reader, writer = await self._open()
            try:
                writer.write(request)
                await writer.drain()
                got = b""
                while len(got) < expected and (piece := await reader.read(_PIECE)):
                    got += piece
                return got
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        return self._call(asyncio.wait_for(again(), timeout))

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, *self.address, ssl=self._tls[0], backlog=1024))
        self.address = self._server.sockets[0].getsockname()
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            assert self._server is not None
            self._server.close()
            for line in self._live.values():
                line.end("proxy", End.RST)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)  # the transports close in the loop's next round
            await self._loop.shutdown_asyncgens()

        self._call(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self._tls[1]
        name = (self._name or self.target[0]) if context is not None else None
        return await asyncio.open_connection(*self.target, ssl=context, server_hostname=name)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = self._enter()
        line: _Line | None = None
        ended = "proxy"
        try:
            target = _End(*await self._open())
            line = self._live[connection.number] = _Line(connection, _End(reader, writer), target, self._changed)
            await line.run()
        except (OSError, ssl.SSLError):
            ended = "refused"
        finally:
            if line is None:
                _reset(writer)
            else:
                del self._live[connection.number]
                ended = line.why or ended
            self._tell(connection, ended)

    def _enter(self) -> Connection:
        with self._changed:
            number = len(self.connections)
            plan = self._boundaries.pop(0) if self._boundaries else self.plan
            connection = Connection(number, plan.settled(random.Random(f"{self._seed}/{number}")))
            if self._record:
                connection.up.record, connection.down.record = bytearray(), bytearray()
            self.connections.append(connection)
            self._changed.notify_all()
            return connection

    def _tell(self, connection: Connection, ended: str) -> None:
        with self._changed:
            connection.ended = ended
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _End:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class _Line:
    """One connection while it is open."""

    def __init__(self, connection: Connection, client: _End, target: _End, changed: threading.Condition) -> None:
        self.why: str | None = None
        self.released = asyncio.Event()
        self._connection = connection
        self._ends = client, target
        self._changed = changed
        self._hole = connection.plan.black_hole
        self._open = asyncio.Event()
        self._open.set()
        self._over = asyncio.Event()
        self._how = End.RST
        self._first: str | None = None  # whose stream was the first to end
        self._running: list[asyncio.Task[None]] = []
        for end in self._ends:
            # Drained is what the kernel has. A limit of 0 would stop TLS for ever: nothing is not less than that.
            end.writer.transport.set_write_buffer_limits(high=1 if _is_secured(end.writer) else 0, low=0)

    async def run(self) -> None:
        """Until it is over. Nothing is open then."""
        client, target = self._ends
        plan, connection = self._connection.plan, self._connection
        self._swallow(0)
        up = _Stream("client", plan.up, connection.up, client, target)
        down = _Stream("target", plan.down, connection.down, target, client)
        both = [self._start(self._forward(stream)) for stream in (up, down)]
        self._start(self._until(both))
        try:
            await self._over.wait()
            if self._how is End.RST:
                for end in self._ends:
                    _reset(end.writer)
            await self._stop()
            await asyncio.gather(*(_finish(end) for end in self._ends))
        finally:  # the proxy's own end may come in between
            for end in self._ends:
                _reset(end.writer)
            await self._stop()

    async def _stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def end(self, why: str, how: End) -> None:
        """It is to end. The first such word counts."""
        if self.why is None:
            self.why, self._how = why, how
            self._over.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._running.append(task)
        return task

    async def _until(self, both: list[asyncio.Task[None]]) -> None:
        """Each direction has ended by itself."""
        await asyncio.gather(*both)
        self.end(self._first or "proxy", End.FIN)

    async def _forward(self, stream: _Stream) -> None:
        """One direction: a reader, and a writer that is `latency` behind it."""
        underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        room = _Room(_UNDERWAY)
        reading = self._start(self._read(stream, underway, room))
        try:
            await self._write(stream, underway, room)
        except (OSError, ssl.SSLError):
            self.end("target" if stream.name == "client" else "client", End.RST)
        finally:
            reading.cancel()

    async def _read(self, stream: _Stream, underway: asyncio.Queue[tuple[float, bytes]], room: _Room) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            try:
                piece = await stream.source.reader.read(_PIECE)
            except (OSError, ssl.SSLError):
                self.end(stream.name, End.RST)
                return
            if piece:
                self._count(stream.count, read=len(piece))
                if stream.name == "client":
                    self._swallow(stream.count.read)
            await room.take(len(piece))
            underway.put_nowait((clock() + stream.way.latency, piece))
            if not piece:
                self._first = self._first or stream.name
                return

    async def _write(self, stream: _Stream, underway: asyncio.Queue[tuple[float, bytes]], room: _Room) -> None:
        clock, way = asyncio.get_running_loop().time, stream.way
        cut, half = way.cut, inf if way.half_close is None else way.half_close
        limit = inf if cut is None else cut.after
        free = clock()  # when the wire is free again
        closed = False
        while True:
            if not closed and stream.count.forwarded >= half:
                stream.sink.writer.write_eof()
                closed = True
            if cut is not None and stream.count.forwarded >= limit:
                await _sent(stream.sink.writer)
                self.end("cut", cut.how)
                return
            due, piece = await underway.get()
            await asyncio.sleep(max(0.0, due - clock()))
            await self._open.wait()
            if not piece:
                if not closed and stream.sink.writer.can_write_eof():
                    stream.sink.writer.write_eof()
                elif not closed:  # TLS: the end of one direction is that of both
                    self.end(stream.name, End.FIN)
                return
            left = memoryview(piece)
            while left and not closed and stream.count.forwarded < min(limit, half):
                size = int(min(len(left), min(limit, half) - stream.count.forwarded))
                if way.bandwidth is not None:
                    size = min(size, max(1, int(way.bandwidth / 50)))
                    free = max(free, clock()) + size / way.bandwidth
                    await asyncio.sleep(free - clock())
                    await self._open.wait()
                stream.sink.writer.write(left[:size])
                await stream.sink.writer.drain()
                self._count(stream.count, forwarded=left[:size])
                left = left[size:]
            room.give(len(piece))

    def _count(self, count: Count, *, read: int = 0, forwarded: memoryview | None = None) -> None:
        with self._changed:
            count.read += read
            if forwarded is not None:
                count.forwarded += len(forwarded)
                if count.record is not None:
                    count.record += forwarded
            self._changed.notify_all()

    def _swallow(self, arrived: int) -> None:
        """Begin the black hole, where it is reached."""
        hole = self._hole
        if hole is not None and arrived >= hole.after:
            self._hole = None
            self._open.clear()
            self._start(self._emerge(hole))

    async def _emerge(self, hole: BlackHole) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.released.wait(), None if hole.seconds == inf else hole.seconds)
        if hole.then is not None:
            self.end("black hole", hole.then)
        self._open.set()


@dataclass(frozen=True, slots=True)
class _Stream:
    """One direction: `name` sends."""

    name: str
    way: Way
    count: Count
    source: _End
    sink: _End


class _Room:
    """Bytes that may be under way; a single piece always may."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        while self._used and self._used + size > self._size:
            self._freed.clear()
            await self._freed.wait()
        self._used += size

    def give(self, size: int) -> None:
        self._used -= size
        self._freed.set()


async def _sent(writer: asyncio.StreamWriter) -> None:
    """Until the other side's kernel has acknowledged all."""
    own: socket.socket = writer.get_extra_info("socket")
    until = asyncio.get_running_loop().time() + _PATIENCE
    while asyncio.get_running_loop().time() < until:
        try:
            (waiting,) = struct.unpack("i", fcntl.ioctl(own.fileno(), termios.TIOCOUTQ, b"\0" * 4))
        except OSError:  # closed meanwhile
            return
        if not waiting and not writer.transport.get_write_buffer_size():
            return
        await asyncio.sleep(_TICK)


async def _finish(end: _End) -> None:
    """Close in order. What was sent and that nobody reads any more is taken and thrown away: the kernel answers it with
    a reset otherwise."""
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        if _is_secured(end.writer):  # closing would wait for the other side's last word, for half a minute
            end.writer.transport.abort()
            return
        if end.writer.can_write_eof() and not end.writer.transport.is_closing():
            end.writer.write_eof()
            async with asyncio.timeout(_PATIENCE):
                while await end.reader.read(_PIECE):
                    pass
        end.writer.close()
        await end.writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset what is not closed yet."""
    with contextlib.suppress(OSError, AttributeError):  # TLS has no socket any more once it is closed
        own: socket.socket = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        writer.transport.abort()


def _is_secured(writer: asyncio.StreamWriter) -> bool:
    return writer.get_extra_info("ssl_object") is not None
