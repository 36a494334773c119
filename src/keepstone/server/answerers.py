# SPDX-License-Identifier: Apache-2.0
"""The answering processes of a server: children that share its listening socket.

Whichever is free takes the next connection. What one of them leaves unaccepted when it dies, another takes.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from keepstone.control.plane import Plane
from keepstone.server.children import Birth, Children

__all__ = ["PROGRAM", "RENEW", "Answerers", "as_many_as_help"]

PROGRAM = (sys.executable, "-m", "keepstone.server.answerer")
"""What an answerer is; `--data`, `--listener`, `--process` and `--log-level` follow."""
RENEW = "renew"
"""Tells one that there is a new certificate."""
_MOST = 2


def as_many_as_help() -> int:
    """How many there are where nobody says: one for each core that this process may use, and two at most, for workers
    want some too."""
    return min(_MOST, len(os.sched_getaffinity(0)))


class Answerers(Children):
    """`count` of them on the data folder of `plane`. `ready`, `died` and `changed` as of `Children`."""

    def __init__(
        self,
        plane: Plane,
        listener: socket.socket,
        count: int,
        *,
        level: str = "info",
        ready: Callable[[], None] = lambda: None,
        died: Callable[[], None] = lambda: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        def birth(name: str) -> Birth:
            number = listener.fileno()
            given = ["--data", str(plane.root), "--log-level", level, "--listener", str(number), "--process", name]
            return Birth([*PROGRAM, *given], descriptors=(number,))

        super().__init__(plane.env, "answerer", count, birth, ready=ready, died=died, changed=changed)
