# SPDX-License-Identifier: Apache-2.0
"""The file that a new image lies in.

Invariants
* It did not exist before; `abort` removes it, and nothing else.
* What makes it an image is written when all the rest is durable: a file that a crash left behind is none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import TargetExists, UsageError
from keepstone.files import sync_folder
from keepstone.objects import Buffer, DirectFile, failure

__all__ = ["NewFile", "Piece"]

Piece = tuple[int, Buffer]
"""Bytes, and the offset in the file that they belong to."""


class NewFile:
    """Written from several threads, each range once; what nobody writes reads as zeros. `TargetExists`; and what
    `failure` makes of the rest."""

    def __init__(self, env: Env, path: Path) -> None:
        self.path = path
        self._fs = env.fs
        with self._failures():
            self._file = DirectFile(self._fs, os.fspath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._open = True

    def write(self, offset: int, data: Buffer) -> None:
        """Put `data` at `offset`; fast where both and the length are whole pages."""
        self.check()
        with self._failures():
            self._file.pwrite(offset, data)

    def seal(self, length: int, body: Iterable[Piece], head: Iterable[Piece]) -> None:
        """Write what is missing, `head` when everything else is durable, and close; all is durable on return. On
        failure the file is gone."""
        self.check()
        try:
            with self._failures():
                self._file.truncate(length)
                for offset, data in body:
                    self._file.pwrite(offset, data)
                self._file.fsync()
                for offset, data in head:
                    self._file.pwrite(offset, data)
                self._file.fsync()
                sync_folder(self._fs, self.path.absolute().parent)
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._file.close()

    def abort(self) -> None:
        """Remove it; harmless after `seal` and when repeated."""
        if not self._open:
            return
        self._open = False
        self._file.close()
        with contextlib.suppress(OSError):
            self._fs.unlink(self.path)

    def check(self) -> None:
        """`UsageError` where it is written or given up."""
        if not self._open:
            raise UsageError(f"the restore to {self.path} is over; begin another one")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failure(error, str(self.path), exists=TargetExists) from error
