# SPDX-License-Identifier: Apache-2.0
"""The agents' API: an ASGI application beneath `/agent/v1/`. Messages are msgpack (`remote.wire`).

    register, renew             a certificate for a machine; the only calls without one
    pulse                       signs of life, work for it, waiting for work
    end                         what became of a job

What a job writes and reads goes over connections of its own, which end elsewhere (`transfers.py`).

Who asks is who the client certificate of the connection says, and that is looked up again within seconds: a machine
whose agent was revoked is out. No call names another machine, item or vault than by a job that this machine holds.
Everything may be asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from keepstone.agentapi.callers import Callers
from keepstone.agentapi.failing import failure, said
from keepstone.agentapi.waiting import Waiting
from keepstone.control import agents
from keepstone.control.plane import Plane
from keepstone.control.sessions import machine as machines
from keepstone.errors import InvalidRequest, NotFound
from keepstone.identity import Authority
from keepstone.remote.wire import PREFIX, End, Pulse, Pulsed, Register, Registered, Renew, Work, decode, encode

__all__ = ["CALLS", "PEER", "AgentService"]

PEER = "keepstone.peer"
"""Where the scope of a request has its client's certificate, DER; None without one."""
_THREADS = 40
_SMALL = 4 << 20
_PATIENCE = 120.0  # seconds that a client may take to send a body
_LONGEST_WAIT = 55.0
CALLS = {"register", "renew", "pulse", "end"}
"""All that can be asked for here."""

T = TypeVar("T")


class AgentService:
    """`answered` counts requests as in `arm.Service`."""

    def __init__(
        self,
        plane: Plane,
        authority: Authority,
        answered: Callable[[str, int, float, str], None] = lambda *_: None,
    ) -> None:
        self._plane = plane
        self._authority = authority
        self._answered = answered
        self._waiting = Waiting(plane)
        self._callers = Callers(plane, self._waiting.still)
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
            await _send(send, 200, await self._answer(request, name))
        except ClientDisconnect:
            return
        except Exception as error:
            status, code, message = failure(error, name)
            await _send(send, status, said(code, message))
        finally:
            known = f"agent/{name}" if name in CALLS else "agent"  # each name is counted for ever
            self._answered(known, status, time.perf_counter() - began, code)

    async def _answer(self, request: Request, name: str) -> bytes:
        if request.method == "POST" and name in ("register", "renew"):
            body = await _body(request, _SMALL)
            return await self._run(self._register if name == "register" else self._renew, body)
        certificate = request.scope.get(PEER)
        machine = self._callers.remembered(certificate)
        if machine is None:
            machine = await self._run(self._callers.look_up, certificate)
        if request.method == "POST" and name == "pulse":
            return await self._pulse(request, machine, decode(await _body(request, _SMALL), Pulse))
        if request.method == "POST" and name == "end":
            await self._run(machines.end, self._plane, machine, decode(await _body(request, _SMALL), End))
            return b""
        raise NotFound(f"{request.method} {request.url.path} is nothing that this service answers")

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(function, *arguments, limiter=self._limiter)

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


_HEADERS = [(b"content-type", b"application/msgpack"), (b"cache-control", b"no-store")]


def _registered(made: agents.Registered) -> Registered:
    return Registered(
        certificates=made.certificate.decode(),
        container=made.container.name,
        vault=made.vault.path,
        until=made.agent.until.timestamp(),
    )


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


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
