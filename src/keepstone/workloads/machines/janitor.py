# SPDX-License-Identifier: Apache-2.0
"""The process that takes what we have in a hypervisor away if we cannot, because somebody killed us.

    python -P janitor.py MODULE ARGUMENT...

What holds a moment would go on without us, and what the guest overwrites would fill a disk with copies that nobody
reads. So this process of its own waits for the end of a pipe. Where that comes without `_WELL`, it calls
`MODULE.take_away(kept, ARGUMENT...)`, which knows the hypervisor. `kept`: we were about to commit and said so, and
whether there is a point now, only the next backup knows; so what the point would need stays.

Until then it needs the standard library only, and costs nothing but its start. A signal to our group or session does
not reach it, and SIGTERM does not end it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys

__all__ = ["Janitor"]

_WELL, _KEEP = b"\1", b"\2"


class Janitor:
    """Waits from now on, until it is dismissed or let go of. `OSError` where it cannot be started."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pipe(self) -> int:
        """Whoever holds this too has to end as well before anything is taken away."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def keep(self) -> None:
        """From now on there may be a point."""
        self._say(_KEEP)

    def dismiss(self) -> None:
        """There is nothing to take away."""
        self._say(_WELL)
        self.let_go()

    def let_go(self) -> None:
        """It takes away what it finds; nobody waits for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()  # it has a child that waits, which is nobody's here

    def _say(self, word: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(word)
            self._process.stdin.flush()


def _main(module: str, *arguments: str) -> None:
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    said = b""
    while word := os.read(0, 1):
        said += word
        if word == _WELL:
            return
    importlib.import_module(module).take_away(_KEEP in said, *arguments)


if __name__ == "__main__":
    _main(*sys.argv[1:])
