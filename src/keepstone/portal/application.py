# SPDX-License-Identifier: Apache-2.0
"""Answers browsers: an ASGI application beneath `/portal`.

A request is read here, within bounds, and answered by a thread. Nothing is shown to who is not logged in but the login
itself; nothing is done but by a form that a page of this portal sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from keepstone.control import logins
from keepstone.control.plane import Plane
from keepstone.errors import InvalidRequest, KeepstoneError, NoOperation, Unauthenticated, Unauthorized
from keepstone.identity import Principal
from keepstone.portal import assets
from keepstone.portal.api import Api, Client
from keepstone.portal.live import Live
from keepstone.portal.navigation import navigation
from keepstone.portal.rendering import link, render
from keepstone.portal.speech import _, language_of, speak
from keepstone.portal.streamed import Streamed
from keepstone.portal.views.known import VIEWS
from keepstone.portal.visit import Answer, Download, Page, Redirect, Visit

__all__ = ["COOKIE", "HEADERS", "PREFIX", "Portal"]

_log = logging.getLogger(__name__)
PREFIX = "/portal"
COOKIE, _NOTICE = "__Host-keepstone", "__Host-keepstone-notice"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # without one, forms say that they come from nowhere
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer says. Scripts and styles are files of this origin, and nothing else is loaded or framed."""
_KEPT = "public, max-age=31536000, immutable"
_LARGEST = 1 << 20  # bytes of a form
_PATIENCE = 30.0  # seconds that a browser may take to send one
_FIELDS = 2000
_THREADS = 16
_COOKIE = "Path=/; Secure; HttpOnly; SameSite=Strict"
_OPEN = ("/login",)
_SIGN = "/login"


