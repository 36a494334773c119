# SPDX-License-Identifier: Apache-2.0
"""Lists as files for spreadsheets: CSV (RFC 4180).

A spreadsheet takes a cell that begins with one of a few characters for a formula, and runs it. Names are anybody's, so
such a cell gets a quotation mark in front, with which it is text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from keepstone.portal.visit import Download

__all__ = ["Cell", "sheet"]

Cell = str | int | float | None
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class _File:
    body: Generator[bytes, None, None]
    headers: Mapping[str, str]
    status: int = field(default=200)


def sheet(name: str, heading: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Download:
    """A file that a browser keeps under this name, written while it is sent. Bytes are plain numbers there."""
    headers = {"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Download(_File(_lines(heading, rows), headers))


def _lines(heading: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Generator[bytes, None, None]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(heading)
    for row in rows:
        writer.writerow([_safe(cell) for cell in row])
        if text.tell() > 1 << 16:
            yield _taken(text)
    yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    """What is in it; it is empty then. Half of a surrogate pair, of a name that is no Unicode, is a question mark."""
    value = text.getvalue().encode("utf-8", "replace")
    text.seek(0)
    text.truncate()
    return value


def _safe(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell
