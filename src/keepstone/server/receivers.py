# SPDX-License-Identifier: Apache-2.0
"""The process of a server to which agents write (`receiver.py`): one, for a session is in one place."""

from __future__ import annotations

import sys
from collections.abc import Callable

from keepstone.control.plane import Plane
from keepstone.server.children import Birth, Children

__all__ = ["PROGRAM", "Receivers"]

PROGRAM = (sys.executable, "-m", "keepstone.server.receiver")
"""What it is; `--data`, `--process` and `--log-level` follow."""


class Receivers(Children):
    """On the data folder of `plane`."""

    def __init__(self, plane: Plane, *, level: str = "info", changed: Callable[[], None] = lambda: None) -> None:
        def birth(name: str) -> Birth:
            return Birth([*PROGRAM, "--data", str(plane.root), "--log-level", level, "--process", name])

        super().__init__(plane.env, "receiver", 1, birth, changed=changed)
