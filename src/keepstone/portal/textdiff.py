# SPDX-License-Identifier: Apache-2.0
"""What is different in two small texts, as lines. Both come out of points: they are foreign, and so this is bounded in
what it reads and in how long it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff

from keepstone.errors import Unsupported

__all__ = ["LARGEST", "Line", "lines_between"]

LARGEST = 256 << 10
"""Bytes of a text."""
_LINES = 2000  # that differ, on each side: what is compared with one another
_LONGEST = 2000  # characters of a line that are shown
_CONTEXT = 3


@dataclass(frozen=True, slots=True)
class Line:
    """`sign`: `+`, `-`, a blank, or `@` for where it is. `text`: what is in it, printable."""

    sign: str
    text: str


def lines_between(before: bytes, after: bytes) -> list[Line]:
    """A unified diff. `Unsupported` for what is no text, or too much."""
    one, other = _lines(before), _lines(after)
    begin = _alike(one, other)
    end = _alike(one[begin:][::-1], other[begin:][::-1])
    if max(len(one), len(other)) - begin - end > _LINES:
        raise Unsupported(f"more than {_LINES} lines are not compared here; download both and compare them")
    first, last = max(0, begin - _CONTEXT), max(0, end - _CONTEXT)
    kept = one[first : len(one) - last], other[first : len(other) - last]
    return list(_shown(kept[0], kept[1], first))


def _shown(one: Sequence[str], other: Sequence[str], skipped: int) -> Iterator[Line]:
    """`skipped`: how many lines are before these, on both sides."""
    for line in list(unified_diff(one, other, lineterm="", n=_CONTEXT))[2:]:
        if line.startswith("@@"):
            yield Line("@", _moved(line, skipped))
        else:
            yield Line(line[0], _printable(line[1:]))


def _moved(header: str, skipped: int) -> str:
    """A header whose numbers count the lines that were skipped: `@@ -1,3 +1,4 @@`."""
    ranges = []
    for part in header.strip("@ ").split():
        start, _, count = part[1:].partition(",")
        ranges.append(f"{part[0]}{int(start) + skipped}" + (f",{count}" if count else ""))
    return f"@@ {' '.join(ranges)} @@"


def _lines(text: bytes) -> list[str]:
    if b"\0" in text:
        raise Unsupported("this is no text; download both and compare them with what made them")
    try:
        return text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise Unsupported("this is no text in UTF-8; download both and compare them") from error


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines they begin with are the same."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _printable(line: str) -> str:
    """Without what would turn a line around, or hide some of it."""
    cut = line[:_LONGEST].removesuffix("\r")
    shown = "".join(char if char.isprintable() or char == "\t" else f"\\u{ord(char):04x}" for char in cut)
    return shown + ("…" if len(line) > _LONGEST else "")
