# SPDX-License-Identifier: Apache-2.0
"""Parts of pages that change while they are looked at, by server-sent events (HTML Living Standard, section 9.2).

A part is drawn anew each second and sent when it differs. Its event's id is its hash: a browser whose connection was
lost says which it saw last, and gets only what is new. Where nothing changes a comment shows that the line is alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from hashlib import blake2b

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response, StreamingResponse

from keepstone.errors import KeepstoneError, ServiceUnavailable
from keepstone.portal.speech import _

__all__ = ["OVER", "Live"]

OVER = "over"
"""The event behind which nothing more comes."""
_PAUSE = 1.0  # seconds between two looks
_QUIET = 15  # looks without a change after which the line says that it is alive
_LONGEST = 600  # looks: then the browser asks again
_MOST = 200  # lines at a time


class Live:
    """The lines of one process."""

    def __init__(self) -> None:
        self._lines = 0
        self._stopped: asyncio.Event | None = None
        self._over = False

    def stop(self) -> None:
        """End all of them. On the loop's thread."""
        self._over = True
        if self._stopped is not None:
            self._stopped.set()

    def response(self, draw: Callable[[], tuple[str, bool]], seen: str, limiter: CapacityLimiter | None) -> Response:
        """A line for what `draw` gives: the part, and whether it will not change any more. `seen`: the id of what the
        browser has."""
        if self._lines >= _MOST or self._over:
            raise ServiceUnavailable(_("too many pages are followed at once; load this one again"))
        if self._stopped is None:
            self._stopped = asyncio.Event()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._line(draw, seen, limiter), headers=headers, media_type="text/event-stream")

    async def _line(
        self, draw: Callable[[], tuple[str, bool]], seen: str, limiter: CapacityLimiter | None
    ) -> AsyncIterator[str]:
        assert self._stopped is not None
        self._lines += 1
        try:
            quiet = 0
            for _ in range(_LONGEST):
                try:
                    text, over = await to_thread.run_sync(draw, limiter=limiter)
                except KeepstoneError:  # nobody is logged in any more, or it is gone: the page says so
                    yield _event("", "", OVER)
                    return
                identity = blake2b(text.encode(), digest_size=12).hexdigest()
                if identity != seen:
                    seen, quiet = identity, 0
                    yield _event(text, identity)
                if over:
                    yield _event("", identity, OVER)
                    return
                quiet += 1
                if quiet % _QUIET == 0:
                    yield ": \n\n"
                if await self._ended():
                    return
        finally:
            self._lines -= 1

    async def _ended(self) -> bool:
        """A pause; whether it came to the end of all lines meanwhile."""
        assert self._stopped is not None
        try:
            async with asyncio.timeout(_PAUSE):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True


def _event(text: str, identity: str, kind: str = "") -> str:
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {identity}"] if identity else []
    lines += [f"data: {line}" for line in text.splitlines()] or ["data: "]
    return "\n".join(lines) + "\n\n"
