# SPDX-License-Identifier: Apache-2.0
"""The agents' API: an ASGI application beneath `/agent/v1/`. Messages are msgpack (`remote.wire`).

    register, renew             a certificate for a machine; the only calls without one
    pulse                       signs of life, work for it, waiting for work
    end                         what became of a job
    sessions/<verb>             writing a point: `control/sessions/registry.py`
    points/<verb>               reading one: `control/sessions/reading.py`

Who asks is who the client certificate of the connection says, and that is looked up again within seconds: a machine
whose agent was revoked is out. No call names another machine, item or vault than by a job that this machine holds.
Everything may be asked again; an upload that is cut off is taken as far as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from keepstone.agentapi.waiting import Waiting
from keepstone.control import agents
from keepstone.control.plane import Plane
from keepstone.control.sessions import machine as machines
from keepstone.control.sessions.reading import Readings
from keepstone.errors import InvalidRequest, KeepstoneError, NotFound, Unauthenticated
from keepstone.identity import Authority, key_id, read_certificate
from keepstone.remote.wire import (
    End,
    Pulse,
    Pulsed,
    Register,
    Registered,
    Renew,
    Work,
    decode,
    encode,
    whole,
)

__all__ = ["CALLS", "PEER", "PREFIX", "AgentService", "Sessions", "key_of"]

_log = logging.getLogger(__name__)
PREFIX = "/agent/v1/"
PEER = "keepstone.peer"
"""Where the scope of a request has its client's certificate, DER; None without one."""
_THREADS = 40
_SMALL = 4 << 20
_HAND_ON = 4 << 20  # bytes of an upload that are handed on together
_MOMENT = 0.25  # seconds without a byte after which an upload is handed on as far as it came
_PATIENCE = 120.0  # seconds that a client may take to send a body, or of an upload to send nothing
_LONGEST_WAIT = 55.0
_TRUST = 300.0  # seconds for which an agent is not looked up again, as long as changes are looked for
_KNOWN = 100_000  # agents
_QUEUE = 8  # pieces of an answer that wait to be sent
_SESSIONS = ("begin", "state", "records", "nodes", "ids", "known", "commit", "abort")
_POINTS = ("open", "nodes", "columns", "fetch")
CALLS = {"register", "renew", "pulse", "end", *map("sessions/{}".format, _SESSIONS), *map("points/{}".format, _POINTS)}
"""All that an agent may ask for."""

T = TypeVar("T")


class Sessions(Protocol):
    """Where write sessions are: in this process or in the receiver's."""

    def ask(self, machine: UUID, verb: str, session: str, first: int, body: memoryview) -> bytes:
        """See `Registry.ask`."""


class _Known(NamedTuple):
    """Whose key it is: what was true at the moment `looked` (boot time), and is so until a moment, seconds since 1970,
    unless something changes."""

    machine: UUID
    looked: int
    until: float


