# SPDX-License-Identifier: Apache-2.0
"""The page on formats says what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.disks.writing import FORMATS, Format

pytestmark = pytest.mark.vm

PAGE = Path(__file__).parents[3] / "docs" / "workloads" / "disk-formats-restore.md"


def row(format: Format) -> str:
    """What the table of the page says of it."""
    limit = "no limit" if format.limit is None else f"{format.limit >> 30:,} GiB"
    unit = {1: "not at all", 512: "512 bytes", 64 << 10: "64 KiB", 1 << 20: "1 MiB"}[format.unit]
    return f"| `{format.name}` | {', '.join(format.suffixes)} | {format.about} | {limit} | {unit} |"


def test_the_table_is_the_one_of_the_program() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## The formats\n")[2].partition("\n\n**")[0]
    assert section.strip().splitlines()[2:] == [row(format) for format in FORMATS.values()]
