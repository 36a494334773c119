# SPDX-License-Identifier: Apache-2.0
"""What became of a job step by step, for who looks at it: a few lines in its row, each with its moment.

A line is written in the transaction of what it tells, so the two cannot differ. A job that goes wrong for days must not
make its row grow: its first lines and its newest ones stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["FIRST", "LONGEST", "NEWEST", "appended", "line"]

FIRST, NEWEST = 50, 150
"""Lines that stay."""
LONGEST = 500
"""Characters of a line."""


def line(moment: datetime, text: str) -> list[str]:
    """As it is kept: the moment in UTC (ISO 8601) and the text."""
    return [f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", text[:LONGEST]]


def appended(log: Any, lines: Sequence[list[str]]) -> list[list[str]]:
    """The log with these lines too; None is an empty one."""
    whole = [*(log or ()), *lines]
    return whole if len(whole) <= FIRST + NEWEST else whole[:FIRST] + whole[-NEWEST:]
