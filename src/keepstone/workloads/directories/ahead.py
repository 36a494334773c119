# SPDX-License-Identifier: Apache-2.0
"""A backup's side of the process that looks at its tree before it (`scout.py`).

Looking is most of a backup of which little has changed, and what Python does for it is bound to one processor; so a
second one looks, and the backup compares. What is told is believed as far as the directory is in every way as the
parent point has it: then it is not even opened. Any other is looked at by the backup itself.

Invariants
* Nothing depends on what is told: where the process fails, ends early, or has seen another state, the backup looks
  itself.
* Both go through the tree in the same order, so one message is held at a time; what was told of a directory to which
  the backup does not come is passed over. The pipe between them bounds how far ahead it is.
* Others may use the backup's lane (`store/lane.py`) while it waits for a message.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.workloads.directories.scan import Seen
from keepstone.workloads.directories.scout import HEADER, Told

if TYPE_CHECKING:
    from keepstone.store import Lane

__all__ = ["PROGRAM", "WORTH", "Ahead"]

PROGRAM = (sys.executable, "-P", "-m", "keepstone.workloads.directories.scout")
WORTH = 10_000
"""Files of a tree from which on it is worth the 50 ms of a process."""

_MOST = 8 << 20  # bytes of one message: one with a page of the longest names has less than 2 MiB
_PIPE = 1 << 20  # bytes that it is ahead at most, beside what it is at
_FAREWELL = 10.0  # seconds to end in


class Ahead:
    """Looks at all beneath the open directory `root`, from now on; with a `device` at what is on it."""

    def __init__(self, root: int, lane: Lane, *, device: int | None = None, program: tuple[str, ...] = PROGRAM) -> None:
        self._lane = lane
        self._process: subprocess.Popen[bytes] | None = None
        self._told: list[Told] = []  # the next one last
        self._decode = from_msgpack(list[Told]).decode
        given = [str(number) for number in (root, device) if number is not None]
        with contextlib.suppress(OSError):  # no process to be had: then nobody looks ahead
            self._process = subprocess.Popen(
                (*program, *given), bufsize=0, pass_fds=(root,), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert self._process.stdout is not None
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)  # who has many pipes may get no larger ones

    def seen(self, way: bytes, device: int, inode: int) -> Seen | None:
        """What was seen of the directory there; None where nothing was, or where it is another one. Must be asked in
        the order of ways, and once for each."""
        while True:
            if not self._told and not self._receive():
                return None
            told = self._told[-1]
            if told.way > way:
                return None
            self._told.pop()
            if told.way == way:
                return told.seen if told.device == device and told.inode == inode else None

    def close(self) -> None:
        """No more looking."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdout is not None
            process.stdout.close()
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in a file system that does not answer
                process.wait(_FAREWELL)

    def _receive(self) -> bool:
        """Wait for the next message; whether there is one. At the end, and where it is none, there are no more."""
        if self._process is None:
            return False
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            size = int.from_bytes(self._bytes(HEADER), "little")
            if 0 < size <= _MOST:
                self._told = self._decode(self._bytes(size))
                self._told.reverse()
                return bool(self._told)
        self.close()
        return False

    def _bytes(self, count: int) -> bytearray:
        """So many; `OSError` where there are not."""
        assert self._process is not None
        assert self._process.stdout is not None
        found = bytearray(count)
        view = memoryview(found)
        while view:
            with self._lane.left():
                got = os.readv(self._process.stdout.fileno(), [view])
            if not got:
                raise BrokenPipeError("it has ended")
            view = view[got:]
        return found
