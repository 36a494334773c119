# SPDX-License-Identifier: Apache-2.0
"""Checks every state that a power loss may leave of one recorded run.

By hand, in the repository:

    python -m tests.crash.sweep RECORDING --profile posix --seed 0                             every state
    python -m tests.crash.sweep RECORDING --profile posix --seed 0 --record 17 --policy drop   one, left to be looked at
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.crash import share
from tests.crash.oplog import Kind
from tests.crash.recording import Recording, load
from tests.crash.replay import PROFILES, State, states
from tests.crash.share import Finding, Tally
from tests.crash.stage import Stage
from tests.crash.workload import Check, Workload, patiently, scratch

__all__ = ["Result", "sweep"]

_MODULE = "tests.crash.sweep"


@dataclass(frozen=True, slots=True)
class Result:
    """What a sweep counted; `seconds` of wall time for all states."""

    profile: str
    seed: int
    trials: int
    records: int
    operations: int
    syncs: int
    seconds: float
    tally: Tally

    def __str__(self) -> str:
        return f"{self.profile}, seed {self.seed}, {self.records} records, {self.seconds:.1f} s: {self.tally}"


def sweep(
    recording: Recording,
    profile: str = "posix",
    *,
    seed: int = 0,
    trials: int = 3,
    workers: int = 1,
    every: int = 1,
    enough: int | None = None,
    checker: Workload | None = None,
) -> Result:
    """Check the states of `recording` under `profile`, or each `every`-th of them, in `workers` processes.

    Each worker stops after `enough` bad states. `checker` has the check, where it is not the recorded workload itself.
    Raises RuntimeError where the check fails by an error of its own.
    """
    workload = checker or recording.workload
    arguments = [str(recording.directory), "--profile", profile, "--seed", str(seed), "--trials", str(trials)]
    arguments += ["--every", str(every)]
    arguments += ["--script", str(workload.script), *(["--enough", str(enough)] if enough else [])]
    began = time.monotonic()
    tally = share.divide(workload, _MODULE, arguments, workers)
    syncs = sum(record.kind in (Kind.SYNC, Kind.SYNC_ALL) for record in recording.records)
    elapsed = round(time.monotonic() - began, 1)
    return Result(profile, seed, trials, len(recording.records), recording.operations, syncs, elapsed, tally)


def _violations(check: Check, stage: Stage, state: State, patience: float) -> list[str]:
    stage.show(state.tree)
    return patiently(partial(check, stage.root, state.acks), patience, str(state))


def _part(recording: Recording, check: Check, options: argparse.Namespace, directory: Path) -> Tally:
    tally = Tally()
    index, count = (int(part) for part in options.share.split("/"))
    profile = PROFILES[options.profile]
    stage = Stage(directory / "disk")
    found = states(recording.model(profile.journal), recording.records, profile, options.seed, options.trials)
    for number, state in enumerate(found):
        if number % options.every == 0 and number // options.every % count == index:
            violations = _violations(check, stage, state, options.patience)
            if tally.add(violations):
                again = _again(recording, state, options)
                tally.first = Finding(number, _where(recording, state), violations, again)
            if options.enough and tally.bad >= options.enough:
                break
    return tally


def _where(recording: Recording, state: State) -> str:
    if not state.record:
        return f"{state} (before all)"
    last = recording.records[state.record - 1]
    name = last.data.decode().strip() if last.kind is Kind.ACK else last.name2 or last.name or f"inode {last.inode}"
    return f"{state} (after {last.kind.name} of {name}, operation {last.operation})"


def _again(recording: Recording, state: State, options: argparse.Namespace) -> str:
    arguments = [str(recording.directory), "--script", str(options.script or recording.workload.script)]
    arguments += ["--profile", options.profile, "--seed", str(options.seed), "--trials", str(options.trials)]
    arguments += ["--record", str(state.record), "--policy", state.policy, "--trial", str(state.trial)]
    return share.command(_MODULE, arguments)


def _one(recording: Recording, check: Check, options: argparse.Namespace) -> list[str]:
    profile = PROFILES[options.profile]
    wanted = (options.record, options.policy, options.trial)
    for state in states(recording.model(profile.journal), recording.records, profile, options.seed, options.trials):
        if (state.record, state.policy, state.trial) == wanted:
            with scratch() as directory:
                violations = _violations(check, Stage(directory / "disk"), state, options.patience)
            kept = recording.directory / "state"
            shutil.rmtree(kept, ignore_errors=True)
            Stage(kept).show(state.tree)
            print(f"{_where(recording, state)}: left in {kept}")
            print(f"acknowledged: {json.dumps(state.acks)}")
            print("\n".join(violations) or "no violation")
            return violations
    raise SystemExit(f"no state at {wanted}: it equals an earlier one, or seed, trials or profile differ")


def main(arguments: Sequence[str]) -> int:
    """The command line of the module's docstring; also what `sweep` starts. Exit status 1 if one state is bad."""
    parser = argparse.ArgumentParser(prog=_MODULE)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--script", type=Path, help="the workload whose check is used, if not the recorded one")
    parser.add_argument("--profile", choices=PROFILES, default="posix")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=3, help="how often a policy that throws dice runs at each record")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds that one check may take")
    parser.add_argument("--enough", type=int, help="stop after so many bad states")
    parser.add_argument("--every", type=int, default=1, help="every n-th state")
    parser.add_argument("--share", default="0/1", help="check the states i, i + n, i + 2 n …, as i/n")
    parser.add_argument("--json", type=Path, help="write the tally there")
    parser.add_argument("--record", type=int, help="only the states after so many records")
    parser.add_argument("--policy", default="keepall")
    parser.add_argument("--trial", type=int, default=0)
    options = parser.parse_args(arguments)
    recording = load(options.recording)
    check = Workload(options.script or recording.workload.script).check()
    if options.record is not None:
        return bool(_one(recording, check, options))
    with scratch() as directory:
        tally = _part(recording, check, options, directory)
    if options.json:
        options.json.write_text(json.dumps(asdict(tally)))
        return 0
    print(tally)
    return bool(tally.bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
