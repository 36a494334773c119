# SPDX-License-Identifier: Apache-2.0
"""What is different in two small texts, as lines. Both come out of points: they are foreign, and so this is bounded in
what it reads and in how long it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from keepstone.errors import Unsupported
from keepstone.portal.speech import _

__all__ = ["LARGEST", "Line", "lines_between"]

_Step = tuple[Literal["replace", "delete", "insert", "equal"], int, int, int, int]
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
        raise Unsupported(
            _("more than %(lines)s lines are not compared here; download both and compare them", lines=_LINES)
        )
    return list(_shown(_Matcher(one, other, begin, end)))


class _Matcher(SequenceMatcher[str]):
    """Compares what is between the lines that both begin with and those that both end with."""

    def __init__(self, one: Sequence[str], other: Sequence[str], begin: int, end: int) -> None:
        self.whole = one, other
        self._ends = begin, end
        super().__init__(None, one[begin : len(one) - end], other[begin : len(other) - end])

    def get_opcodes(self) -> list[_Step]:
        """Of all lines."""
        (begin, end), (one, other) = self._ends, map(len, self.whole)
        first: list[_Step] = [("equal", 0, begin, 0, begin)] if begin else []
        last: list[_Step] = [("equal", one - end, one, other - end, other)] if end else []
        inner = super().get_opcodes()
        return [*first, *((kind, a + begin, b + begin, c + begin, d + begin) for kind, a, b, c, d in inner), *last]


def _shown(matcher: _Matcher) -> Iterator[Line]:
    one, other = matcher.whole
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        (_, a, _, c, _), (_, _, b, _, d) = group[0], group[-1]
        yield Line("@", f"@@ -{_range(a, b)} +{_range(c, d)} @@")
        for kind, a, b, c, d in group:
            if kind == "equal":
                yield from (Line(" ", _printable(line)) for line in one[a:b])
                continue
            yield from (Line("-", _printable(line)) for line in one[a:b])
            yield from (Line("+", _printable(line)) for line in other[c:d])


def _range(begin: int, end: int) -> str:
    """Lines as a header of a unified diff counts them."""
    count = end - begin
    return f"{begin + 1}" if count == 1 else f"{begin + bool(count)},{count}"


def _lines(text: bytes) -> list[str]:
    if b"\0" in text:
        raise Unsupported(_("this is no text; download both and compare them with what made them"))
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise Unsupported(_("this is no text in UTF-8; download both and compare them")) from error
    return [*lines, _("\\ no newline at the end")] if lines[-1] else lines[:-1]


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
