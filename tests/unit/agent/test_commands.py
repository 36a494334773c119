# SPDX-License-Identifier: Apache-2.0
"""Commands around a job: what they are told, what becomes of the job, and that nothing of them is left at the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keepstone.agent import commands
from keepstone.agent.commands import OUTPUT, Facts, Outcome, Ran, around, run
from keepstone.agent.configuration import Command
from keepstone.env import Env
from keepstone.errors import JobCancelled, KeepstoneError
from tests.cli.services import until

pytestmark = pytest.mark.agents
FACTS = Facts("job-1", "/srv/data")


def shell(text: str, *, timeout: float = 60, ignore: bool = False, items: tuple[str, ...] = ()) -> Command:
    return Command(run=("/bin/sh", "-c", text), timeout=timeout, ignore=ignore, items=items)


class Trial:
    """A job between commands; `ran`: the commands' text and what came of them."""

    def __init__(self) -> None:
        self.ran: list[Ran] = []
        self.reached = False
        self.outcome = Outcome()

    def __call__(
        self,
        before: list[Command],
        after: list[Command],
        job: Callable[[Outcome], None] = lambda outcome: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        with around(Env(), before, after, FACTS, say=self.ran.append, check=check) as self.outcome:
            self.reached = True
            job(self.outcome)

    @property
    def said(self) -> list[str]:
        return [ran.output.strip() for ran in self.ran]


@pytest.fixture
def trial() -> Trial:
    return Trial()


class Late(Env):
    """A world in which it is far too late as soon as `mark` exists."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self._mark = mark

    def boot_time(self) -> int:
        return super().boot_time() + (10**15 if self._mark.exists() else 0)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_commands_run_in_order_around_the_job(trial: Trial) -> None:
    trial(
        [shell("echo one; echo wrong >&2"), shell("echo two")],
        [shell("echo $KEEPSTONE_RESULT"), shell("echo four")],
    )

    assert trial.said == ["one\nwrong", "two", "Completed", "four"]
    assert all(ran.code == 0 and not ran.failed for ran in trial.ran)
    assert trial.outcome.warnings == []


def test_what_they_are_told_and_what_not(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_PASSPHRASE", "secret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("OTHER", "kept")
    trial([Command(run=("/usr/bin/env",))], [Command(run=("/usr/bin/env",))])

    before, after = (dict(line.split("=", 1) for line in text.splitlines()) for text in trial.said)
    told = {name: value for name, value in before.items() if name.startswith(("KEEPSTONE", "NOTIFY"))}

    assert told == {"KEEPSTONE_JOB": "job-1", "KEEPSTONE_ITEM": "/srv/data"}
    assert before["OTHER"] == "kept"
    assert after["KEEPSTONE_RESULT"] == "Completed"


def test_no_shell_reads_what_the_service_says() -> None:
    facts = Facts("$(touch x)", "/srv/; rm -rf \0/")

    ran = run(Env(), Command(run=("/bin/echo", "$KEEPSTONE_JOB", "a b")), facts.environ())

    assert ran.output == "$KEEPSTONE_JOB a b\n"
    assert run(Env(), shell("echo $KEEPSTONE_ITEM"), facts.environ()).output == "/srv/; rm -rf /\n"


def test_they_stand_at_the_root_and_have_nothing_to_read() -> None:
    assert run(Env(), shell("pwd; cat; echo over"), FACTS.environ()).output == "/\nover\n"


@pytest.mark.parametrize("bad", ["exit 3", "kill -9 $$"])
def test_a_failure_before_is_the_jobs_and_the_rest_before_does_not_run(trial: Trial, bad: str) -> None:
    with pytest.raises(KeepstoneError, match=r"/bin/sh, (ended with 3|was ended by signal 9), and said: no room"):
        trial([shell(f"echo no room; {bad}"), shell("echo never")], [shell("echo $KEEPSTONE_RESULT")])

    assert not trial.reached
    assert trial.said == ["no room", "Failed"]


def test_a_failure_that_is_ignored_is_a_warning(trial: Trial) -> None:
    trial([shell("exit 1", ignore=True), shell("echo two")], [])

    assert trial.reached
    assert trial.said == ["", "two"]
    assert "/bin/sh, ended with 1" in trial.outcome.warnings[0]


@pytest.mark.parametrize("path", ["/no/such/program", "/etc/passwd", "/usr"])
def test_what_cannot_be_started_is_a_failure(trial: Trial, path: str) -> None:
    with pytest.raises(KeepstoneError, match=f"{path}, could not be started"):
        trial([Command(run=(path,))], [shell("echo after")])
    assert trial.ran[0].code is None
    assert trial.said[1:] == ["after"]


def test_failures_after_are_warnings_and_all_run(trial: Trial) -> None:
    trial([], [shell("exit 1"), shell("exit 2", ignore=True), shell("echo last")])

    assert trial.said == ["", "", "last"]
    assert [warning for warning in trial.outcome.warnings if "ended with 1" in warning] == trial.outcome.warnings != []


@pytest.mark.parametrize(
    ("error", "result"),
    [(ValueError("x"), "Failed"), (JobCancelled("x"), "Cancelled"), (KeyboardInterrupt(), "Failed")],
)
def test_those_after_run_whatever_became_of_the_job(trial: Trial, error: BaseException, result: str) -> None:
    def job(outcome: Outcome) -> None:
        raise error

    with pytest.raises(type(error)):
        trial([], [shell("echo $KEEPSTONE_RESULT")], job)
    assert trial.said == [result]


def test_the_job_says_how_it_ended(trial: Trial) -> None:
    def job(outcome: Outcome) -> None:
        outcome.result = "CompletedWithWarnings"

    trial([], [shell("echo $KEEPSTONE_RESULT")], job)
    assert trial.said == ["CompletedWithWarnings"]


def test_commands_for_other_items_do_not_run(trial: Trial) -> None:
    trial([shell("echo mine", items=("/srv/*",)), shell("echo no", items=("/home/*", "/srv"))], [shell("echo all")])

    assert trial.said == ["mine", "all"]


def test_only_the_end_of_much_output_is_kept() -> None:
    program = "import sys; sys.stdout.write('x' * 3_000_000 + 'the end')"

    ran = run(Env(), Command(run=(sys.executable, "-c", program)), FACTS.environ())

    assert len(ran.output) == OUTPUT
    assert ran.output.endswith("xthe end")


def test_time_is_over_for_all_that_a_command_started(tmp_path: Path) -> None:
    child, mark = tmp_path / "child", tmp_path / "mark"
    text = f"sleep 600 & echo $! > {child}; echo begun; touch {mark}; wait"

    ran = run(Late(mark), shell(text, timeout=1000), FACTS.environ())

    assert ran.failed == "took longer than 1000 seconds, and was ended"
    assert ran.output.startswith("begun\n")
    until(lambda: not alive(int(child.read_text())), "its child is gone")


def test_who_does_not_go_politely_goes_by_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "_GRACE", 0.2)
    child, mark = tmp_path / "child", tmp_path / "mark"
    stay = "while :; do sleep 1; done"
    text = f"trap '' TERM; ({stay}) & echo $! > {child}; touch {mark}; {stay}"

    ran = run(Late(mark), shell(text, timeout=1000), FACTS.environ())

    assert ran.code == -signal.SIGKILL
    until(lambda: not alive(int(child.read_text())), "its child is gone")


def test_a_polite_end_is_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"trap 'sleep 0.2; echo goes; exit 0' TERM; echo begun; touch {mark}; while :; do sleep 0.05; done"

    ran = run(Late(mark), shell(text, timeout=1000), FACTS.environ())

    assert ran.output.startswith("begun\n")
    assert ran.output.endswith("goes\n")
    assert ran.failed.startswith("took longer"), "an exit code of 0 makes it no success"


def test_a_cancelled_job_ends_the_command_before_and_those_after_run(trial: Trial, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def check() -> None:
        if mark.exists():
            raise JobCancelled("job-1 was cancelled")

    began = time.monotonic()
    with pytest.raises(JobCancelled):
        trial([shell(f"touch {mark}; exec sleep 600")], [shell("sleep 0.3; echo $KEEPSTONE_RESULT")], check=check)

    assert time.monotonic() - began < 60
    assert not trial.reached
    assert trial.said == ["Cancelled"]


def test_what_a_command_leaves_behind_does_not_hold_the_job_up(tmp_path: Path) -> None:
    child = tmp_path / "child"
    began = time.monotonic()

    ran = run(Env(), shell(f"sleep 600 & echo $! > {child}; echo done"), FACTS.environ())

    pid = int(child.read_text())
    try:
        assert (ran.failed, ran.output) == ("", "done\n")
        assert time.monotonic() - began < 60
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
