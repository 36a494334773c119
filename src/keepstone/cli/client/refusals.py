# SPDX-License-Identifier: Apache-2.0
"""From what the API refused to the exception that it refused it by: the same class, code and sentence as in the server.

A code that no class has (Azure has hundreds) is told by its HTTP status. What the code was is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keepstone.errors import (
    AlreadyExists,
    KeepstoneError,
    NotFound,
    ServiceUnavailable,
    Unauthenticated,
    Unauthorized,
    UsageError,
)

__all__ = ["UNREACHABLE", "refused", "unreachable"]

UNREACHABLE = ServiceUnavailable.code
"""The code where the service does not answer, or answers that it cannot now."""
_BY_STATUS = {400: UsageError, 401: Unauthenticated, 403: Unauthorized, 404: NotFound, 409: AlreadyExists}


def refused(status: int, body: Any) -> KeepstoneError:
    """What to raise for an answer that is an error. `body`: ARM's, or whatever else came."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        message = f"the service answers {status} without saying why; see its log"
        return _as(ServiceUnavailable, message, UNREACHABLE, status)
    code, message = str(error.get("code") or "Failed"), str(error.get("message") or f"the service answers {status}")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, KeepstoneError)
    return _as(kind, message, code, status)


def unreachable(message: str) -> KeepstoneError:
    """What to raise where the service does not answer."""
    return ServiceUnavailable(message)


def _as(kind: type[KeepstoneError], message: str, code: str, status: int) -> KeepstoneError:
    """An exception of this class. Some take more than a message when a server makes them; none of it is told here."""
    error = kind.__new__(kind, message)
    error.code, error.status = code, status
    return error


def _classes(root: type[KeepstoneError]) -> Iterator[type[KeepstoneError]]:
    yield root
    for below in root.__subclasses__():
        yield from _classes(below)


# A code belongs to the class that names it, not to those that have it from there.
_BY_CODE = {kind.code: kind for kind in _classes(KeepstoneError) if "code" in vars(kind)}
