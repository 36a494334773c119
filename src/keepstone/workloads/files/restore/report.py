# SPDX-License-Identifier: Apache-2.0
"""What a restore did, and what it could not do."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from dataclasses import dataclass, field

from keepstone.objects import failure
from keepstone.workloads.files.names import shown
from keepstone.workloads.progress import Progress

__all__ = ["Findings", "RestoreReport"]

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """`files`: everything made that is no directory; `size`: bytes of content written; `unchanged`: existing entries
    that were as they should be.

    `skipped`: existing entries that differ and were left, `kept`: (path in the point, path that it got beside them),
    `deleted`: entries removed because the point does not have them. `failed`: (path, reason) of what is missing from
    the target now: damaged in the store, or refused by the operating system. `warnings`: (path, reason) of what is
    there but not quite as it was, or was not in the point either.
    """

    files: int = 0
    directories: int = 0
    size: int = 0
    unchanged: int = 0
    skipped: int = 0
    deleted: int = 0
    kept: list[tuple[bytes, bytes]] = field(default_factory=list)
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    warnings: list[tuple[bytes, str]] = field(default_factory=list)


class Findings:
    """What becomes the report. Several threads may tell it things; what happens to many entries is told once, with a
    count. `target`: where to, for errors.
    """

    def __init__(self, progress: Progress, target: str = "") -> None:
        self.progress = progress
        self._target = target
        self.files = self.directories = self.size = self.unchanged = self.skipped = self.deleted = 0
        self.kept: list[tuple[bytes, bytes]] = []
        self.failed: list[tuple[bytes, str]] = []
        self._warnings: list[tuple[bytes, str]] = []
        self._often: Counter[str] = Counter()
        self._first: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def refuse(self, path: bytes, error: Exception) -> None:
        """This path is not restored, because of this error.

        Raised is what no other entry would escape: a full, broken or read-only file system.
        """
        if isinstance(error, OSError) and error.errno in _FATAL:
            raise failure(error, os.path.join(self._target, shown(path))) from error
        self.fail(path, f"not restored: {(isinstance(error, OSError) and error.strerror) or error}")

    def fail(self, path: bytes, reason: str) -> None:
        """This path is not restored."""
        with self._lock:
            self.failed.append((path, reason))
        self.progress.warn(path, reason)

    def warn(self, path: bytes, reason: str) -> None:
        """Something about this path deserves to be known."""
        with self._lock:
            self._warnings.append((path, reason))
        self.progress.warn(path, reason)

    def often(self, path: bytes, reason: str) -> None:
        """The same, of something that may be so for all of the tree."""
        with self._lock:
            self._often[reason] += 1
            self._first.setdefault(reason, path)

    def report(self) -> RestoreReport:
        """The end of it."""
        for reason, count in self._often.items():
            path = self._first[reason]
            where = f"{count} entries, the first is {shown(path)}" if count > 1 else shown(path)
            self.warn(path, f"{reason} ({where})")
        return RestoreReport(
            files=self.files,
            directories=self.directories,
            size=self.size,
            unchanged=self.unchanged,
            skipped=self.skipped,
            deleted=self.deleted,
            kept=self.kept,
            failed=sorted(self.failed),
            warnings=self._warnings,
        )
