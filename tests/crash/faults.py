# SPDX-License-Identifier: Apache-2.0
"""One run per mutating operation and kind of fault, a check after each; then, the fault gone, the store is used again.

By hand, in the repository:

    python -m tests.crash.faults RECORDING --kind 'EIO once'              every operation
    python -m tests.crash.faults RECORDING --kind 'EIO once' --at 17      one; what it left stays to be looked at

The recording tells how many operations there are and what they do; the faults hit runs of their own.
"""

from __future__ import annotations

import argparse
import errno
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.crash import share
from tests.crash.oplog import Kind
from tests.crash.recording import Recording, load, record
from tests.crash.replay import Profile, State, states
from tests.crash.runner import Outcome, Runner
from tests.crash.share import Finding, Tally
from tests.crash.shim import Fault
from tests.crash.stage import Stage
from tests.crash.workload import patiently, scratch

__all__ = ["KINDS", "LOST_SYNC", "inject"]

_MODULE = "tests.crash.faults"


@dataclass(frozen=True, slots=True)
class _Kind:
    fault: Callable[[int], Fault]
    aims: frozenset[Kind] | None = None  # what it can hit; None: every mutating operation


_WRITES = frozenset({Kind.WRITE})
_SPACE = frozenset({Kind.CREATE, Kind.MKDIR, Kind.WRITE, Kind.SIZE, Kind.LINK})

LOST_SYNC = "EIO at fsync, then power loss"
"""One fsync fails; then the power fails after each later acknowledgement. What the fsync should have written is gone,
even if a second fsync of the same file said that all was well."""

KINDS: Mapping[str, _Kind] = {
    "SIGKILL before": _Kind(lambda at: Fault("kill", at)),
    "SIGKILL mid-write": _Kind(lambda at: Fault("torn", at), _WRITES),
    "short write": _Kind(lambda at: Fault("short", at), _WRITES),
    "ENOSPC once": _Kind(lambda at: Fault("errno", at, errno.ENOSPC)),
    "ENOSPC from there on": _Kind(lambda at: Fault("errno", at, errno.ENOSPC, 0), _SPACE),
    "EIO once": _Kind(lambda at: Fault("errno", at, errno.EIO)),
    "EIO from there on": _Kind(lambda at: Fault("errno", at, errno.EIO, 0)),
    LOST_SYNC: _Kind(lambda at: Fault("errno", at, errno.EIO), frozenset({Kind.SYNC})),
}


def inject(
    recording: Recording,
    kind: str,
    *,
    workers: int = 1,
    every: int = 1,
    enough: int | None = None,
) -> Tally:
    """Inject the fault `kind` at each operation of `recording` that it can hit, or at each `every`-th of those.

    Each worker stops after `enough` faults that did harm. The tally's notes count how the runs ended and, as `missed`,
    faults whose operation never came. Raises RuntimeError where the check fails by an error of its own.
    """
    arguments = [str(recording.directory), "--kind", kind, "--every", str(every)]
    arguments += ["--enough", str(enough)] if enough else []
    return share.divide(recording.workload, _MODULE, arguments, workers)


def _targets(recording: Recording, kind: _Kind) -> list[int]:
    if kind.aims is None:
        return list(range(1, recording.operations + 1))
    return [record.operation for record in recording.records if record.kind in kind.aims]


def _live(
    recording: Recording, runner: Runner, fault: Fault, directory: Path, patience: float
) -> tuple[str, list[str]]:
    """Run with `fault`; how the run ended, and what is wrong with what it left."""
    workload, base, disk = recording.workload, recording.directory / "base", directory / "disk"
    if base.exists():
        shutil.copytree(base, disk)
    else:
        disk.mkdir()
    outcome = runner.run(disk, directory, fault)
    ending, violations = _ending(outcome)
    violations += patiently(partial(workload.check(), disk, outcome.acks), patience, str(fault))
    after = patiently(partial(workload.again(), disk), patience, f"{fault}, afterwards")
    return ending, violations + [f"AFTERWARDS {violation}" for violation in after]


def _ending(outcome: Outcome) -> tuple[str, list[str]]:
    if outcome.hung:
        return "hung", ["HUNG: the run did not end"]
    if not outcome.counters.hits:
        return "missed", []
    if outcome.status == -signal.SIGKILL and outcome.counters.killed:
        return "killed", []
    if outcome.status < 0:
        return "crashed", [f"CRASHED: by signal {-outcome.status}"]
    return f"exit {outcome.status}", []


def _lost(
    recording: Recording, runner: Runner, fault: Fault, directory: Path, patience: float
) -> tuple[str, list[str]]:
    """Record a run with `fault`, an fsync's; lose the power after each acknowledgement since, and at the end."""
    base = recording.directory / "base"
    made = record(runner, directory / "recording", base if base.exists() else None, fault)
    failed = next((n for n, record in enumerate(made.records) if record.kind is Kind.SYNC_FAILED), None)
    if failed is None:
        return "missed", []
    stage, check, violations = Stage(directory / "stage"), recording.workload.check(), list[str]()
    for state in _acknowledged(made, failed):
        stage.show(state.tree)
        found = patiently(partial(check, stage.root, state.acks), patience, f"{fault}, {state}")
        violations += [f"{violation} ({state})" for violation in found]
    return "recorded", violations


def _acknowledged(made: Recording, since: int) -> Iterator[State]:
    for state in states(made.model(journal=False), made.records, Profile(False, ("drop",))):
        last = state.record == len(made.records)
        if state.record > since and (last or made.records[state.record - 1].kind is Kind.ACK):
            yield state


def _part(recording: Recording, options: argparse.Namespace) -> Tally:
    tally = Tally()
    index, count = (int(part) for part in options.share.split("/"))
    kind = KINDS[options.kind]
    run = _lost if options.kind == LOST_SYNC else _live
    targets = _targets(recording, kind)[:: options.every] if options.at is None else [options.at]
    with Runner(recording.workload, options.patience) as runner:
        for at in targets[index::count]:
            where = f"{options.kind}, operation {at}"
            with scratch() as directory:
                ending, violations = run(recording, runner, kind.fault(at), directory, options.patience)
                if options.at is not None:
                    kept = recording.directory / "fault"
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(directory, kept)
                    print(f"{where}: {ending}, left in {kept}", *violations, sep="\n")
            tally.notes[ending] = tally.notes.get(ending, 0) + 1
            if tally.add(violations):
                again = [str(recording.directory), "--kind", options.kind, "--at", str(at)]
                tally.first = Finding(at, where, violations, share.command(_MODULE, again))
            if options.enough and tally.bad >= options.enough:
                break
    return tally


def main(arguments: Sequence[str]) -> int:
    """The command line of the module's docstring; also what `inject` starts. Exit status 1 if one fault does harm."""
    parser = argparse.ArgumentParser(prog=_MODULE)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--at", type=int, help="only this operation")
    parser.add_argument("--every", type=int, default=1, help="every n-th operation")
    parser.add_argument("--enough", type=int, help="stop after so many faults that did harm")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds that one run or check may take")
    parser.add_argument("--share", default="0/1", help="take the operations i, i + n, i + 2 n …, as i/n")
    parser.add_argument("--json", type=Path, help="write the tally there")
    options = parser.parse_args(arguments)
    tally = _part(load(options.recording), options)
    if options.json:
        options.json.write_text(json.dumps(asdict(tally)))
        return 0
    print(tally)
    return bool(tally.bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
