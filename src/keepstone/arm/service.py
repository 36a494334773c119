# SPDX-License-Identifier: Apache-2.0
"""Answers requests: an ASGI application over the table of operations.

A request is read here, in full and within bounds, and then answered by a thread: the operations are ordinary functions
that wait for the database. Only to show one thing out of a database in a file takes less time than a thread to be told
of it, and waits for nobody; that is most of what clients ask, who wait for jobs. Every answer has its request's id,
every error ARM's body; a fault of an operation is a 500 with that id, and its cause stands in the log alone.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Generator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from keepstone.arm.failures import failure
from keepstone.arm.operations import OPERATIONS
from keepstone.arm.routing import Routes
from keepstone.arm.table import Answer, Call, Operation
from keepstone.control import people
from keepstone.control.plane import Plane
from keepstone.errors import InvalidRequest, KeepstoneError, Unauthenticated
from keepstone.identity import Assignment, Issuer, Principal

__all__ = ["LARGEST", "Service"]

_log = logging.getLogger(__name__)
LARGEST = 4 << 20
"""Bytes that a body may have, as in Azure Resource Manager."""
_PATIENCE = 60.0  # seconds that a client may take to send a body
_THREADS = 16
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-[A-Za-z]+)?")
_FORM = "application/x-www-form-urlencoded"


class Service:
    """The application. `plane` and `issuer` are those of the installation. `answered` counts requests: it is told the
    operation, the status, the seconds that it took, and the code of the error."""

    def __init__(
        self, plane: Plane, issuer: Issuer, answered: Callable[[str, int, float, str], None] = lambda *_: None
    ) -> None:
        self._plane = plane
        self._issuer = issuer
        self._answered = answered
        self._routes: Routes[Operation] = Routes()
        for operation in OPERATIONS:
            self._routes.add(operation.verb, operation.template, operation)
        self._limiter: CapacityLimiter | None = None
        self._verify = lru_cache(maxsize=1024)(self._verified)
        self._known: dict[str, tuple[int | None, list[Assignment]]] = {}
        self._at_once = plane.database.is_sqlite

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        began = time.perf_counter()
        identity = str(UUID(bytes=self._plane.env.random(16), version=4))
        given = request.headers.get("x-ms-correlation-request-id", "")
        correlation = given if re.fullmatch(r"[\w-]{1,64}", given) else identity
        try:
            answer = await self._answer(request, correlation)
        except ClientDisconnect:
            return
        except Exception as error:
            answer = self._failed(error, identity, request)
        response = _response(answer)
        response.headers.update(
            {
                "x-ms-request-id": identity,
                "x-ms-correlation-request-id": correlation,
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            }
        )
        seconds = round(time.perf_counter() - began, 6)
        name = scope.get("operation", "")
        self._answered(name, response.status_code, seconds, answer.headers.get("x-ms-error-code", ""))
        _log.info(
            "%s %s",
            request.method,
            scope["path"],
            extra={
                "request": identity,
                "correlation": correlation,
                "operation": name,
                "status": response.status_code,
                "seconds": seconds,
            },
        )
        if isinstance(answer.body, Generator):
            await self._stream(answer.body, response, scope, receive, send)
        else:
            await response(scope, receive, send)

    def ask(
        self,
        who: Principal,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Any = None,
        base: str,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """What `who`, of whom a surface of this process knows who he is, is answered: by the same operations and roles
        as by the network. `path` as in a request, quoted. `headers`: by their names in small letters. Whatever an
        operation raises is raised."""
        began = time.perf_counter()
        identity = str(UUID(bytes=self._plane.env.random(16), version=4))
        name, status, code = "", 500, "InternalServerError"
        try:
            operation, names = self._routes.find(verb, path)
            name = operation.name
            answer = self._run(operation, names, query, headers or {}, body, base, path, identity, who)
            status, code = answer.status, ""
        except KeepstoneError as error:
            status, code = error.status, error.code
            raise
        finally:
            self._answered(name, status, round(time.perf_counter() - began, 6), code)
        return answer

    def allows(self, who: Principal, verb: str, path: str) -> bool:
        """Whether this may be asked for by `who`; False too where nothing answers it."""
        try:
            operation, _ = self._routes.find(verb, path)
        except KeepstoneError:
            return False
        return operation.filtered or not operation.action or people.may(self._held(who), who.id, operation.action, path)

    async def _stream(
        self, pieces: Generator[bytes, None, None], response: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """An answer that is made while it is sent. Where it breaks off, so does the connection: clients see that."""
        try:
            await response(scope, receive, send)
        except ClientDisconnect:
            return
        except KeepstoneError as error:
            _log.warning("the answer to %s %s breaks off: %s", scope["method"], scope["path"], error)
        finally:
            await to_thread.run_sync(pieces.close)

    async def _answer(self, request: Request, correlation: str) -> Answer:
        raw = request.scope.get("raw_path") or request.scope["path"].encode()
        path = raw.decode("latin-1").partition("?")[0]
        operation, names = self._routes.find(request.method, path)
        request.scope["operation"] = operation.name  # for those who count, also where it fails
        query = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if operation.action and path.casefold().startswith(("/subscriptions", "/providers", "/tenants")):
            _check_version(query)
        path = re.sub("/{2,}", "/", path)  # clients write two slashes and mean one
        body = _decoded(await _body(request), request.headers.get("content-type", ""))
        base = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
        given = operation, names, query, request.headers, body, base, path, correlation
        if self._at_once and operation.verb == "GET" and operation.template.endswith("}"):
            return self._run(*given)
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        return await to_thread.run_sync(self._run, *given, limiter=self._limiter)

    def _run(
        self,
        operation: Operation,
        names: Mapping[str, str],
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Any,
        base: str,
        path: str,
        correlation: str,
        known: Principal | None = None,
    ) -> Answer:
        """Who asks, whether he may, and the answer."""
        who: Principal | None = None
        held: list[Assignment] = []
        if operation.action:
            who = known or self._who(headers.get("authorization", ""), base)
            held = self._held(who)
            if not operation.filtered:
                people.authorize(held, who, operation.action, path)
        return operation.run(
            Call(
                plane=self._plane,
                issuer=self._issuer,
                names=names,
                query=query,
                headers=headers,
                body=body,
                base=base,
                path=path,
                who=who,
                held=held,
                correlation=correlation,
            )
        )

    def _who(self, header: str, base: str) -> Principal:
        kind, _, token = header.partition(" ")
        if kind.casefold() != "bearer" or not token:
            raise Unauthenticated("Authentication failed. The Authorization header is missing; log in with `az login`")
        return self._verify(token.strip(), base, self._plane.env.wall_time() // (30 * 10**9))

    def _held(self, who: Principal) -> list[Assignment]:
        """What he may do: read again when anything has changed since."""
        version = self._plane.database.version()
        before, held = self._known.get(who.id, (None, []))
        if version is None or version != before:
            with self._plane.look() as connection:
                held = people.assignments_of(connection, who.id)
            self._known[who.id] = version, held
        return held

    def _verified(self, token: str, base: str, _: int) -> Principal:
        """The same for half a minute: clients poll with one token."""
        return self._issuer.verify(token, base)

    def _failed(self, error: Exception, identity: str, request: Request) -> Answer:
        if not isinstance(error, KeepstoneError):
            _log.exception(
                "a fault while %s %s was answered", request.method, request.url.path, extra={"request": identity}
            )
        status, body = failure(error, identity)
        headers = {"x-ms-error-code": body["error"]["code"]}
        if status == 401:
            root = f"{request.url.scheme}://{request.headers.get('host', '')}/{self._plane.place.tenant}"
            headers["WWW-Authenticate"] = f'Bearer authorization_uri="{root}", error="invalid_token"'
        return Answer(status=status, body=body, headers=headers)


def _check_version(query: Mapping[str, str]) -> None:
    version = next((value for key, value in query.items() if key.casefold() == "api-version"), None)
    if version is None:
        raise InvalidRequest(
            "The api-version query parameter (?api-version=) is required for all requests.",
            code="MissingApiVersionParameter",
        )
    if not _VERSION.fullmatch(version):
        raise InvalidRequest(
            f"The api-version '{version}' is invalid; write a date such as 2024-04-01",
            code="InvalidApiVersionParameter",
        )


async def _body(request: Request) -> bytes:
    """The whole body, within its bounds."""
    declared = request.headers.get("content-length", "")
    if not declared and "transfer-encoding" not in request.headers:
        return b""  # RFC 9112, 6.3
    parts: list[bytes] = []
    size = int(declared) if declared.isascii() and declared.isdigit() else 0
    try:
        async with asyncio.timeout(_PATIENCE):
            if size <= LARGEST:
                size = 0
                async for part in request.stream():
                    size += len(part)
                    if size > LARGEST:
                        break
                    parts.append(part)
    except TimeoutError as error:
        slow = InvalidRequest(
            f"the body did not come within {_PATIENCE:.0f} seconds; send it again", code="RequestTimeout"
        )
        slow.status = 408
        raise slow from error
    if size > LARGEST:
        large = InvalidRequest(
            f"The request content size exceeds the maximum size of '{LARGEST}' bytes.", code="RequestContentTooLarge"
        )
        large.status = 413
        raise large
    return b"".join(parts)


def _decoded(body: bytes, kind: str) -> Any:
    """What the body says; None where there is none."""
    if not body:
        return None
    if kind.partition(";")[0].strip().casefold() == _FORM:
        try:
            return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
        except ValueError as error:
            raise InvalidRequest("The body is no form.", code="InvalidRequestContent") from error
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"The request content was invalid and could not be deserialized: '{error}'.", code="InvalidRequestContent"
        ) from error


def _response(answer: Answer) -> Response:
    headers = dict(answer.headers)
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    if isinstance(answer.body, Generator):
        return StreamingResponse(answer.body, status_code=answer.status, headers=headers)
    if isinstance(answer.body, bytes):
        return Response(answer.body, status_code=answer.status, headers=headers)
    return Response(
        msgspec.json.encode(answer.body),
        status_code=answer.status,
        headers=headers,
        media_type="application/json; charset=utf-8",
    )
