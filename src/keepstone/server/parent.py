# SPDX-License-Identifier: Apache-2.0
"""The server, as a process that it has started sees it: who tells it what to do by its stdin, and hears it on its
stderr. The server's side of this is `children.py`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

__all__ = ["READY", "hear", "say_ready"]

READY = '{"ready":true}'
"""The line that says so, among those of the log."""


def hear(line: Callable[[str], None], gone: Callable[[], None]) -> None:
    """Call `line` for each from now on, and `gone` when the server says no more; on a thread of its own."""

    def listen() -> None:
        rest = b""
        while data := os.read(sys.stdin.fileno(), 4096):  # the object itself would be locked when the process ends
            *lines, rest = (rest + data).split(b"\n")
            for each in lines:
                line(each.decode())
        gone()

    threading.Thread(target=listen, name="listen", daemon=True).start()


def say_ready() -> None:
    """Tell the server that this process does its work from now on."""
    print(READY, file=sys.stderr, flush=True)
