# SPDX-License-Identifier: Apache-2.0
"""From what the API refused to the exception that it refused it by: the same class, code and sentence as in the server.

A code that no class has (Azure has hundreds) is told by its HTTP status. What the code was is kept.
"""

from __future__ import annotations

from typing import Any

from keepstone.errors import (
    AlreadyExists,
    KeepstoneError,
    NotFound,
    ServiceUnavailable,
    Unauthenticated,
    Unauthorized,
    UsageError,
    told,
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
        return told(UNREACHABLE, message, status)
    code, message = str(error.get("code") or "Failed"), str(error.get("message") or f"the service answers {status}")
    return told(code, message, status, _BY_STATUS.get(status, KeepstoneError))


def unreachable(message: str) -> KeepstoneError:
    """What to raise where the service does not answer."""
    return ServiceUnavailable(message)
