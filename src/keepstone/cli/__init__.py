# SPDX-License-Identifier: Apache-2.0
"""The command `keepstone`: composes the rooms below, shows what they do, and turns failures into exit codes.

A command's module, and what it needs, is imported when it runs.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

__all__ = ["collect_rarely", "main"]

_OBJECTS = 200_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. `arguments` default to those of the process."""
    collect_rarely()  # before the imports, which make most objects of a short command
    from keepstone.cli import program

    return program.main(arguments)


def collect_rarely() -> None:
    """Look for cycles of references when there are so many objects more than at the last look, not 700.

    What a command makes by the ten thousand are modules, which stay, and trees, which go by their counts.
    """
    gc.set_threshold(_OBJECTS)
