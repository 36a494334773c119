# SPDX-License-Identifier: Apache-2.0
"""What one process costs, from its start to its end, with everything that it starts.

CPU is user + system time of the process and of the children it waited for, as the kernel accounts it at its end. Peak
memory is the larger of the kernel's peak of any one process and of the sampled sum over the whole tree of processes, so
that a tool does not look smaller by splitting itself up. The kernel counts a process's peak from its fork on, so
nothing below this program's own size can be seen; `floor` tells that size.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.peers import Command

__all__ = ["Cost", "Failed", "allocated", "floor", "measure"]

SAMPLE_EVERY = 0.1  # seconds
PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A measured command ended with an exit code other than 0; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds and bytes of one process tree, and what it printed."""

    user_s: float
    sys_s: float
    wall_s: float
    rss_bytes: int
    output: str

    def figures(self) -> dict[str, float]:
        """The numbers by name, CPU added up."""
        numbers = {name: value for name, value in asdict(self).items() if name != "output"}
        return {"cpu_s": self.user_s + self.sys_s, **numbers}


def measure(command: Command) -> Cost:
    """Run a command to its end; what ran before has its dirty pages written out first.

    Raises:
        Failed: it ended with an exit code other than 0.
    """
    os.sync()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = subprocess.Popen(
            command.argv,
            env={**_environment(), **command.env},
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        sampler = _Sampler(child.pid)
        sampler.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        sampler.stop()
        out.seek(0)
        err.seek(0)
        if child.returncode:
            words = err.read().decode(errors="replace").strip().splitlines()[-5:]
            raise Failed(f"{' '.join(command.argv[:3])} ended with {child.returncode}: {' / '.join(words)}")
        peak = max(usage.ru_maxrss * 1024, sampler.peak)
        return Cost(usage.ru_utime, usage.ru_stime, wall, peak, out.read().decode(errors="replace"))


def _environment() -> dict[str, str]:
    """Ours, without what would change a tool's settings, or how Python runs, behind the benchmark's back."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BORG_", "KEEPSTONE_", "PYTHON", "RESTIC_"))
    }


def allocated(place: Path) -> int:
    """Bytes that a folder's files and folders occupy, a file with several names once (`du`)."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(place):
        for path in [folder, *(f"{folder}/{name}" for name in names)]:
            status = os.lstat(path)
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def floor() -> int:
    """Peak memory of this program itself, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Sampler(threading.Thread):
    """Adds up the resident memory of a tree of processes again and again; one lone process is left to the kernel."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY):
            tree = list(_tree(self._pid))
            if len(tree) > 1:
                self.peak = max(self.peak, sum(map(_resident, tree)))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        for task in tasks:
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _tree(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0
