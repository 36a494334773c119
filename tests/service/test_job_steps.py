# SPDX-License-Identifier: Apache-2.0
"""What a machine tells of its jobs, step by step, as their logs have it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from keepstone.control.sessions import machine as machines
from keepstone.remote.wire import STEPS, Beat, End, Step, Work

from .machines import Machine, Register
from .protecting import Vault
from .test_mounting import ask

pytestmark = pytest.mark.service


@pytest.fixture
def web(machine: Register) -> Machine:
    return machine()


@pytest.fixture
def work(vault: Vault, web: Machine, tmp_path: Path) -> Work:
    """A job that the machine has."""
    (tmp_path / "file").write_text("x")
    item = vault.protect(tmp_path)
    vault.back_up(item)
    (point,) = vault.points(item)
    ask(vault, str(point["id"]), web)
    claimed = machines.claim(vault.plane, web.id)
    assert claimed is not None
    return claimed


def log(vault: Vault, work: Work) -> list[tuple[datetime, str]]:
    """Of the job, from when its machine took it."""
    found = vault.client.arm("GET", f"{vault.path}/backupJobs/{work.job}")["properties"]["keepstone"]["log"]
    lines = [(datetime.fromisoformat(line["time"]), str(line["text"])) for line in found]
    taken = next(number for number, line in enumerate(lines) if line[1].startswith("taken by"))
    return lines[taken + 1 :]


def tell(vault: Vault, web: Machine, work: Work, *steps: Step) -> None:
    machines.beat(vault.plane, web.id, [Beat(work.job, work.token, steps=[*steps])])


def test_each_step_is_there_once_however_often_it_is_told(vault: Vault, web: Machine, work: Work) -> None:
    one, two, three = Step("reads"), Step("writes"), Step("has written")
    tell(vault, web, work, one)
    tell(vault, web, work, one)
    tell(vault, web, work)
    tell(vault, web, work, one, two)
    said = End(job=work.job, token=work.token, status="Cancelled", steps=[one, two, three])
    machines.end(vault.plane, web.id, said)

    assert [text for _, text in log(vault, work)] == ["reads", "writes", "has written", "ended as Cancelled"]


def test_a_step_has_its_own_moment(vault: Vault, web: Machine, work: Work) -> None:
    """Of which only its distance is told: the machine's clock may be years off."""
    now = vault.plane.env.utc()
    tell(vault, web, work, Step("an hour ago", 3_600_000), Step("now"), Step("before all time", (1 << 63) - 1))

    past, present, ever = (moment for moment, _ in log(vault, work))
    assert abs(now - timedelta(hours=1) - past) < timedelta(minutes=1)
    assert abs(now - present) < timedelta(minutes=1)
    assert now - ever < timedelta(days=8)


def test_who_has_the_job_next_begins_anew(vault: Vault, web: Machine, work: Work) -> None:
    tell(vault, web, work, Step("reads"), Step("writes"))
    vault.plane.queue.hand_back(machines.held(vault.plane, web.id, work.job, work.token))
    again = machines.claim(vault.plane, web.id)
    assert again is not None
    assert again.token != work.token
    tell(vault, web, again, Step("reads once more"))

    texts = [text for _, text in log(vault, work)]
    assert texts[:2] == ["reads", "writes"]
    assert texts[-1] == "reads once more"


def test_a_machine_that_tells_without_end(vault: Vault, web: Machine, work: Work) -> None:
    """It fills no more than its part of a log, and no line is as long as it likes."""
    for count in range(0, 10 * STEPS, STEPS // 2):
        tell(vault, web, work, *(Step(f"{number} {'x' * 5000}") for number in range(count)))

    lines = [text for _, text in log(vault, work)]
    assert [line.partition(" ")[0] for line in lines] == [str(number) for number in range(STEPS)]
    assert max(map(len, lines)) <= 500
