# SPDX-License-Identifier: Apache-2.0
"""Answers that many operations give: pages, moments, and what a client that has to wait is told."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from keepstone.arm.table import Answer, Call
from keepstone.control.operations import Operation
from keepstone.errors import InvalidRequest

__all__ = ["NEVER", "accepted", "duration", "following", "moment", "page", "paged", "skip_token", "status_document"]

T = TypeVar("T")
NEVER = "0001-01-01T00:00:00"
"""What Azure writes for a moment that has not come."""
RETRY_AFTER = "1"
"""Seconds; a client waits for 30 where it is not told."""


def moment(value: datetime | None) -> str | None:
    """As Azure writes it: UTC, seven digits after the point."""
    return None if value is None else f"{value.replace(tzinfo=None).isoformat(timespec='microseconds')}0Z"


def duration(value: timedelta) -> str:
    """ISO 8601, as .NET writes it: PT1H2M3.5S."""
    seconds = max(0.0, value.total_seconds())
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"{seconds:.7f}".rstrip("0").rstrip(".")
    return "PT" + (f"{hours:.0f}H" if hours else "") + (f"{minutes:.0f}M" if minutes else "") + f"{text}S"


def page(value: Sequence[Any], following: str | None = None) -> Answer:
    """A list, and where it goes on."""
    body: dict[str, Any] = {"value": list(value)}
    if following is not None:
        body["nextLink"] = following
    return Answer(body=body)


def skip_token(call: Call) -> str:
    """What an earlier page said to go on from; empty at the beginning. `InvalidRequest` for one that is none."""
    given = next((value for key, value in call.query.items() if key.casefold() == "$skiptoken"), "")
    try:
        return base64.urlsafe_b64decode(given.encode()).decode()
    except ValueError as error:
        raise InvalidRequest(f"$skipToken {given!r} is none that this service gave", target="$skipToken") from error


def paged(call: Call, value: Sequence[T], size: int, place: Callable[[T], str], show: Callable[[T], Any]) -> Answer:
    """A page of a list that was asked for with one more than `size`; `place` is what the next one goes on from."""
    shown = [show(one) for one in value[:size]]
    if len(value) <= size:
        return page(shown)
    return page(shown, following(call, place(value[size - 1])))


def following(call: Call, place: str) -> str:
    """Where a list goes on behind this place."""
    token = base64.urlsafe_b64encode(place.encode()).decode()
    kept = "&".join(f"{key}={_quoted(text)}" for key, text in call.query.items() if key.casefold() != "$skiptoken")
    return f"{call.base}{call.path}?{kept}&$skipToken={token}"


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def accepted(
    call: Call,
    *,
    location: str | None = None,
    status: str | None = None,
    body: Any = None,
    code: int = 202,
) -> Answer:
    """What was asked for is taken on. `status` and `location`: the paths of Azure-AsyncOperation and of Location."""
    headers = {"Retry-After": RETRY_AFTER}
    version = call.query.get("api-version", "")
    if status is not None:
        headers["Azure-AsyncOperation"] = f"{call.base}{status}?api-version={version}"
    if location is not None:
        headers["Location"] = f"{call.base}{location}?api-version={version}"
    return Answer(status=code, body=body, headers=headers)


def status_document(operation: Operation, *, with_job: bool = True) -> Mapping[str, Any]:
    """An operation as clients poll it."""
    document: dict[str, Any] = {
        "id": str(operation.id),
        "name": str(operation.id),
        "status": operation.status,
        "startTime": moment(operation.started),
        "endTime": moment(operation.ended) or NEVER,
    }
    if operation.error is not None:
        document["error"] = operation.error
    if with_job and operation.job is not None and operation.status == "Succeeded":
        document["properties"] = {"objectType": "OperationStatusJobExtendedInfo", "jobId": str(operation.job)}
    elif operation.result is not None:
        document["properties"] = operation.result
    return document
