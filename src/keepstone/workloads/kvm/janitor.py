# SPDX-License-Identifier: Apache-2.0
"""The process that takes what we have in QEMU away if we cannot, because somebody killed us.

    python -P janitor.py MONITOR PREFIX

Jobs that hold a moment would go on without us, and what the guest overwrites would fill a disk with copies that nobody
reads. So this process of its own waits for the end of a pipe. Where that comes without a word it takes the monitor, as
soon as we have let go of it, and sweeps. Bitmaps stay: it does not know which point there is; the next backup does.

Until then it needs the standard library only, and costs nothing but its start. A signal to our group or session does
not reach it, and SIGTERM does not end it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Janitor"]

_WELL = b"\1"
_TURN = 120.0  # seconds until whoever has the monitor now must be done with it


class Janitor:
    """Waits from now on, until it is dismissed or let go of. `OSError` where it cannot be started."""

    def __init__(self, monitor: Path, prefix: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(monitor), prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """There is nothing to take away."""
        self._end(_WELL)

    def let_go(self) -> None:
        """It takes away what it finds; nobody waits for that."""
        self._end(b"")

    def _end(self, word: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(word)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()  # it has a child that waits, which is nobody's here


def _main(monitor: str, prefix: str) -> None:
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1) == _WELL:
        return
    from keepstone.env import Env
    from keepstone.errors import KeepstoneError
    from keepstone.workloads.kvm.qmp import Monitor
    from keepstone.workloads.kvm.sweep import sweep

    with contextlib.suppress(KeepstoneError), Monitor(Env(), Path(monitor), timeout=_TURN) as opened:
        sweep(opened, prefix, None)


if __name__ == "__main__":
    _main(*sys.argv[1:])
