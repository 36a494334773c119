# SPDX-License-Identifier: Apache-2.0
"""What every test can rely on: an interrupt is one.

A run that a shell starts in the background ignores Ctrl-C, and so would everything that it starts; some tests send it.
"""

from __future__ import annotations

import signal

__all__: list[str] = []


def pytest_configure() -> None:
    """Take interrupts, as a run in the foreground does; in each of the runner's workers."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
