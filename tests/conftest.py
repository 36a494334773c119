# SPDX-License-Identifier: Apache-2.0
"""What every test can rely on: an interrupt is one, and so is a hang-up.

A run that a shell starts in the background ignores Ctrl-C, one under nohup ignores hang-ups, and so would everything
that they start; some tests send either.
"""

from __future__ import annotations

import signal

__all__: list[str] = []


def pytest_configure() -> None:
    """Take interrupts and hang-ups, as a run in the foreground does; in each of the runner's workers."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
