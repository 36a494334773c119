# SPDX-License-Identifier: Apache-2.0
"""Open findings: tests of what is not right yet stand in `open_findings.txt`, run, and are counted apart."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__: list[str] = []

_LIST = Path(__file__).parent / "open_findings.txt"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the listed tests to fail; the run ends with how many did."""
    lines = _LIST.read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    for item in items:
        if item.nodeid in listed or item.nodeid.split("[")[0] in listed:
            item.add_marker(pytest.mark.xfail(reason="open finding, see tests/open_findings.txt", strict=False))
