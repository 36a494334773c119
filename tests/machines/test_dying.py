# SPDX-License-Identifier: Apache-2.0
"""Whenever a backup is killed: the guest goes on, and the next backup finds everything that it needs and no rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keepstone.workloads.machines import Level
from tests.machines.guest import agent_until, until
from tests.machines.test_backup import same
from tests.machines.yard import Yard, oracle

pytestmark = pytest.mark.vm

_ROOT = Path(__file__).parents[2]
_STEPS = [
    pytest.param("after add-fd", marks=pytest.mark.slow),
    pytest.param("after blockdev-create", marks=pytest.mark.slow),
    pytest.param("after block-dirty-bitmap-add", marks=pytest.mark.slow),
    "before transaction",
    "after transaction",
    "after nbd-server-start",
    "after block-export-add",
    pytest.param("reading", marks=pytest.mark.slow),
    pytest.param("before commit", marks=pytest.mark.slow),
    "after commit",
]


def dying(yard: Yard, step: str, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.machines.dying", yard.folder / "store", yard.guest.qmp, yard.guest.qga]
    return subprocess.Popen([*map(str, command), str(yard.folder), step, *more], cwd=_ROOT)


@pytest.mark.parametrize("step", _STEPS)
def test_killed(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    guest = yard.guest
    guest.sh("dd if=/dev/urandom of=/a/old bs=64k seek=40 count=2 conv=notrunc 2>/dev/null; date > /b/x; sync")

    assert dying(yard, step).wait(60) == -signal.SIGKILL

    guest.sh("date > /a/after; sync")  # which would wait while it is frozen
    agent_until(guest.qga, "thawed", 10)
    until(lambda: not yard.left(bitmaps=False), "the end of what it had in QEMU", 10)
    with oracle(monkeypatch, guest, tmp_path / "copies") as copies:
        made = yard.backup()
    same(yard.restore(made, tmp_path / "out"), copies)
    assert made.warnings == []
    assert made.report.read < 8 << 20
    assert made.machine.about.consistency.level is Level.APPLICATION
    assert yard.left() == yard.tokens(made)


def test_killed_with_its_watchdog(yard: Yard) -> None:
    """Nobody could thaw then; the next backup does."""
    assert dying(yard, "unwatched transaction").wait(60) == -signal.SIGKILL
    agent_until(yard.guest.qga, "frozen", 10)

    made = yard.backup()

    assert made.warnings == ["the guest was frozen already, and is thawed now; an earlier backup of it was killed"]
    assert made.machine.about.consistency.level is Level.APPLICATION
    yard.guest.sh("date > /a/after; sync")


def test_stopped_while_the_guest_is_frozen(yard: Yard) -> None:
    """Its watchdog does not wait for ever, and what is made later is not called more than it is."""
    process = dying(yard, "paused transaction")
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")

    begun = time.monotonic()
    yard.guest.sh("date > /a/after; sync")
    assert time.monotonic() - begun < 20

    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0
    point = yard.store.points.find("latest")
    from keepstone.workloads.machines import machine_of

    with yard.store.reader(point) as reader:
        consistency = machine_of(reader).about.consistency
    assert (consistency.level, consistency.reason) == (
        Level.CRASH,
        "the guest stood still for too long, and was thawed before all disks were held",
    )
