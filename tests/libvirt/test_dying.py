# SPDX-License-Identifier: Apache-2.0
"""Whenever a backup is killed: the guest goes on, nothing is left, and the next one finds everything that it needs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keepstone.workloads.machines import Level
from tests.libvirt.yard import Yard, oracle, same

pytestmark = pytest.mark.vm

_ROOT = Path(__file__).parents[2]
_STEPS = [
    "during freeze",
    pytest.param("before backup-begin", marks=pytest.mark.slow),
    "during backup-begin",
    pytest.param("after backup-begin", marks=pytest.mark.slow),
    pytest.param("after thaw", marks=pytest.mark.slow),
    "reading",
    pytest.param("before commit", marks=pytest.mark.slow),
    "after commit",
]


@pytest.mark.parametrize("step", _STEPS)
def test_killed(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    little = yard.little
    before = yard.left()
    little.sh("dd if=/dev/urandom of=/a/old bs=64k seek=40 count=2 conv=notrunc 2>/dev/null; sync")

    command = [sys.executable, "-m", "tests.libvirt.dying", yard.folder / "store", little.daemon.uri, little.name]
    died = subprocess.run([*map(str, command), str(yard.fleece), step], check=False, cwd=_ROOT)
    assert died.returncode == -signal.SIGKILL

    little.sh("date > /a/after; sync")  # which would wait while it is frozen
    yard.quiet()
    assert not little.frozen()
    if not step.endswith("commit"):  # where nobody knows yet whether there is a point
        assert yard.left() == before
    with oracle(monkeypatch, tmp_path / "copies") as copies:
        made = yard.backup()
    same(yard.restore(made, tmp_path / "out"), copies)
    assert [text for text in made.warnings if "vdb" not in text] == []
    assert made.report.read < 10 << 20
    assert made.machine.about.consistency.level is Level.APPLICATION
    assert yard.left() == made.checkpoints
