# SPDX-License-Identifier: Apache-2.0
"""What agents write and read, by connections that are for nothing else, a thread for each.

    sessions/<verb>             writing a point: `control/sessions/registry.py`
    points/<verb>               reading one: `control/sessions/reading.py`

An upload is handed on while it comes: what is cut off then has lost one record at most. One machine has `CONNECTIONS`
at a time at most, so that it does not take those of all others.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from uuid import UUID

from keepstone.agentapi.callers import Callers
from keepstone.agentapi.exchange import Exchange, Hangup, Head
from keepstone.agentapi.failing import failure, said
from keepstone.control.plane import Plane
from keepstone.control.sessions.reading import Readings
from keepstone.control.sessions.registry import Registry
from keepstone.errors import Conflict, InvalidRequest, NotFound
from keepstone.remote.wire import PREFIX, whole

__all__ = ["CALLS", "Transfers"]

_SESSIONS = ("begin", "state", "records", "nodes", "ids", "known", "commit", "abort")
_POINTS = ("open", "nodes", "columns", "fetch")
CALLS = {*map("sessions/{}".format, _SESSIONS), *map("points/{}".format, _POINTS)}
"""All that can be asked for here."""
CONNECTIONS = 64
"""Of one machine at a time."""
_TRUST = 2 * 10**9  # nanoseconds for which a machine is not looked up again
_SMALL = 4 << 20
_HAND_ON = 2 << 20  # bytes of an upload that are handed on together
_PATIENCE = 120.0  # seconds of an upload in which nothing comes


class Transfers:
    """Safe for several threads. `answered` counts requests as in `arm.Service`."""

    def __init__(
        self,
        plane: Plane,
        registry: Registry,
        answered: Callable[[str, int, float, str], None] = lambda *_: None,
    ) -> None:
        self._registry = registry
        self._readings = Readings(plane)
        self._answered = answered
        self._callers = Callers(plane, lambda _, looked: plane.env.boot_time() - looked < _TRUST)
        self._open: Counter[UUID] = Counter()
        self._lock = threading.Lock()

    def serve(self, exchange: Exchange, certificate: bytes | None) -> None:
        """All requests of a connection whose client has this certificate (DER). `Hangup` where it breaks."""
        held: set[UUID] = set()
        try:
            while (head := exchange.next()) is not None:
                self._serve(exchange, head, certificate, held)
                if not exchange.drain():
                    return
        except InvalidRequest as error:
            _refuse(exchange, error, "")
        finally:
            with self._lock:
                self._open -= Counter(held)

    def _serve(self, exchange: Exchange, head: Head, certificate: bytes | None, held: set[UUID]) -> None:
        """One request. `held`: whose places this connection has."""
        began = time.perf_counter()
        name = head.path.removeprefix(PREFIX) if head.path.startswith(PREFIX) else ""
        status, code = 200, ""
        try:
            machine = self._callers.remembered(certificate) or self._callers.look_up(certificate)
            if name not in CALLS:
                raise NotFound(f"{head.path} is nothing that is answered here")
            if machine not in held:
                self._take_place(machine)
                held.add(machine)
            self._answer(exchange, machine, name, head)
        except Hangup:
            raise
        except Exception as error:
            status, code = _refuse(exchange, error, name)
        finally:
            self._answered(f"agent/{name}" if name in CALLS else "agent", status, time.perf_counter() - began, code)

    def _take_place(self, machine: UUID) -> None:
        with self._lock:
            if self._open[machine] >= CONNECTIONS:
                error = Conflict(f"a machine may have {CONNECTIONS} connections; wait until others have ended")
                error.status = 429
                raise error
            self._open[machine] += 1

    def _answer(self, exchange: Exchange, machine: UUID, name: str, head: Head) -> None:
        part, _, verb = name.partition("/")
        if part == "sessions":
            session = head.query.get("session", "")
            if verb == "records":
                answer = self._records(exchange, machine, session, _number(head.query.get("first", "0")))
            else:
                answer = self._registry.ask(machine, verb, session, 0, exchange.body(_SMALL), exchange.listens)
            exchange.answer(200, answer)
            return
        ticket = head.query.get("job", ""), _number(head.query.get("token", "0"))
        body = exchange.body(_SMALL)
        if verb != "fetch":
            exchange.answer(200, self._readings.ask(machine, verb, *ticket, body))
            return
        with exchange.stream():
            self._readings.fetch(machine, *ticket, body, exchange.piece)

    def _records(self, exchange: Exchange, machine: UUID, session: str, first: int) -> bytes:
        buffer = memoryview(bytearray(min(exchange.left, _HAND_ON)))
        filled = 0
        answer = b""
        broken: Hangup | TimeoutError | None = None
        last = time.monotonic()
        while not answer or exchange.left:
            count = 0
            if exchange.left:
                try:
                    count = exchange.some(buffer[filled:])
                except Hangup as error:  # what came is taken all the same
                    broken = error
            filled += count
            if count:
                last = time.monotonic()
            elif exchange.left and time.monotonic() - last > _PATIENCE:
                broken = TimeoutError()
            if broken is None and count and exchange.left and filled < len(buffer):
                continue
            size, number = whole(buffer[:filled])
            if size or (not exchange.left and not answer):
                answer = self._registry.ask(machine, "records", session, first, buffer[:size])
                first += number
                buffer, filled = _beginning(buffer[size:filled], exchange.left, _HAND_ON), filled - size
            elif filled == len(buffer) and exchange.left:  # one record is larger
                buffer = _beginning(buffer, exchange.left, 2 * filled)
            if broken is not None:
                raise broken
        return answer


def _beginning(data: memoryview, left: int, most: int) -> memoryview:
    """A new buffer that begins with this: whoever took the old one has it for as long as he wants."""
    buffer = memoryview(bytearray(min(len(data) + left, max(most, len(data) + 1))))
    buffer[: len(data)] = data
    return buffer


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest(f"{text!r} is no number")
    return int(text)


def _refuse(exchange: Exchange, error: Exception, name: str) -> tuple[int, str]:
    """Say what went wrong with a call; the status and the code. `Hangup` where a part of the answer is sent already:
    the client sees that it has no end."""
    status, code, message = failure(error, name)
    if exchange.has_begun:
        raise Hangup(message) from error
    exchange.answer(status, said(code, message))
    return status, code
