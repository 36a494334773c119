# SPDX-License-Identifier: Apache-2.0
"""Planted mistakes, to test the tester: each must be found out, or be equivalent for a stated reason.

A mutant is a change of the package's text, made in a copy. Nothing in the package knows of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.crash.recording import Recording, record
from tests.crash.runner import Runner
from tests.crash.sweep import Result, sweep
from tests.crash.workload import Workload

__all__ = ["Edit", "Mutant", "Stale", "Trial", "mutate", "put_to_trial"]


class Stale(AssertionError):
    """The text that a mutant changes is not in the package exactly once: the package moved on, the mutant must too."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file`, relative to the package's directory, `old` becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake.

    `verdict` is what the sweeps must say of it, `reason` why: for `red` what is lost, for `clean` why nothing can be.
    `check` says whose code opens the crashed disks: the original's, unless the mistake is one of recovery.
    """

    name: str
    edits: tuple[Edit, ...]
    verdict: Literal["red", "clean"]
    reason: str
    check: Literal["original", "mutated"] = "original"


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant, its recording, and its sweeps in the order in which they ran."""

    mutant: Mutant
    recording: Recording
    results: list[Result]

    @property
    def verdict(self) -> Literal["red", "clean"]:
        return "red" if any(result.tally.bad for result in self.results) else "clean"

    def __str__(self) -> str:
        lines = [f"{self.mutant.name}: {self.verdict}, should be {self.mutant.verdict}: {self.mutant.reason}"]
        return "\n".join(lines + [str(result) for result in self.results])


def mutate(package: Path, mutant: Mutant, directory: Path) -> Path:
    """Copy the package at `package` below `directory` with the mutant's edits; return the copy's entry for PYTHONPATH.

    Raises Stale where an edit's old text does not occur exactly once.
    """
    copy = directory / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in mutant.edits:
        target = copy / edit.file
        text = target.read_text() if target.exists() else ""
        if text.count(edit.old) != 1:
            raise Stale(f"mutant {mutant.name!r}: {edit.file} has {text.count(edit.old)} times:\n{edit.old}")
        target.write_text(text.replace(edit.old, edit.new))
    return directory


def put_to_trial(
    mutant: Mutant,
    package: Path,
    workload: Workload,
    directory: Path,
    *,
    base: Path | None = None,
    profiles: Sequence[str] = ("posix", "ext4"),
    seed: int = 0,
    trials: int = 3,
    workers: int = 1,
    every: int = 1,
    enough: int | None = 1,
) -> Trial:
    """Record `workload` with the mutant of `package` in `directory`, and sweep it under `profiles`.

    `base` and `every` are those of `record` and `sweep`. With `enough`, a sweep ends after so many bad states per
    worker, and no sweep follows one that found some. A mutant whose run fails while it is recorded raises RuntimeError:
    that is no verdict.
    """
    changed = Workload(workload.script, (mutate(package, mutant, directory / "mutated"), *workload.pythonpath))
    with Runner(changed) as runner:
        origin = runner.modules.get(package.name) or ""
        if not Path(origin).is_relative_to(directory):
            raise RuntimeError(f"the workload imported {package.name} from {origin}, not from the mutated copy")
        recording = record(runner, directory / "recording", base)
    checker = changed if mutant.check == "mutated" else workload
    results: list[Result] = []
    for profile in profiles:
        result = sweep(
            recording,
            profile,
            seed=seed,
            trials=trials,
            workers=workers,
            every=every,
            enough=enough,
            checker=checker,
        )
        results.append(result)
        if enough and result.tally.bad:
            break
    return Trial(mutant, recording, results)
