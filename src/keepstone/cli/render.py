# SPDX-License-Identifier: Apache-2.0
"""How values look: to people with units, to programs as plain JSON values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from keepstone.workloads.escaping import escaped, path_text, unescaped

__all__ = [
    "duration",
    "escaped",
    "lines_of",
    "path_text",
    "plain",
    "safe",
    "size",
    "table",
    "text",
    "unescaped",
    "when",
]

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float) -> str:
    """Bytes with a unit of 1024: `999 B`, `1.5 GiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in _UNITS:
        count /= 1024
        if count < 1000 or unit == _UNITS[-1]:
            break
    return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3:07`, `2:03:07`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def when(nanoseconds: int) -> str:
    """A wall clock time as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).isoformat()[:19] + "Z"  # of long lists: no strftime


def text(value: str) -> str:
    """Text that UTF-8 can carry: the same for the bytes that Python keeps in names of files (PEP 383)."""
    return value if value.isascii() else path_text(value.encode("utf-8", "surrogateescape"))


def safe(text: str) -> str:
    """Text for a terminal: what is not printable is escaped, so that no name can play with it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_PLAIN = frozenset((int, float, bool, type(None)))


def plain(value: Any) -> Any:
    """The value in terms of JSON. Dataclasses become objects, paths in bytes text."""
    kind = type(value)  # of most values, in lists of a hundred thousand, the type is one of these
    if kind is str:
        return text(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {
            key if type(key) is str and key.isascii() else str(plain(key)): (
                item if type(item) in _PLAIN or (type(item) is str and item.isascii()) else plain(item)
            )
            for key, item in value.items()
        }
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.structs.asdict(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return escaped(value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def lines_of(value: Any, *, zeros: bool = True, **more: str) -> list[str]:
    """A dataclass for people: a line for each of its fields, lists by their length, and for what else is given."""
    shown = []
    for name, item in [*plain(value).items(), *more.items()]:
        if isinstance(item, (list, dict)):
            item = len(item)
        if not (item or zeros):
            continue
        if isinstance(item, bool):
            item = "yes" if item else "no"
        elif isinstance(item, int):
            item = size(item) if "bytes" in name else f"{item:,}"
        shown.append((name.replace("_", " ") + ":", safe(str(item))))
    return table(shown)


def table(rows: Iterable[Sequence[str]], heading: Sequence[str] = ()) -> list[str]:
    """Columns, as wide as their widest cell."""
    cells = [*([tuple(heading)] if heading else []), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
