# SPDX-License-Identifier: Apache-2.0
"""Which application answers what."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["ByPath"]


class ByPath:
    """`others` by the beginnings of the paths that are theirs; the rest is `app`'s. Who asks for nothing in particular
    is sent to `home`."""

    def __init__(self, app: ASGIApp, others: Mapping[str, ASGIApp], home: str) -> None:
        self._app = app
        self._others = tuple(others.items())
        self._home = RedirectResponse(home, 303)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await self._home(scope, receive, send)
            return
        for prefix, other in self._others:
            if scope["path"].startswith(prefix):
                await other(scope, receive, send)
                return
        await self._app(scope, receive, send)
