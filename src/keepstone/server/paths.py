# SPDX-License-Identifier: Apache-2.0
"""Which application answers what."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["ByPath"]


class ByPath:
    """`others` by the beginnings of the paths that are theirs; the rest is `app`'s."""

    def __init__(self, app: ASGIApp, others: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._others = tuple(others.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for prefix, other in self._others:
            if scope["path"].startswith(prefix):
                await other(scope, receive, send)
                return
        await self._app(scope, receive, send)
