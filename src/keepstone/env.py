# SPDX-License-Identifier: Apache-2.0
"""The one seam to the world: clocks, randomness, the operating system's files, sleep, threads.

Everything on floors 0 to 4 reaches time, chance and the disk through an `Env`. The real one is a thin layer over the
standard library; the schedule explorer replaces it by one whose `step` hands a baton to a seeded scheduler, so that the
real code runs under every interleaving and every run can be replayed.

Invariants
* `boot_time()` never goes back while the machine is up; `wall_time()` may jump and is never used to decide safety.
* `step(what)` is called by every object storage operation before it acts; the real Env does nothing there.
* Work given to `pool()` must not call `step` in an order that depends on timing when the pool is inline (`threads=0`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

__all__ = ["Env", "FileSystem", "InlinePool", "Pool", "Process"]

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FileSystem:
    """The file calls of the operating system, gathered so that a test can stand in their way.

    The functions are those of `os`, unchanged; they raise `OSError`.
    """

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    read = staticmethod(os.read)
    pread = staticmethod(os.pread)
    preadv = staticmethod(os.preadv)
    write = staticmethod(os.write)
    pwrite = staticmethod(os.pwrite)
    pwritev = staticmethod(os.pwritev)
    lseek = staticmethod(os.lseek)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    posix_fallocate = staticmethod(os.posix_fallocate)
    fstat = staticmethod(os.fstat)
    stat = staticmethod(os.stat)
    lstat = staticmethod(os.lstat)
    scandir = staticmethod(os.scandir)
    listdir = staticmethod(os.listdir)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    unlink = staticmethod(os.unlink)
    rename = staticmethod(os.rename)
    link = staticmethod(os.link)
    symlink = staticmethod(os.symlink)
    readlink = staticmethod(os.readlink)
    mknod = staticmethod(os.mknod)
    utime = staticmethod(os.utime)
    fchmod = staticmethod(os.fchmod)
    chmod = staticmethod(os.chmod)
    fchown = staticmethod(os.fchown)
    chown = staticmethod(os.chown)
    listxattr = staticmethod(os.listxattr)
    getxattr = staticmethod(os.getxattr)
    setxattr = staticmethod(os.setxattr)
    removexattr = staticmethod(os.removexattr)
    posix_fadvise = staticmethod(os.posix_fadvise)
    statvfs = staticmethod(os.statvfs)


class Pool(Protocol):
    """What runs work beside the caller."""

    def submit(self, work: Callable[..., T], /, *args: Any) -> Future[T]: ...
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


class InlinePool:
    """A pool that runs each piece of work at once on the calling thread: deterministic, for simulation."""

    def submit(self, work: Callable[..., T], /, *args: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing runs here by itself, so there is nothing to stop."""


@dataclass(frozen=True, slots=True)
class Process:
    """Names one process on one boot of one host; `started` tells a process id from its next bearer."""

    host: str
    boot: str
    pid: int
    started: int


class Env:
    """The real world.

    `threads` is the number of worker threads of a pipeline; default: the processors this process may use, at least 1,
    at most 8; 0 runs all work inline.
    """

    def __init__(self, *, threads: int | None = None, fs: FileSystem | None = None) -> None:
        self.threads = min(8, len(os.sched_getaffinity(0))) if threads is None else threads
        self.fs = fs or FileSystem()

    def wall_time(self) -> int:
        """Nanoseconds since 1970 UTC, as the machine believes."""
        return time.time_ns()

    def utc(self) -> datetime:
        """The same as a date and time in UTC, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.wall_time() // 1000)

    def boot_time(self) -> int:
        """Nanoseconds since boot, sleep included; immune to changes of the wall clock."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """Names this boot of this machine; empty where the kernel does not tell."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""

    def process(self) -> Process:
        """This process."""
        pid = os.getpid()
        return Process(os.uname().nodename, self.boot_id(), pid, _start_ticks(pid) or 0)

    def is_running(self, process: Process) -> bool | None:
        """Whether this process lives; None where this machine cannot know (another host)."""
        if process.boot != self.boot_id() or not process.boot:
            return False if process.host == os.uname().nodename else None
        return _start_ticks(process.pid) == process.started

    def random(self, count: int) -> bytes:
        """`count` bytes that nobody can guess."""
        return os.urandom(count)

    def sleep(self, seconds: float) -> None:
        """Let other work go on for a while."""
        time.sleep(seconds)

    def step(self, what: str) -> None:
        """A point at which another actor may run; the real world needs no help."""

    def pool(self, more: int = 0) -> Pool:
        """Workers for one pipeline; the caller shuts them down. `more`: so many beyond `threads`, for work that also
        waits for a disk."""
        return ThreadPoolExecutor(self.threads + more, "keepstone") if self.threads else InlinePool()


def _start_ticks(pid: int) -> int | None:
    """When a process was started; None where none runs. One that ended and that nobody waited for runs no more."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # from the third on, after the name in brackets
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
