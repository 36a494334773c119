# SPDX-License-Identifier: Apache-2.0
"""What agents are told of what went wrong."""

from __future__ import annotations

import logging

import msgspec

from keepstone.errors import KeepstoneError
from keepstone.remote.wire import encode

__all__ = ["failure", "said"]

_log = logging.getLogger(__name__)


def failure(error: Exception, name: str) -> tuple[int, str, str]:
    """(status, code, message) for what the call `name` raised."""
    if isinstance(error, KeepstoneError):
        return error.status, error.code, str(error)
    if isinstance(error, TimeoutError):
        return 408, "RequestTimeout", "the request did not come in time; send it again"
    if isinstance(error, msgspec.MsgspecError):
        return 400, "InvalidRequest", str(error)
    _log.exception("a fault while agent/%s was answered", name)
    return 500, "InternalServerError", "a fault of the service itself; its log says more"


def said(code: str, message: str) -> bytes:
    """The body of such an answer."""
    return encode({"code": code, "message": message})
