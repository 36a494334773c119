# SPDX-License-Identifier: Apache-2.0
"""`$filter` as clients of the backup API send it: `key eq 'value'`, joined by `and`.

Values are always quoted, a quote in one is doubled (OData 4.01, Part 2, 5.1.1.6.1); keys and words are told without
regard to case. Nothing else of OData is ever sent, and nothing else is understood: `InvalidFilter` says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from keepstone.arm.table import Call
from keepstone.errors import InvalidFilter

__all__ = ["filter_of", "moment", "parse_filter"]

_LONGEST = 4096
_TERM = re.compile(r"\s*(\w+)\s+eq\s+'((?:[^']|'')*)'\s*", re.IGNORECASE)
_AND = re.compile(r"and\b", re.IGNORECASE)
_FORMATS = ("%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d")


def parse_filter(text: str, keys: Collection[str]) -> dict[str, str]:
    """The values by key, each key spelled as in `keys`."""
    known = {key.casefold(): key for key in keys}
    found: dict[str, str] = {}
    if len(text) > _LONGEST:
        raise InvalidFilter(f"$filter has {len(text)} characters; at most {_LONGEST} are read")
    at = 0
    while text.strip():
        term = _TERM.match(text, at)
        if term is None:
            raise InvalidFilter(f"$filter is not understood from {text[at : at + 40]!r} on; write key eq 'value' and …")
        key = known.get(term[1].casefold())
        if key is None:
            raise InvalidFilter(f"$filter has the key {term[1]!r}; here it may be {', '.join(sorted(keys))}")
        if key in found:
            raise InvalidFilter(f"$filter names {key} twice")
        found[key] = term[2].replace("''", "'")
        at = term.end()
        if at == len(text):
            break
        joined = _AND.match(text, at)
        if joined is None:
            raise InvalidFilter(f"$filter is not understood from {text[at : at + 40]!r} on; terms are joined by `and`")
        at = joined.end()
    return found


def filter_of(call: Call, keys: Collection[str]) -> dict[str, str]:
    """What the request asks to see of a list."""
    text = next((value for key, value in call.query.items() if key.casefold() == "$filter"), "")
    return parse_filter(text, keys)


def moment(value: str, key: str) -> datetime:
    """A date and time in UTC, in one of the shapes that clients use."""
    for shape in _FORMATS:
        try:
            return datetime.strptime(value, shape).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise InvalidFilter(f"$filter has the {key} {value!r}; write it as '2026-01-31 10:30:00 PM'")
