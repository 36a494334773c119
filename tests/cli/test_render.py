# SPDX-License-Identifier: Apache-2.0
"""Values for programs: times to the second in UTC, and whatever is in a result in terms of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
import pytest

from keepstone.cli.render import plain, when

pytestmark = pytest.mark.store


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (-(2**63), "1677-09-21T00:12:43Z"),
        (2**63 - 1, "2262-04-11T23:47:16Z"),
    ],
)
def test_a_time_is_told_to_the_second(nanoseconds: int, expected: str) -> None:
    assert when(nanoseconds) == expected


class Coloured(msgspec.Struct):
    colour: str
    raw: bytes


@dataclass
class Sized:
    size: int
    names: tuple[str, ...]


def test_everything_in_a_result_becomes_json() -> None:
    value = {
        "plain": "text",
        "umlaut": "Größe",
        "not UTF-8": "a\udcffb",
        "raw\udcff": b"a\\\xff\n",
        7: None,
        "inner": [{"a": 1, "b": 1.5, "c": True, "d": ["\udcfe"]}, Coloured("red", b"\x00"), Sized(3, ("x", "\udcff"))],
    }

    assert json.loads(msgspec.json.encode(plain(value))) == {
        "plain": "text",
        "umlaut": "Größe",
        "not UTF-8": "a\\xffb",
        "raw\\xff": "a\\\\\\xff\\n",
        "7": None,
        "inner": [
            {"a": 1, "b": 1.5, "c": True, "d": ["\\xfe"]},
            {"colour": "red", "raw": "\\x00"},
            {"size": 3, "names": ["x", "\\xff"]},
        ],
    }
