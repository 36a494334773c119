# SPDX-License-Identifier: Apache-2.0
"""What stands before the ARM API: whether the service is well (`/healthz`), and its figures (`/metrics`).

Whoever can reach the port may ask whether it is well, and learns no more than that. The figures name vaults: they are
for this machine, and for a Reader of the subscription with a token of this service. Behind a proxy on this machine the
client is whom the proxy names (`X-Forwarded-For`).

Neither waits for a thread of the API's.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable

import msgspec
import sqlalchemy as sa
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from keepstone import __version__
from keepstone.catalogue import facts
from keepstone.control import people
from keepstone.control.plane import Plane
from keepstone.errors import KeepstoneError, Unauthenticated
from keepstone.identity import Issuer
from keepstone.server.metrics import CONTENT_TYPE, Metrics
from keepstone.server.processes import Processes

__all__ = ["READ_METRICS", "Front"]

_log = logging.getLogger(__name__)
READ_METRICS = "Microsoft.Insights/metrics/read"
"""What a client from elsewhere has to be allowed, at the subscription."""
_THREADS = 2


class Front:
    """An ASGI application around another. `processes`: who runs now."""

    def __init__(
        self, app: ASGIApp, plane: Plane, issuer: Issuer, metrics: Metrics, processes: Callable[[], Processes]
    ) -> None:
        self._app = app
        self._plane = plane
        self._issuer = issuer
        self._metrics = metrics
        self._processes = processes
        self._limiter: CapacityLimiter | None = None
        self._own: dict[str, Callable[[Request], Response]] = {"/healthz": self._health, "/metrics": self._figures}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._own.get(scope["path"]) if scope["method"] in ("GET", "HEAD") else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        request = Request(scope)
        response = await to_thread.run_sync(answer, request, limiter=self._limiter)
        response.headers["Cache-Control"] = "no-store"
        await response(scope, receive, send)

    def _health(self, request: Request) -> Response:
        """200 where the database answers and the stores' folder can be written to, 503 otherwise."""
        parts = {"database": self._try("database", self._database), "stores": self._try("stores", self._stores)}
        well = all(parts.values())
        known = self._processes()
        body = {
            "status": "ok" if well else "failed",
            **{name: "ok" if good else "failed" for name, good in parts.items()},
            "answerers": len(known.answerers.alive),
            "answerers_wanted": known.answerers.wanted,
            "workers": len(known.workers.alive),
            "workers_wanted": known.workers.wanted,
            "version": __version__,
        }
        return _json(200 if well else 503, body)

    def _try(self, what: str, check: Callable[[], None]) -> bool:
        try:
            check()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            _log.error("the %s of this service cannot be used: %s", what, error)
            return False
        return True

    def _database(self) -> None:
        with self._plane.look() as connection:
            connection.execute(sa.select(facts.c.name).limit(1)).all()

    def _stores(self) -> None:
        folder = self._plane.root / "vaults"
        with os.scandir(folder) as entries:
            next(entries, None)
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise OSError(f"{folder} is mounted read-only")

    def _figures(self, request: Request) -> Response:
        if not _is_local(request):
            try:
                self._authorize(request)
            except KeepstoneError as error:
                return _json(error.status, {"error": {"code": error.code, "message": str(error)}})
        try:
            return Response(self._metrics.text(), media_type=CONTENT_TYPE)
        except sa.exc.SQLAlchemyError as error:
            _log.error("the figures cannot be looked up: %s", error)
            return _json(503, {"error": {"code": "ServiceUnavailable", "message": "the database does not answer"}})

    def _authorize(self, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.casefold() != "bearer" or not token:
            raise Unauthenticated("figures are for this machine, or for a Reader with a token; log in and send it")
        who = self._issuer.verify(token.strip(), f"{request.url.scheme}://{request.headers.get('host', '')}")
        with self._plane.look() as connection:
            held = people.assignments_of(connection, who.id)
        people.authorize(held, who, READ_METRICS, f"/subscriptions/{self._plane.place.subscription}")


def _is_local(request: Request) -> bool:
    try:
        client = ipaddress.ip_address(request.client.host if request.client is not None else "")
    except ValueError:
        return False
    return (getattr(client, "ipv4_mapped", None) or client).is_loopback


def _json(status: int, body: object) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json; charset=utf-8")
