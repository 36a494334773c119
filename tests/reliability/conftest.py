# SPDX-License-Identifier: Apache-2.0
"""What the reliability tests counted. With KEEPSTONE_RESULTS=<folder> it is written there, for the figures in the
docs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__: list[str] = []


@pytest.fixture(scope="session")
def counts() -> Iterator[Counter[str]]:
    """Cases by name. One file a worker of pytest-xdist; the sum of them counts."""
    counted: Counter[str] = Counter()
    yield counted
    folder = os.environ.get("KEEPSTONE_RESULTS")
    if folder and counted:
        Path(folder).mkdir(parents=True, exist_ok=True)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "all")
        text = json.dumps({"cases": dict(sorted(counted.items())), "sum": sum(counted.values())}, indent=2)
        Path(folder, f"reliability-{worker}.json").write_text(text + "\n", encoding="utf-8")
