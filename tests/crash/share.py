# SPDX-License-Identifier: Apache-2.0
"""Work divided among fresh Python processes, each of which takes every n-th piece.

Every process finds out by itself what the pieces are, so nothing but the recording's directory is handed over. They
are fresh and not forked, because the check may need another PYTHONPATH than this process has, and because a fork of a
process with threads (pytest's workers) is not safe.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.crash.workload import REPOSITORY, Workload

__all__ = ["Finding", "Tally", "command", "divide", "merge"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The first bad case: its number among all, what it is, what was violated, and the command that shows it again."""

    number: int
    where: str
    violations: list[str]
    command: str


@dataclass(slots=True)
class Tally:
    """Cases checked, cases with a violation, cases per kind of violation; `notes` counts what else is of interest."""

    cases: int = 0
    bad: int = 0
    violations: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    first: Finding | None = None

    def add(self, violations: Sequence[str]) -> bool:
        """Count a case; return whether it is the first bad one, which the caller then describes in `first`."""
        self.cases += 1
        if violations:
            self.bad += 1
            self.violations = dict(Counter(self.violations) + Counter({v.split(":")[0] for v in violations}))
        return self.bad == 1 and bool(violations)

    def __str__(self) -> str:
        text = f"{self.cases} cases, {self.bad} bad {self.violations or ''}".rstrip()
        if not self.first:
            return text
        return f"{text}\nfirst: {self.first.where}: {self.first.violations}\nagain: {self.first.command}"


def merge(parts: Iterable[Tally]) -> Tally:
    """The sum of `parts`, with the earliest of their first findings."""
    whole = Tally()
    for part in parts:
        whole.cases += part.cases
        whole.bad += part.bad
        whole.violations = dict(Counter(whole.violations) + Counter(part.violations))
        whole.notes = dict(Counter(whole.notes) + Counter(part.notes))
        if part.first and (not whole.first or part.first.number < whole.first.number):
            whole.first = part.first
    return whole


def command(module: str, arguments: Sequence[str]) -> str:
    """The shell command that runs `module` with `arguments`; to be given in the repository."""
    return shlex.join([sys.executable, "-m", module, *arguments])


def divide(workload: Workload, module: str, arguments: Sequence[str], workers: int) -> Tally:
    """Run `module` with `arguments` in `workers` processes that import as `workload` does, and add up their tallies.

    Raises RuntimeError with a process's words where it ends with another status than 0.
    """
    with tempfile.TemporaryDirectory(prefix="crash-share-") as name:
        directory = Path(name)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for n in range(workers):
                share = ["--share", f"{n}/{workers}", "--json", str(directory / f"{n}.json")]
                with (directory / f"{n}.output").open("w") as output:
                    processes.append(
                        subprocess.Popen(
                            [sys.executable, "-m", module, *arguments, *share],
                            cwd=REPOSITORY,
                            env=workload.environment(REPOSITORY),
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=output,
                        )
                    )
            for n, process in enumerate(processes):
                if process.wait():
                    raise RuntimeError(f"{module} {shlex.join(arguments)}:\n{(directory / f'{n}.output').read_text()}")
        finally:
            for process in processes:
                process.kill()  # nothing, where it has ended
                process.wait()
        whole = merge(_tally(json.loads((directory / f"{n}.json").read_text())) for n in range(workers))
    if whole.first and workload.pythonpath:
        paths = os.pathsep.join(str(path) for path in workload.pythonpath)
        whole.first = replace(whole.first, command=f"PYTHONPATH={shlex.quote(paths)} {whole.first.command}")
    return whole


def _tally(values: dict[str, Any]) -> Tally:
    first = Finding(**values.pop("first")) if values["first"] else values.pop("first")
    return Tally(**values, first=first)