class Portal:
    """The application. `api`: the operations of the service."""

    def __init__(self, plane: Plane, api: Api) -> None:
        self._plane = plane
        self._api = api
        self._limiter: CapacityLimiter | None = None
        self._live = Live()

    def stop(self) -> None:
        """Let go of browsers that are told how things go on; they ask again. On the loop's thread."""
        self._live.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # Of the task that answers this request, and of the threads that it asks: of nobody else.
        speak(language_of(request.headers.get("accept-language", "")))
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        path = request.url.path.removeprefix(PREFIX) or "/"
        try:
            if path.startswith("/static/"):
                response = await to_thread.run_sync(_asset, path, limiter=self._limiter)
            elif path.startswith("/live/"):
                response = await self._follow(request, path.removeprefix("/live"))
            else:
                form = await _form(request) if request.method == "POST" else {}
                response = await to_thread.run_sync(self._answered, request, path, form, limiter=self._limiter)
        except ClientDisconnect:
            return
        except KeepstoneError as error:
            response = Response(str(error), error.status, media_type="text/plain")
        for name, value in HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        await response(scope, receive, send)

    async def _follow(self, request: Request, path: str) -> Response:
        """The live part of a view, whenever it changes."""

        def draw() -> tuple[str, bool]:
            visit = self._visit(request, path, {}, part=True, quietly=True)
            page = VIEWS["GET", path](visit)
            assert isinstance(page, Page)
            assert page.part, path
            return self._text(page, visit, ""), bool(page.shown.get("over"))

        if ("GET", path) not in VIEWS:
            raise NoOperation(_("there is no page %(path)s", path=path), verbs=[])
        return self._live.response(draw, request.headers.get("last-event-id", ""), self._limiter)

    def _answered(self, request: Request, path: str, form: Mapping[str, list[str]]) -> Response:
        """The answer to anything else, and that of what is wrong with it."""
        visit = None
        part = request.headers.get("hx-request") == "true" and request.headers.get("hx-request-type") != "full"
        try:
            if request.method == "POST":
                _check_origin(request)
            visit = self._visit(request, path, form, part=part)
            view = VIEWS.get(("GET" if request.method == "HEAD" else request.method, path))
            if view is None:
                raise NoOperation(_("there is no page %(path)s", path=path), verbs=[])
            return self._response(view(visit), visit, request)
        except Unauthenticated as error:
            if path in _OPEN:
                page = Page("login.html", {"wrong": str(error), "to": _first(form, "to")}, 401)
                return self._response(page, self._visit(request, path, form), request)
            to = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
            address = link(_SIGN, to=to if request.method == "GET" and not part else "")
            if part:
                return Response(status_code=401, headers={"HX-Redirect": address})
            return RedirectResponse(address, 303)
        except Exception as error:
            return self._failed(error, visit, request)

    def _visit(
        self, request: Request, path: str, form: Mapping[str, list[str]], *, part: bool = False, quietly: bool = False
    ) -> Visit:
        """Who comes for what. `Unauthenticated`. `quietly`: it is no use of his login that keeps it."""
        token = _cookies(request).get(COOKIE, "")
        who = Principal("", "", "", "") if path in _OPEN else logins.find(self._plane, token, note=not quietly).who
        base = f"{request.url.scheme}://{request.headers.get('host', '')}"
        return Visit(
            plane=self._plane,
            client=Client(self._api, who, base),
            path=path,
            query=parse_qs(request.url.query, keep_blank_values=True, max_num_fields=_FIELDS),
            form=form,
            part=part,
            login=token,
        )

    def _response(self, answer: Answer, visit: Visit, request: Request) -> Response:
        match answer:
            case Redirect():
                redirect: Response = RedirectResponse(answer.path, 303)
                if visit.part:
                    redirect = Response(status_code=204, headers={"HX-Redirect": answer.path})
                if answer.notice:
                    redirect.headers.append("Set-Cookie", f"{_NOTICE}={quote(answer.notice)}; Max-Age=60; {_COOKIE}")
                if answer.login is not None:
                    redirect.headers.append("Set-Cookie", f"{COOKIE}={answer.login}; {_COOKIE}")
                return redirect
            case Download():
                body, headers = answer.reply.body, dict(answer.reply.headers)
                if isinstance(body, Generator):
                    return Streamed(body, answer.reply.status, headers)
                return Response(body, answer.reply.status, headers)
            case Page():
                told = unquote(_cookies(request).get(_NOTICE, ""))
                response = Response(self._text(answer, visit, told), answer.status, media_type="text/html")
                if told and not visit.part:
                    response.headers.append("Set-Cookie", f"{_NOTICE}=; Max-Age=0; {_COOKIE}")
                return response

    def _text(self, page: Page, visit: Visit, notice: str) -> str:
        shown: dict[str, Any] = {
            "notice": notice,
            "who": visit.client.who,
            "path": visit.path,
            "navigation": navigation(visit) if visit.client.who.id and not visit.part else (),
            "now": self._plane.env.utc(),
            "allows": visit.client.allows,
            "over": False,
            **page.shown,
        }
        return render(page.template, shown, page.part if visit.part else "")

    def _failed(self, error: Exception, visit: Visit | None, request: Request) -> Response:
        """Says what is wrong, and what to do next."""
        if isinstance(error, KeepstoneError):
            status, said, code = error.status, str(error), error.code
        else:
            identity = str(UUID(bytes=self._plane.env.random(16), version=4))
            _log.exception("a fault while the page %s was made", request.url.path, extra={"request": identity})
            status, code = 500, "InternalServerError"
            said = _(
                "Keepstone met a fault of its own. The server's log says more under request id '%(id)s'", id=identity
            )
        shown = {"said": said, "code": code, "status": status}
        if visit is None:
            return Response(render("refused.html", shown), status, media_type="text/html")
        page = Page("failed.html", shown, status, "said")
        response = self._response(page, visit, request)
        if visit.part:  # a script shows it in the place that says so
            response.headers["HX-Retarget"] = "#failure"
        return response


def _asset(path: str) -> Response:
    body, kind = assets.asset(path)
    headers = {"Cache-Control": _KEPT, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(body, headers=headers, media_type=kind)


def _cookies(request: Request) -> dict[str, str]:
    try:
        return {name: one.value for name, one in SimpleCookie(request.headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _check_origin(request: Request) -> None:
    """Only pages of this portal send forms: browsers say where one comes from (Fetch, section 3.2)."""
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    origin = request.headers.get("origin")
    if origin != own and not (origin is None and request.headers.get("sec-fetch-site") == "same-origin"):
        raise Unauthorized(
            _(
                "this form comes from %(origin)s, and not from %(own)s; open the portal there",
                origin=origin or _("nowhere"),
                own=own,
            )
        )


async def _form(request: Request) -> dict[str, list[str]]:
    """What a form has. `InvalidRequest`."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind not in ("", "application/x-www-form-urlencoded"):
        raise InvalidRequest(_("the portal takes forms, and not %(kind)s", kind=kind))
    body = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > _LARGEST:
                    raise InvalidRequest(_("a form has up to %(largest)s bytes", largest=_LARGEST))
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS)
    except (TimeoutError, ValueError) as error:
        raise InvalidRequest(
            _("the form is no form, or did not come in time; load its page and send it again")
        ) from error


def _first(form: Mapping[str, list[str]], name: str) -> str:
    return (form.get(name) or [""])[0]
