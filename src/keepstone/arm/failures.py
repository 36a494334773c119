# SPDX-License-Identifier: Apache-2.0
"""From an exception to the status and the body that ARM clients read.

Body: Azure Resource Manager, "Common API details", error response: `error` with `code`, `message`, and where there is
one the `target`, a path in the document that was sent. Clients show their users the message alone, so that carries
what to do next.
"""

from __future__ import annotations

from typing import Any

from keepstone.errors import KeepstoneError

__all__ = ["failure"]


def failure(error: BaseException, request: str) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body). `request` is the id under which the server's log has it: a fault of Keepstone itself says
    that, and nothing of its cause."""
    if not isinstance(error, KeepstoneError):
        message = (
            f"Keepstone met a fault of its own. The server's log says more under request id '{request}'; try again"
        )
        return 500, _body("InternalServerError", message, None)
    return error.status, _body(error.code, str(error), getattr(error, "target", None))


def _body(code: str, message: str, target: str | None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if target is not None:
        error["target"] = target
    return {"error": error}
