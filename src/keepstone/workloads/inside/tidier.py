# SPDX-License-Identifier: Apache-2.0
"""The process that takes our folder in a guest away if we cannot, because somebody killed us.

    python -P tidier.py ADDRESS

ADDRESS is that of the machine, as JSON. It is told of a folder before that is made, and when it is gone, by lines of
JSON. Where they end without `_OVER`, it takes the agent, as soon as we have let go of it: also those who talk to the
agent for us have the pipe (`pipe`), so that what we asked comes before what it does. Until then it needs the standard
library only. A signal to our group or session does not reach it, and SIGTERM does not end it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keepstone.workloads.hypervisors import VmAddress

__all__ = ["Tidier"]

_OVER = b"over\n"


class Tidier:
    """Waits from now on, until the block ends. `holding`: descriptors that it has until it has done what it has to.
    `OSError` where it cannot be started."""

    def __init__(self, address: VmAddress, *, holding: Collection[int] = ()) -> None:
        self._folder = ""
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, json.dumps(address.document)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=holding,
            start_new_session=True,
        )

    def __enter__(self) -> Tidier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """It takes away what it was told of last, for which nobody waits, and ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            if not self._folder:
                self._process.stdin.write(_OVER)
            self._process.stdin.close()
        self._process.wait()  # it has a child that waits, which is nobody's here
        with self._process.stdout:
            if not self._folder:
                self._process.stdout.read()

    @property
    def pipe(self) -> int:
        """For those who talk to the agent for us."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def watch(self, folder: str) -> None:
        """This one is there from now on; empty: none is."""
        assert self._process.stdin is not None
        self._folder = folder
        with contextlib.suppress(OSError):  # somebody killed it; we have to do without
            self._process.stdin.write(json.dumps(folder).encode() + b"\n")
            self._process.stdin.flush()


def _main(address: str) -> None:
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = ""
    for line in sys.stdin.buffer:
        if line == _OVER:
            return
        folder = json.loads(line)
    if not folder:
        return
    from keepstone.env import Env
    from keepstone.errors import KeepstoneError
    from keepstone.workloads.hypervisors import address_of
    from keepstone.workloads.inside.guest import Inside

    with contextlib.suppress(KeepstoneError), Inside(Env(), address_of(json.loads(address))) as inside:
        inside.run("rm", "-rf", "--", folder)


if __name__ == "__main__":
    _main(*sys.argv[1:])
