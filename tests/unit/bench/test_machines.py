# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of virtual machines counts, and what its tables say."""

from __future__ import annotations

import pytest

from bench import table
from bench.figures import BARS, OURS, spread
from bench.machines.scattered import union

pytestmark = pytest.mark.vm

_PIECE = 256 << 10


def test_bytes_that_are_written_twice_changed_once() -> None:
    assert union([_PIECE * 4, 0]) == 2 * _PIECE
    assert union([0, 4096]) == _PIECE + 4096
    assert union([0, 8192, 4096]) == _PIECE + 8192
    assert union([]) == 0


def test_every_bar_of_machines_has_its_place_in_a_table() -> None:
    figures = {bar.figure for bar in BARS if bar.job == "machines"}
    told = {name: spread([100_000.0 + number]) for number, name in enumerate(sorted(figures))}
    results = {"jobs": {"machines": {OURS: told}}, "versions": {OURS: "0", "restic": "0"}}

    text = "".join(table.TABLES[name](results) for name in ("scattered", "formats", "guests"))

    missing = [name for name, value in told.items() if f"| {value['median']:,.0f} |" not in text]
    assert missing == []
    assert "| restic | – | – | – | – |" in text
