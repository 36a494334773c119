# SPDX-License-Identifier: Apache-2.0
"""What a job's process tells its agent."""

from __future__ import annotations

import msgspec
import pytest

from keepstone.agent.job import Report, Said
from keepstone.env import Env
from keepstone.remote.wire import STEPS

pytestmark = pytest.mark.agents


def test_every_line_has_the_steps_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    """Its agent may take any of them for the newest; and their number has an end."""
    env = Env()
    report = Report(env, lambda: None)
    before = env.boot_time()
    report.step("reads")
    report.advance(10)
    for number in range(2 * STEPS):
        report.step(str(number))
    lines = [msgspec.json.decode(line, type=Said) for line in capsys.readouterr().out.splitlines()]

    assert [text for _, text in lines[1].steps] == ["reads"]
    assert before <= lines[1].steps[0][0] <= env.boot_time()
    assert len(lines[-1].steps) == STEPS
    assert lines[-1].done == 10


def test_a_second_try_is_told_from_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    """An upload that its service has lost is made again: nobody is to read of twice as many files and warnings."""
    report = Report(Env(), lambda: None)
    for _ in range(2):
        report.begin()
        report.expect(30)
        report.advance(10, 1)
        report.warn(b"name", "cannot be read")

    assert (report.done, report.expected, report.files, report.count) == (10, 30, 1, 1)
    assert report.warnings == ["name cannot be read"]
    said = msgspec.json.decode(capsys.readouterr().out.splitlines()[0], type=Said)
    assert (said.done, said.expected, said.files) == (10, 30, 1)
