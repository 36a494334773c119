# SPDX-License-Identifier: Apache-2.0
"""What a workload tells while it runs; the command line draws it, a service stores it with the job."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent", "Together"]


class Progress(Protocol):
    """Called by the thread that runs the workload, or for restores by any worker; calls are cheap and may be many."""

    def expect(self, size: int) -> None:
        """How many bytes there are to do in all, as far as is known."""

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        """`size` more bytes and `files` more files are done; `reused`: how many of these were not read or not new."""

    def warn(self, path: bytes, message: str) -> None:
        """Something about this path is not as it should be; the run goes on."""


class Silent:
    """Nobody listens; warnings are kept."""

    def __init__(self) -> None:
        self.warnings: list[tuple[bytes, str]] = []

    def expect(self, size: int) -> None:
        """Ignore."""

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        """Ignore."""

    def warn(self, path: bytes, message: str) -> None:
        self.warnings.append((path, message))


class Together:
    """A `Progress` of several things one after the other, of which it is known how long they are together."""

    def __init__(self, progress: Progress) -> None:
        self.advance = progress.advance
        self.warn = progress.warn

    def expect(self, size: int) -> None:
        """It is expected already."""
