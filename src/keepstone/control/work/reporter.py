# SPDX-License-Identifier: Apache-2.0
"""How far a job is: what a workload tells goes to the job's row, and the wish to cancel it comes back."""

from __future__ import annotations

import os
import threading

from keepstone.jobs import Context

__all__ = ["Reporter"]

_KEPT = 20  # warnings that are kept by name


class Reporter:
    """A workload's `Progress`. Its calls raise what `Context.check` raises: so a cancelled job ends between two pieces
    of work."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self.done = self.expected = self.files = self.reused = 0
        self.count = 0
        self.warnings: list[str] = []

    def expect(self, size: int) -> None:
        self.expected = size
        self._tell()

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        with self._lock:
            self.done += size
            self.files += files
            self.reused += reused
        self._tell()

    def warn(self, path: bytes, message: str) -> None:
        with self._lock:
            self.count += 1
            if len(self.warnings) >= _KEPT:
                return
            name = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
            self.warnings.append(f"{name} {message}")
        self._context.note(f"{name} {message}".strip())

    def _tell(self) -> None:
        self._context.progress(self.done, self.expected, f"{self.files:,} files" if self.files else "")
        self._context.check()