class AgentService:
    """`answered` counts requests as in `arm.Service`."""

    def __init__(
        self,
        plane: Plane,
        authority: Authority,
        sessions: Sessions,
        answered: Callable[[str, int, float, str], None] = lambda *_: None,
    ) -> None:
        self._plane = plane
        self._authority = authority
        self._sessions = sessions
        self._readings = Readings(plane)
        self._answered = answered
        self._waiting = Waiting(plane)
        self._known: dict[str, _Known] = {}
        self._limiter: CapacityLimiter | None = None

    def stop(self) -> None:
        """Let waiting agents go; on the loop's thread."""
        self._waiting.wake()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request = Request(scope, receive)
        name = scope["path"][len(PREFIX) :]
        status, code = 200, ""
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        try:
            if request.method != "POST" or name not in CALLS:
                raise NotFound(f"{request.method} {request.url.path} is nothing that this service answers")
            if name == "points/fetch":
                await self._fetch(request, send)
            else:
                await _send(send, 200, await self._answer(request, name))
        except ClientDisconnect:
            return
        except Exception as error:
            status, code, message = _failure(error, name)
            await _send(send, status, encode({"code": code, "message": message}))
        finally:
            known = f"agent/{name}" if name in CALLS else "agent"  # each name is counted for ever
            self._answered(known, status, time.perf_counter() - began, code)

    async def _answer(self, request: Request, name: str) -> bytes:
        if name in ("register", "renew"):
            body = await _body(request, _SMALL)
            return await self._run(self._register if name == "register" else self._renew, body)
        machine = await self._who(request)
        query = dict(parse_qsl(request.scope["query_string"].decode("latin-1")))
        part, _, verb = name.partition("/")
        if name == "pulse":
            return await self._pulse(request, machine, decode(await _body(request, _SMALL), Pulse))
        if name == "end":
            await self._run(machines.end, self._plane, machine, decode(await _body(request, _SMALL), End))
            return b""
        if name == "sessions/records":
            return await self._records(request, machine, query.get("session", ""), _number(query.get("first", "0")))
        body = await _body(request, _SMALL)
        if part == "sessions":
            return await self._run(self._sessions.ask, machine, verb, query.get("session", ""), 0, memoryview(body))
        ticket = query.get("job", ""), _number(query.get("token", "0"))
        return await self._run(self._readings.ask, machine, verb, *ticket, memoryview(body))

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(function, *arguments, limiter=self._limiter)

    # ------------------------------------------------------------------ who it is

    async def _who(self, request: Request) -> UUID:
        peer = request.scope.get(PEER)
        if peer is None:
            raise Unauthenticated("an agent's certificate is needed here; register this machine first")
        key = key_of(peer)
        now = self._plane.env.wall_time() / 1e9
        known = self._known.get(key)
        if known is None or now > known.until or not self._waiting.still(known.machine, known.looked):
            self._known.pop(key, None)
            known = await self._run(self._find, key)
            if len(self._known) > _KNOWN:
                self._known.clear()
            self._known[key] = known
        return known.machine

    def _find(self, key: str) -> _Known:
        looked, now = self._plane.env.boot_time(), self._plane.env.utc()
        with self._plane.look() as connection:
            found = agents.find(connection, key, now)
        return _Known(found.container, looked, min(found.until.timestamp(), now.timestamp() + _TRUST))

    def _register(self, body: bytes) -> bytes:
        wanted = decode(body, Register)
        facts = agents.Facts(name=wanted.name, version=wanted.version, system=wanted.system)
        with self._plane.change() as change:
            made = agents.register(change, self._authority, wanted.thumbprint, wanted.request, wanted.signature, facts)
        return encode(_registered(made))

    def _renew(self, body: bytes) -> bytes:
        wanted = decode(body, Renew)
        with self._plane.change() as change:
            made = agents.renew(change, self._authority, wanted.key, wanted.request, wanted.signature)
        return encode(_registered(made))

    # ------------------------------------------------------------------ pulse

    async def _pulse(self, request: Request, machine: UUID, pulse: Pulse) -> bytes:
        self._waiting.seen(machine, pulse.version)
        told = await self._run(machines.beat, self._plane, machine, pulse.beats) if pulse.beats else []
        work: list[Work] = []
        if pulse.room > 0 and self._waiting.may_have(machine):
            work = await self._run(self._claim, machine, pulse.room)
        if not work and not told and pulse.wait > 0:
            wait = self._waiting.wait(machine, min(pulse.wait, _LONGEST_WAIT))
            if await wait and pulse.room > 0 and not await request.is_disconnected():  # else nobody would hear of it
                work = await self._run(self._claim, machine, pulse.room)
        plan = await self._run(machines.plan, self._plane, machine) if pulse.plan else None
        return encode(Pulsed(work=work, told=told, plan=plan))

    def _claim(self, machine: UUID, room: int) -> list[Work]:
        found: list[Work] = []
        while len(found) < min(room, 8):
            one = machines.claim(self._plane, machine)
            if one is None:
                break
            found.append(one)
        return found

    # ------------------------------------------------------------------ records

    async def _records(self, request: Request, machine: UUID, session: str, first: int) -> bytes:
        """An upload is handed on while it comes: what is cut off then has lost one record at most."""
        parts: list[bytes | memoryview] = []
        held, enough = 0, _HAND_ON
        answer = b""
        over = False
        last = time.monotonic()
        while not over:
            part, over = await _part(request)
            if part:
                last = time.monotonic()
            elif time.monotonic() - last > _PATIENCE:
                raise TimeoutError
            parts.append(part)
            held += len(part)
            if not over and part and held < enough:
                continue
            data = memoryview(b"".join(parts))
            size, count = whole(data)
            parts, enough = [data[size:]], _HAND_ON if size else 2 * held
            held -= size
            if size or (over and not answer):
                answer = await self._run(self._sessions.ask, machine, "records", session, first, data[:size])
                first += count
        return answer

    # ------------------------------------------------------------------ fetch

    async def _fetch(self, request: Request, send: Send) -> None:
        """An answer of unknown length: pieces come from threads, and wait while the client is slow."""
        machine = await self._who(request)
        query = dict(parse_qsl(request.scope["query_string"].decode("latin-1")))
        ticket = query.get("job", ""), _number(query.get("token", "0"))
        body = memoryview(await _body(request, _SMALL))
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[memoryview | None] = asyncio.Queue(_QUEUE)
        gone = False

        def put(piece: memoryview | None) -> None:
            if gone:
                raise ClientDisconnect
            asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()

        def produce() -> None:
            try:
                self._readings.fetch(machine, *ticket, body, put)
            finally:
                with contextlib.suppress(ClientDisconnect):
                    put(None)

        task = asyncio.ensure_future(self._run(produce))
        try:
            piece = await pieces.get()
            if piece is None:
                await task  # raises what went wrong before anything was sent
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            while piece is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await pieces.get()
            await task
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone = True
            while not pieces.empty():
                pieces.get_nowait()


