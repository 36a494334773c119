# SPDX-License-Identifier: Apache-2.0
"""The store itself after power losses and under faults: nothing acknowledged is lost, every visible point restores.

KEEPSTONE_CRASH_EVERY=n checks every n-th state and, of the faults, every 5 n-th; `make crash` checks all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import keepstone
from tests.crash.counts import publish
from tests.crash.faults import KINDS, inject
from tests.crash.mutants import Mutant, mutate, put_to_trial
from tests.crash.product.mutants import HANDLING, ORDER
from tests.crash.product.work import begin
from tests.crash.recording import Recording, record
from tests.crash.replay import PROFILES
from tests.crash.runner import Runner
from tests.crash.share import Tally
from tests.crash.sweep import Result, sweep
from tests.crash.workload import REPOSITORY, Workload

pytestmark = pytest.mark.store

EVERY = int(os.environ.get("KEEPSTONE_CRASH_EVERY", "5"))
FAULTS_EVERY = 1 if EVERY == 1 else 5 * EVERY

PACKAGE = Path(keepstone.__file__).parent
SCRIPTS = Path(__file__).with_name("product") / "workloads"
LEAST = {
    "backup": 950,
    "borrowing": 860,
    "concurrent": 1400,
    "delete": 1700,
    "index": 4000,
    "init": 470,
    "journal": 390,
    "reclaim": 2100,
    "rekey": 660,
}
"""Workload, and how many states strict POSIX and the journal must leave of it: fewer means that it was not replayed."""


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with an empty store, which all workloads but `init` begin with."""
    path = tmp_path_factory.mktemp("crash") / "base"
    path.mkdir()
    begin(path)
    return path


def _workload(name: str, *first: Path) -> Workload:
    return Workload(SCRIPTS / f"{name}.py", (*first, REPOSITORY))


def _base(name: str, disk: Path) -> Path | None:
    return None if name == "init" else disk


def _record(workload: Workload, name: str, disk: Path, directory: Path) -> Recording:
    with Runner(workload) as runner:
        return record(runner, directory / "recording", _base(name, disk))


def _count(name: str, counted: Result | Tally) -> None:
    results = os.environ.get("KEEPSTONE_RESULTS")
    if results:
        publish(Path(results), f"crash-{name.replace(' ', '-')}", counted)


def test_every_workload_is_swept() -> None:
    assert sorted(LEAST) == sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "__init__")
    assert sum(LEAST.values()) >= 10_000
    assert sum(LEAST.values()) // 5 >= 2_000  # in `make test`


@pytest.mark.parametrize("name", LEAST)
def test_nothing_is_lost_with_the_power(name: str, disk: Path, tmp_path: Path) -> None:
    recording = _record(_workload(name), name, disk, tmp_path)

    cases = 0
    for profile in PROFILES:
        result = sweep(recording, profile, every=EVERY)
        _count(f"{name}-{profile}", result)
        print(f"{name}: {result}")
        assert not result.tally.bad, result
        cases += result.tally.cases
    assert cases * EVERY >= LEAST[name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEAST)
def test_nothing_is_lost_by_a_fault(name: str, kind: str, disk: Path, tmp_path: Path) -> None:
    recording = _record(_workload(name), name, disk, tmp_path)

    tally = inject(recording, kind, every=FAULTS_EVERY)

    _count(f"{name}-{kind}", tally)
    print(f"{name}, {kind}: {tally} {tally.notes}")
    assert not tally.bad, tally
    assert tally.cases


@pytest.mark.parametrize(("name", "mutant"), ORDER, ids=[mutant.name for _, mutant in ORDER])
def test_planted_mistake_is_found(name: str, mutant: Mutant, disk: Path, tmp_path: Path) -> None:
    trial = put_to_trial(
        mutant,
        PACKAGE,
        _workload(name),
        tmp_path,
        base=_base(name, disk),
        every=1 if mutant.verdict == "red" else EVERY,
    )
    results = os.environ.get("KEEPSTONE_RESULTS")
    if results:
        publish(Path(results), f"mutant-{mutant.name.replace(' ', '-')}", trial)

    assert trial.verdict == mutant.verdict, trial


@pytest.mark.parametrize(("name", "mutant", "kind"), HANDLING, ids=[mutant.name for _, mutant, _ in HANDLING])
def test_mishandled_fault_is_found(name: str, mutant: Mutant, kind: str, disk: Path, tmp_path: Path) -> None:
    changed = _workload(name, mutate(PACKAGE, mutant, tmp_path / "mutated"))

    tally = inject(_record(changed, name, disk, tmp_path), kind, enough=1)

    assert tally.bad, tally
