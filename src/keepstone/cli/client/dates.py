# SPDX-License-Identifier: Apache-2.0
"""Days as people give them: 2026-12-31, or 31-12-2026 as `az` wants them. All of them are days in UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from keepstone.errors import UsageError

__all__ = ["day"]

_SHAPES = ("%Y-%m-%d", "%d-%m-%Y")


def day(option: str, text: str | None, *, end: bool = False) -> str | None:
    """The beginning of a day, or its `end`, as the API takes moments; None for none. `UsageError`."""
    if text is None:
        return None
    moment = datetime.combine(_date(option, text), time.max if end else time.min, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _date(option: str, text: str) -> date:
    for shape in _SHAPES:
        try:
            return datetime.strptime(text, shape).replace(tzinfo=UTC).date()
        except ValueError:
            continue
    raise UsageError(f"{option} {text!r} is no day; write it as 2026-12-31")
