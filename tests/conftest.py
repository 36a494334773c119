# SPDX-License-Identifier: Apache-2.0
"""What every test can rely on: an interrupt is one, and so is a hang-up. And the order: what takes longest goes first.

A run that a shell starts in the background ignores Ctrl-C, one under nohup ignores hang-ups, and so would everything
that they start; some tests send either.

A worker of the runner that has nothing left takes over half of what waits for another one. A few tests of minutes that
wait at the end cannot be divided any more, so they begin.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

__all__: list[str] = []

_LONG = ("crash", "explore", "az", "agents", "reliability", "t2", "rescue")  # folders, those of the longest tests first


def pytest_configure() -> None:
    """Take interrupts and hang-ups, as a run in the foreground does; in each of the runner's workers."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which tests begin."""
    here = Path(__file__).parent
    order = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: order.get(item.path.relative_to(here).parts[0], len(_LONG)))
