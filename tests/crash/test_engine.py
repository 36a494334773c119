# SPDX-License-Identifier: Apache-2.0
"""The tester tested: a correct toy store is found clean, and every mistake planted in it is found out."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.crash.counts import publish
from tests.crash.faults import KINDS, inject
from tests.crash.mutants import Mutant, Stale, mutate, put_to_trial
from tests.crash.recording import Recording, load, record
from tests.crash.replay import PROFILES
from tests.crash.runner import Runner
from tests.crash.sweep import Result, sweep
from tests.crash.toy.planted import ACK_EARLY, FORGET_UNSYNCED, HANDLING, NO_TIDYING, ORDER, mutant
from tests.crash.workload import REPOSITORY, Workload, patiently

pytestmark = pytest.mark.store

TOY = Path(__file__).with_name("toy")
WORKLOAD = Workload(TOY / "workload.py", (TOY.parent,))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The correct toy's run."""
    with Runner(WORKLOAD) as runner:
        return record(runner, tmp_path_factory.mktemp("correct") / "recording")


@pytest.mark.parametrize("profile", PROFILES)
def test_correct_store_is_clean(recorded: Recording, profile: str) -> None:
    result = sweep(recorded, profile)

    assert not result.tally.bad, result
    assert result.tally.cases >= {"kill": 50, "posix": 300, "ext4": 70}[profile]


@pytest.mark.parametrize(("planted", "finders"), ORDER, ids=lambda value: getattr(value, "name", ""))
def test_planted_mistake_is_found(planted: Mutant, finders: set[str], tmp_path: Path) -> None:
    trial = put_to_trial(planted, TOY, WORKLOAD, tmp_path, profiles=tuple(PROFILES), enough=None)

    assert {result.profile for result in trial.results if result.tally.bad} == finders, trial
    assert trial.verdict == planted.verdict, trial


def test_one_bad_state_is_verdict_enough(tmp_path: Path) -> None:
    trial = put_to_trial(ACK_EARLY, TOY, WORKLOAD, tmp_path)

    assert [result.tally.bad for result in trial.results] == [1]


def test_workers_share_the_states(recorded: Recording) -> None:
    one, two = (sweep(recorded, "posix", seed=5, workers=workers).tally.cases for workers in (1, 2))

    assert one == two


def test_bad_state_is_shown_again_by_its_command(tmp_path: Path) -> None:
    trial = put_to_trial(FORGET_UNSYNCED, TOY, WORKLOAD, tmp_path, workers=2, enough=None)
    first = trial.results[0].tally.first
    assert first
    for _ in range(2):
        shown = subprocess.run(["sh", "-c", first.command], cwd=REPOSITORY, capture_output=True, text=True, check=False)

        assert shown.returncode == 1, shown.stderr
        assert all(violation in shown.stdout for violation in first.violations)
    assert (tmp_path / "recording/state/packs").is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_correct_store_survives_every_fault(recorded: Recording, kind: str) -> None:
    tally = inject(recorded, kind)

    assert not tally.bad, tally
    assert tally.cases >= 15
    assert not tally.notes.get("missed"), tally.notes


@pytest.mark.parametrize(("planted", "kind", "violation"), HANDLING, ids=lambda value: getattr(value, "name", ""))
def test_mishandled_fault_is_found(planted: Mutant, kind: str, violation: str, tmp_path: Path) -> None:
    changed = Workload(WORKLOAD.script, (mutate(TOY, planted, tmp_path / "mutated"),))
    with Runner(changed) as runner:
        recording = record(runner, tmp_path / "recording")
    tally = inject(recording, kind)

    assert tally.first, tally
    assert (
        subprocess.run(["sh", "-c", tally.first.command], cwd=REPOSITORY, capture_output=True, check=False).returncode
        == 1
    )
    assert any(found.startswith(violation) for found in tally.violations), tally


def test_mutant_that_lost_its_text_is_stale(tmp_path: Path) -> None:
    with pytest.raises(Stale, match="0 times"):
        mutate(TOY, mutant("gone", "no such text", "", ""), tmp_path / "gone")
    with pytest.raises(Stale, match="2 times"):
        mutate(TOY, mutant("twice", "os.fsync(fd)", "pass", ""), tmp_path / "twice")


def test_mutant_that_cannot_run_is_no_verdict(tmp_path: Path) -> None:
    broken = mutant("broken", "_CHUNK = 4096\n", "_CHUNK = 4096 / 0\n", "")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        put_to_trial(broken, TOY, WORKLOAD, tmp_path)


def test_workload_that_imports_another_copy_is_no_verdict(tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text(f"import sys\nsys.path.insert(0, {str(TOY.parent)!r})\nimport toy\n")
    with pytest.raises(RuntimeError, match="not from the mutated copy"):
        put_to_trial(NO_TIDYING, TOY, Workload(stubborn), tmp_path / "trial")


def test_check_that_fails_by_itself_stops_the_sweep(recorded: Recording, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def check(disk, acks):\n    raise KeyError('mistake')\n")
    with pytest.raises(RuntimeError, match="the check itself failed: record 0"):
        sweep(recorded, checker=Workload(script))


def test_check_that_hangs_is_a_violation() -> None:
    def hang() -> list[str]:
        while True:
            try:
                time.sleep(60)
            except Exception:  # as careless code does
                continue

    assert patiently(hang, 0.1, "here") == ["HUNG: the check took more than 0 s"]


def test_recording_can_be_loaded_again(recorded: Recording) -> None:
    assert load(recorded.directory) == recorded


def test_counts_are_published_without_paths(recorded: Recording, tmp_path: Path) -> None:
    result: Result = sweep(recorded, "kill")
    published = json.loads(publish(tmp_path / "counts", "toy-kill", result).read_text())

    assert published["tally"]["cases"] == result.tally.cases
    assert published["operations"] == recorded.operations
    assert str(recorded.directory) not in json.dumps(published)
