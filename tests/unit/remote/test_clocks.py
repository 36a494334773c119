# SPDX-License-Identifier: Apache-2.0
"""A machine and its service with different clocks."""

from __future__ import annotations

import pytest

from keepstone.control.sessions.session import blank, clocked
from keepstone.store import PointRecord

pytestmark = pytest.mark.agents


def record(tags: tuple[str, ...]) -> PointRecord:
    return PointRecord(
        item="i", kind="files", host="h", source=b"s", started=1000, finished=2000, packs=b"p", root=b"r", detail=b"d",
        tags=["item=1", *tags],
    )  # fmt: skip


def test_what_a_machine_trusts_is_judged_by_its_own_clock() -> None:
    """The service's may be ahead: a file that was written while it was read would then never be read again."""
    assert blank(record(clocked(400))).started == 400
    assert blank(record(clocked(0))).started == 1000
    assert blank(record(("clock=nonsense",))).started == 1000
    assert blank(record(clocked(400))).tags == []
