# SPDX-License-Identifier: Apache-2.0
"""Runs a workload under the shim, as often as asked, at the cost of a fork each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from tests.crash import shim
from tests.crash.oplog import Counters, read_counters
from tests.crash.workload import Workload

__all__ = ["Outcome", "Runner"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: exit status (negative: the signal), what it printed, what was acknowledged before its end."""

    status: int
    hung: bool
    output: str
    acks: list[Any]
    counters: Counters


class Runner:
    """A context in which `workload` can be run; a run that takes longer than `timeout` seconds is killed."""

    def __init__(self, workload: Workload, timeout: float = 60.0) -> None:
        self.workload = workload
        self.modules: dict[str, str | None] = {}  # file of each top-level module that the workload imported
        self._timeout = timeout

    def __enter__(self) -> Runner:
        self._errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-P", str(Path(__file__).with_name("zygote.py")), str(self.workload.script)]
        self._zygote = subprocess.Popen(
            command,
            env=self.workload.environment() | {"LD_PRELOAD": str(shim.library()), "FS_ROOT": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self.modules = self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cast(IO[str], self._zygote.stdin).close()
        try:
            self._zygote.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        cast(IO[str], self._zygote.stdout).close()
        self._errors.close()

    def run(self, disk: Path, beside: Path, fault: shim.Fault | None = None, *, log: bool = False) -> Outcome:
        """Run the workload on `disk`; the directory `beside` gets control, acks, output and, with `log`, log."""
        names = {name: beside / name for name in ("control", "acks", "output", "log")}
        for path in names.values():
            path.unlink(missing_ok=True)
        variables = shim.environment(disk, names["control"], names["log"] if log else None, names["acks"], fault)
        request = {"argv": [str(disk)], "environment": variables, "output": str(names["output"])}
        pipe = cast(IO[str], self._zygote.stdin)
        pipe.write(json.dumps(request) + "\n")
        pipe.flush()
        hung = threading.Event()
        pid = self._answer()["pid"]

        def end() -> None:
            hung.set()
            os.killpg(pid, signal.SIGKILL)

        timer = threading.Timer(self._timeout, end)
        timer.start()
        status = self._answer()["status"]
        timer.cancel()
        timer.join()
        acks = names["acks"].read_text().splitlines() if names["acks"].exists() else []
        return Outcome(
            status,
            hung.is_set(),
            names["output"].read_text(errors="replace"),
            [json.loads(line) for line in acks],
            read_counters(names["control"]),
        )

    def _answer(self) -> dict[str, Any]:
        line = cast(IO[str], self._zygote.stdout).readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.workload.script} cannot be run:\n{self._errors.read()}")
        return cast(dict[str, Any], json.loads(line))
