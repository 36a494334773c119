# SPDX-License-Identifier: Apache-2.0
"""Files that are read together by one piece of work.

They are read back to back into the worker's buffer: a small one is one chunk, a larger one is cut. All files of a
window are opened and announced before the first one is read, so that the disk has them in hand.
"""

from __future__ import annotations

import contextlib
import os

from keepstone.store import SEGMENT, SMALL_FILE, Chunks, Scratch
from keepstone.workloads.files.backup.folders import Folder
from keepstone.workloads.files.backup.intake import Intake, Item, Taken
from keepstone.workloads.files.backup.tally import is_fatal

__all__ = ["Batch", "BatchRead"]

_FRAME = 2 << 20
_FILES = 1000

BatchRead = tuple[list[int | Taken], int]
"""What `done` is told of a batch: for every file the number of its chunks, or more; and how many bytes were read."""


class Batch:
    """Holds the folders of its files until `release`. `folders`: how many these may be at most."""

    def __init__(self, intake: Intake, folders: int) -> None:
        self.items: list[Item] = []
        self._size = 0
        self._intake = intake
        self._folders: set[Folder] = set()
        self._most_folders = folders

    def has_room(self, item: Item) -> bool:
        """Whether this file should be read together with those that are there."""
        return not self.items or (
            self._size + item.status.st_size <= SEGMENT
            and self._size < _FRAME
            and len(self.items) < _FILES
            and (item.folder in self._folders or len(self._folders) < self._most_folders)
        )

    def add(self, item: Item) -> None:
        """Append a file."""
        self.items.append(item)
        self._size += item.status.st_size
        if item.folder not in self._folders:
            self._folders.add(item.folder)
            self._intake.folders.hold(item.folder)

    def release(self) -> None:
        """Let go of the folders."""
        for folder in self._folders:
            self._intake.folders.release(folder)
        self._folders.clear()

    def read(self, scratch: Scratch) -> Chunks:
        """The chunks of all files; its `info` are `Results`: for every item the number of its chunks, or more. Called
        by a worker.
        """
        fs = self._intake.fs
        pinned: dict[Folder, int | OSError] = {}
        opened: list[int | OSError] = []
        results: list[int | Taken] = []
        lengths: list[int] = []
        hints: list[int] = []
        at = 0
        try:
            for begin in range(0, len(self.items), self._intake.ahead):
                window = self.items[begin : begin + self._intake.ahead]
                for item in window:
                    opened.append(self._open(item, pinned))
                opened.reverse()
                for item in window:
                    got, taken = self._take(opened[-1], item, scratch.view[at:])
                    fd = opened.pop()
                    if isinstance(fd, int):
                        fs.close(fd)
                    cut = [got] if got <= SMALL_FILE else self._intake.cut(scratch.view[at : at + got], True)
                    if not got:
                        cut = []
                    lengths += cut
                    hints += [item.hint] if len(cut) == 1 else [-1] * len(cut)
                    at += got
                    if taken is None:
                        results.append(len(cut))
                    else:
                        taken.count = len(cut)
                        results.append(taken)
        finally:
            for fd in opened:
                if isinstance(fd, int):
                    fs.close(fd)
            for folder, fd in pinned.items():
                if isinstance(fd, int):
                    self._intake.folders.unpin(folder)
        if max(hints, default=-1) < 0:
            hints = []
        return Chunks(scratch.view[:at], lengths, hints, (results, at), _FRAME)

    def _open(self, item: Item, pinned: dict[Folder, int | OSError]) -> int | OSError:
        folder = pinned.get(item.folder)
        try:
            if folder is None:
                folder = pinned[item.folder] = self._intake.folders.pin(item.folder)
            if isinstance(folder, OSError):
                return folder
            fd = self._intake.open(folder, item.name)
        except OSError as error:
            if is_fatal(error):
                raise
            if folder is None:
                pinned[item.folder] = error
            return error
        with contextlib.suppress(OSError):
            self._intake.fs.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
        return fd

    def _take(self, fd: int | OSError, item: Item, view: memoryview) -> tuple[int, Taken | None]:
        if isinstance(fd, OSError):
            return 0, Taken(error=fd)
        try:
            return self._intake.take(fd, item.status, view)
        except OSError as error:
            if is_fatal(error):
                raise
            return 0, Taken(error=error)
