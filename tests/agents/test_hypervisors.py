# SPDX-License-Identifier: Apache-2.0
"""A hypervisor on a machine with an agent: its machines are found, backed up and restored by that agent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.living import Machine
from tests.machines.guest import Guest, make_disk

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may read anywhere is root's"),
]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """A machine that has been put up and does not go on, and a folder with its monitor."""
    disks = [(f"d{number}", make_disk(tmp_path / f"d{number}.qcow2", 8)) for number in range(2)]
    with Guest(tmp_path, disks, boots=False) as guest:
        (tmp_path / "host").mkdir()
        (tmp_path / "host" / "little.qmp").symlink_to(guest.qmp)
        yield guest


def test_a_machine_of_another_host(agent: Machine, guest: Guest, tmp_path: Path) -> None:
    living = agent.living

    living("hypervisor", "register", "-n", agent.name, "--qemu", tmp_path / "host", "--on", agent.name)

    living("protection", "enable-for-vm", "--vm", "little")
    first = living("protection", "backup-now", "-i", "little")
    assert first["properties"]["status"] == "Completed", first
    second = living("protection", "backup-now", "-i", "little")
    assert second["properties"]["status"] == "Completed", second
    assert int(second["properties"]["extendedInfo"]["propertyBag"]["New Bytes"]) < 1 << 20
    target = agent.restored / "little"
    living("restore", "machine", "-i", "little", "latest", "--target", target, "--disk", "disk1", "--format", "qcow2")
    assert {path.name for path in target.iterdir()} == {"disk0.qcow2", "disk1.qcow2", "machine.json"}
    assert json.loads((target / "machine.json").read_text())["name"] == "little"
    refused = living("restore", "machine", "-i", "little", "latest", "--in-place", "--yes", code=2)
    assert "is on another host than the service" in str(refused)
    agent.configure(f'[backup]\ndeny = ["{guest.qmp}"]\n')
    assert "no backup of that" in str(living("protection", "backup-now", "-i", "little", code=1))