_HEADERS = [(b"content-type", b"application/msgpack"), (b"cache-control", b"no-store")]


@lru_cache(maxsize=20_000)
def key_of(certificate: bytes) -> str:
    """Who the owner of a certificate (DER) is: what its key is known by."""
    return key_id(read_certificate(certificate)[1])


def _registered(made: agents.Registered) -> Registered:
    return Registered(
        certificates=made.certificate.decode(),
        container=made.container.name,
        vault=made.vault.path,
        until=made.agent.until.timestamp(),
    )


async def _part(request: Request) -> tuple[bytes, bool]:
    """What came of a body since the last call, and whether that is all there will be: it ended, or was cut off. Nothing
    where nothing comes for a moment."""
    try:
        async with asyncio.timeout(_MOMENT):
            message = await request.receive()
    except TimeoutError:
        return b"", False
    if message["type"] == "http.disconnect":
        return b"", True
    return message.get("body", b""), not message.get("more_body", False)


async def _body(request: Request, largest: int) -> bytes:
    """The whole body."""
    parts: list[bytes] = []
    size = 0
    async with asyncio.timeout(_PATIENCE):
        async for part in request.stream():
            size += len(part)
            if size > largest:
                error = InvalidRequest(f"a request may have {largest} bytes; send less at a time")
                error.status = 413
                raise error
            parts.append(part)
    return b"".join(parts)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest(f"{text!r} is no number")
    return int(text)


def _failure(error: Exception, name: str) -> tuple[int, str, str]:
    if isinstance(error, KeepstoneError):
        return error.status, error.code, str(error)
    if isinstance(error, TimeoutError):
        return 408, "RequestTimeout", "the request did not come in time; send it again"
    if isinstance(error, msgspec.MsgspecError):
        return 400, "InvalidRequest", str(error)
    _log.exception("a fault while agent/%s was answered", name)
    return 500, "InternalServerError", "a fault of the service itself; its log says more"


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
