# SPDX-License-Identifier: Apache-2.0
"""Agents that hang, are not there, or were left frozen: the guest is thawed in the end, and the point is called what it
is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.workloads.libvirt.agent import Agent
from keepstone.workloads.machines import Consistency, Level
from keepstone.workloads.machines.stillness import hold_still
from tests.libvirt.yard import Yard
from tests.machines.guest import until

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def thawed(yard: Yard) -> Iterator[None]:
    """The guest goes on after each of these tests, and nothing of them does."""
    yield
    yard.little.sh("rm -f /run/slow-*; date > /a/after; sync")
    yard.quiet()
    assert not yard.little.frozen()


def still(yard: Yard, warnings: list[str], *, freeze: float = 5) -> Consistency:
    agent = Agent(yard.virsh, yard.virsh.ask("domuuid", yard.little.name).strip())
    return hold_still(Env(), agent, lambda: None, warnings.append, 5, freeze)


def test_an_agent_that_hangs_in_the_freeze(yard: Yard) -> None:
    """The freeze comes about later; what undoes it is a process of its own."""
    yard.little.sh("echo 3 > /run/slow-freeze")
    warnings: list[str] = []

    consistency = still(yard, warnings, freeze=1)

    assert consistency.level is Level.CRASH
    assert "Guest agent is not responding" in consistency.reason
    assert warnings == ["the guest agent does not answer when it is to thaw; a process of its own goes on trying"]


def test_a_guest_that_was_left_frozen(yard: Yard) -> None:
    """By somebody who was killed, and whose watchdog was, too."""
    freeze = '{"execute":"guest-fsfreeze-freeze"}'
    yard.little.daemon.virsh("qemu-agent-command", yard.little.name, freeze)
    warnings: list[str] = []

    consistency = still(yard, warnings)

    assert consistency.level is Level.APPLICATION
    assert warnings == ["the guest was frozen already, and is thawed now; an earlier backup of it was killed"]


def test_a_moment_that_libvirt_refuses(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    before = yard.left()
    monkeypatch.setattr("keepstone.workloads.libvirt.moment.Moment._backup", lambda moment: "<domainbackup mode='no'/>")
    with pytest.raises(SourceFailed, match="libvirt refuses backup-begin"):
        yard.backup()

    assert yard.left() == before


def test_a_guest_without_an_agent_that_answers(yard: Yard) -> None:
    first = yard.little.sh("pidof qemu-ga | tr ' ' '\\n' | sort -n | head -n1").strip()
    yard.little.sh(f"kill -STOP {first}")
    try:
        made = yard.backup()
    finally:
        yard.little.sh(f"kill -CONT {first}")
        until(lambda: not yard.little.frozen(), "the agent")

    assert made.machine.about.consistency.level is Level.CRASH
    assert "Guest agent is not responding" in made.machine.about.consistency.reason
