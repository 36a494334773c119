# SPDX-License-Identifier: Apache-2.0
"""The shared library of `shim.c`, and what it is told through the environment."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Fault", "environment", "library"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at mutating operation `at` (from 1); `shim.c` says what each `kind` does.

    `error` is an errno. `count` operations are hit by `short` and `errno`, 0 means all from `at` on.
    """

    kind: Literal["kill", "torn", "short", "errno"]
    at: int
    error: int = 0
    count: int = 1

    def __str__(self) -> str:
        error = f" {os.strerror(self.error)}" if self.kind == "errno" else ""
        times = "" if self.count == 1 else " from there on" if self.count == 0 else f", {self.count} times"
        return f"{self.kind}{error} at operation {self.at}{times}"


@functools.cache
def library() -> Path:
    """The shim, compiled once per process with $CC (cc).

    Raises RuntimeError with the compiler's words where there is no compiler or it fails.
    """
    # Not on /dev/shm: containers mount it noexec.
    directory = Path(tempfile.mkdtemp(prefix="crash-shim-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    built = directory / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-fvisibility=hidden", "-shared", "-fPIC"]
    try:
        done = subprocess.run(
            [*command, str(source), "-o", str(built), "-ldl", "-lpthread"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise RuntimeError(f"no C compiler ({command[0]}): install gcc and libc6-dev, or set CC") from error
    if done.returncode:
        raise RuntimeError(f"{source} does not compile with {command[0]}:\n{done.stderr}")
    return built


def environment(disk: Path, control: Path, log: Path | None, acks: Path, fault: Fault | None) -> dict[str, str]:
    """The shim's variables for one run; a variable that is not needed is empty text, which the shim takes as unset."""
    return {
        "FS_ROOT": str(disk),
        "FS_CTL": str(control),
        "FS_LOG": str(log or ""),
        "FS_ACK": str(acks),
        "FS_FAULT": fault.kind if fault else "",
        "FS_FAULT_AT": str(fault.at if fault else 0),
        "FS_FAULT_ERRNO": str(fault.error if fault else 0),
        "FS_FAULT_COUNT": str(fault.count if fault else 1),
    }
