# SPDX-License-Identifier: Apache-2.0
"""How a command starts: with a collector of garbage that runs rarely, before most of its modules are imported."""

from __future__ import annotations

import gc
from collections.abc import Sequence

__all__ = ["collect_rarely", "main"]

_OBJECTS = 200_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. `arguments` default to those of the process."""
    collect_rarely()
    from keepstone.cli import program

    return program.main(arguments)


def collect_rarely() -> None:
    """Look for cycles of references when there are 200,000 objects more than at the last look, not 700.

    What a command makes by the ten thousand are modules, which stay, and trees, which go by their counts. The looks
    were a thirtieth of the start of a command, and a twentieth of the CPU of a restore of 157,000 files.
    """
    gc.set_threshold(_OBJECTS)
