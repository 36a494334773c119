# SPDX-License-Identifier: Apache-2.0
"""One process at a time, for what two must not do at once."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from keepstone.errors import Conflict

__all__ = ["alone"]


@contextlib.contextmanager
def alone(name: str, taken: str) -> Iterator[int]:
    """A name in the kernel (unix(7), abstract) that one process has at a time, and those who get the descriptor from
    it, and nobody after their end. `Conflict`, which says `taken`, where another one has it."""
    with socket.socket(socket.AF_UNIX) as mine:
        try:
            mine.bind(f"\0{name}")
        except OSError as error:
            raise Conflict(f"{taken}; wait for the end of that") from error
        yield mine.fileno()
