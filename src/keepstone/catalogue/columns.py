# SPDX-License-Identifier: Apache-2.0
"""Types of columns that both databases store alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

__all__ = ["Moment", "alike"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def alike(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool]:
    """Whether a column is this text, whatever its case. SQLite knows the case of ASCII's letters only: others are told
    from one another there."""
    return sa.or_(column == text, sa.func.lower(column) == text.lower())


class Moment(TypeDecorator[datetime]):
    """A moment, as microseconds since 1970 in UTC: in order, exact, and of 8 bytes in either database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND
