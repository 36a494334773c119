# SPDX-License-Identifier: Apache-2.0
"""Finding entries of a point by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from itertools import takewhile

from keepstone.store import Reader
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.tree import walk

__all__ = ["beginning", "find", "matching"]

_SPECIAL = frozenset(b"*?[")


def find(reader: Reader, patterns: Iterable[bytes]) -> Iterator[tuple[bytes, Entry]]:
    """(path, entry) of every entry that one of these patterns matches, in order.

    Patterns are those of fnmatch(3): one with a slash is compared with the whole path from the source, where `*` also
    matches slashes, any other one with the name.
    """
    wanted = matching(patterns)
    for path, entry, _ in walk(reader):
        if wanted(path, entry):
            yield path, entry


def matching(patterns: Iterable[bytes]) -> Callable[[bytes, Entry], bool]:
    """Whether one of these patterns matches an entry at a path."""
    names: list[str] = []
    paths: list[str] = []
    for pattern in patterns:
        text = os.fsdecode(pattern).rstrip("/")
        (paths if "/" in text else names).append(text.lstrip("/"))
    by_name, by_path = _matcher(names), _matcher(paths)

    def is_wanted(path: bytes, entry: Entry) -> bool:
        return (by_name is not None and by_name.match(os.fsdecode(entry.name)) is not None) or (
            by_path is not None and by_path.match(os.fsdecode(path)) is not None
        )

    return is_wanted


def beginning(patterns: Sequence[bytes]) -> tuple[bytes, bool]:
    """(a path that everything which these patterns match is at or beneath, whether it is at it)."""
    if len(patterns) != 1 or b"/" not in patterns[0].rstrip(b"/"):
        return b"", False
    parts = patterns[0].strip(b"/").split(b"/")
    plain = list(takewhile(lambda part: not _SPECIAL.intersection(part), parts))
    return b"/".join(plain), len(plain) == len(parts)


def _matcher(patterns: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, patterns))) if patterns else None
