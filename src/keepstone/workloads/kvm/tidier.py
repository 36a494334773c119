# SPDX-License-Identifier: Apache-2.0
"""The process that takes our folder in a guest away if we cannot, because somebody killed us.

    python -P tidier.py AGENT

It is told of a folder before that is made, and when it is gone, by lines of JSON. Where they end without that, it takes
the agent, as soon as we have let go of it. Until then it needs the standard library only. A signal to our group or
session does not reach it, and SIGTERM does not end it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Tidier"]


class Tidier:
    """Waits from now on, until it is dismissed. `OSError` where it cannot be started."""

    def __init__(self, agent: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(agent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, folder: str) -> None:
        """This one is there from now on; empty: none is."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # somebody killed it; we have to do without
            self._process.stdin.write(json.dumps(folder).encode() + b"\n")
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """It takes away what it was told of last, and ends; nobody waits for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()  # it has a child that waits, which is nobody's here


def _main(agent: str) -> None:
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = ""
    for line in sys.stdin.buffer:
        folder = json.loads(line)
    if not folder:
        return
    from keepstone.env import Env
    from keepstone.errors import KeepstoneError
    from keepstone.workloads.kvm.inside import Inside

    with contextlib.suppress(KeepstoneError), Inside(Env(), Path(agent)) as inside:
        inside.run("rm", "-rf", "--", folder)


if __name__ == "__main__":
    _main(*sys.argv[1:])
