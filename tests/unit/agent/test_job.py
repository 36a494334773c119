# SPDX-License-Identifier: Apache-2.0
"""What a job's process tells its agent."""

from __future__ import annotations

import msgspec
import pytest

from keepstone.agent.job import Report, Said
from keepstone.env import Env

pytestmark = pytest.mark.agents


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
