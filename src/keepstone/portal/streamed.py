# SPDX-License-Identifier: Apache-2.0
"""Answers that are made while they are sent: files and archives out of points."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping

from anyio import to_thread
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from keepstone.errors import KeepstoneError

__all__ = ["Streamed"]

_log = logging.getLogger(__name__)


class Streamed(StreamingResponse):
    """These pieces. They are closed whatever ends it, which lets go of the point; where they break off, so does the
    connection: browsers see that from a length that is not reached, and from an archive that has no end."""

    def __init__(self, pieces: Generator[bytes, None, None], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(pieces, status, headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            return
        except KeepstoneError as error:
            _log.warning("the answer to %s %s breaks off: %s", scope["method"], scope["path"], error)
        finally:
            await to_thread.run_sync(self._pieces.close)
