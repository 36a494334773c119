# SPDX-License-Identifier: Apache-2.0
"""Who runs in a data folder: one process at a time holds the lock of its file `run/lock`, and says there who it is.

The lock is flock(2)'s: it goes with its process, however that ends. What the file says stays, so it tells of the last
process where nobody holds the lock.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from pathlib import Path

import msgspec

from keepstone.decoders import from_json
from keepstone.errors import Conflict, KeepstoneError
from keepstone.objects import failure

__all__ = ["Hold", "Running", "last", "running", "stop", "take"]

_TRIES = 10  # somebody who only looks holds the lock for an instant
_PAUSE = 0.02


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A process. `url`: where clients find it; `probe`: where this machine does; both empty until it is known."""

    pid: int
    url: str = ""
    probe: str = ""


class Hold:
    """The lock of a data folder. A process that is forked holds it too."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.announce()

    def announce(self, url: str = "", probe: str = "") -> None:
        """Say that it is this process that runs, and where it answers."""
        data = msgspec.json.encode(Running(pid=os.getpid(), url=url, probe=probe)) + b"\n"
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def release(self) -> None:
        """Hold it no longer in this process. Once more does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def take(root: Path) -> Hold:
    """Hold the folder, which is made where it is missing. `Conflict` where somebody else does."""
    path = _path(root)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failure(error, str(path)) from error
    for attempt in range(_TRIES):
        if _locked(descriptor):
            return Hold(descriptor)
        if attempt < _TRIES - 1:
            time.sleep(_PAUSE)
    os.close(descriptor)
    other = last(root)
    where = f" at {other.url}" if other is not None and other.url else ""
    who = f" (process {other.pid})" if other is not None else ""
    raise Conflict(
        f"a service runs in {root} already{where}{who}; `keepstone down` stops it, and --data chooses another"
    )


def running(root: Path) -> Running | None:
    """The process that holds the folder; None where none does. `KeepstoneError` where it does not say who it is."""
    try:
        descriptor = os.open(_path(root), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(error, str(_path(root))) from error
    try:
        for _ in range(_TRIES):
            if _locked(descriptor):
                return None
            found = last(root)
            if found is not None:
                return found
            time.sleep(_PAUSE)
    finally:
        os.close(descriptor)
    raise KeepstoneError(f"somebody holds {_path(root)} without saying who; `fuser {_path(root)}` shows the process")


def last(root: Path) -> Running | None:
    """The process that held the folder last, or holds it; None where none ever did."""
    try:
        return from_json(Running).decode(_path(root).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def stop(root: Path, patience: float) -> Running | None:
    """End the process that holds the folder, as it ends by itself: what it has begun comes to an end. None where none
    does. `KeepstoneError` where it cannot be told, or goes on for longer than `patience` seconds."""
    found = running(root)
    if found is None:
        return None
    try:
        process = os.pidfd_open(found.pid)
    except ProcessLookupError as error:
        raise KeepstoneError(
            f"a service holds {root}, and its process {found.pid} is not one of this machine or container; stop it "
            "where it was started"
        ) from error
    try:
        if running(root) == found:  # the descriptor names the holder, and no later process of its number
            try:
                signal.pidfd_send_signal(process, signal.SIGTERM)
            except OSError as error:
                raise failure(error, f"the service in {root} (process {found.pid})") from error
        ended, _, _ = select.select([process], [], [], patience)
        if not ended:
            raise KeepstoneError(
                f"process {found.pid} has not ended within {patience:.0f} seconds; see its log, or end it by "
                f"`kill -9 {found.pid}`: nothing that was acknowledged is lost"
            )
    finally:
        os.close(process)
    return found


def _path(root: Path) -> Path:
    return root / "run" / "lock"


def _locked(descriptor: int) -> bool:
    """Take the lock, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
