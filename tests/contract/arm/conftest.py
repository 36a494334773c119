# SPDX-License-Identifier: Apache-2.0
"""What the tests of the ARM API share: Microsoft's description of it, where it is at hand."""

from __future__ import annotations

import pytest

from .specs import Specs, location

__all__: list[str] = []


@pytest.fixture(scope="session")
def specs() -> Specs:
    """Microsoft's documents. Without them a test that wants them is skipped: one line in the summary, counted apart."""
    root = location()
    if not root.is_dir():
        pytest.skip(f"Microsoft's API documents are not at {root}: set KEEPSTONE_SPECS to their folder")
    return Specs.load(root)
