# SPDX-License-Identifier: Apache-2.0
"""A disk of a machine with an agent that is in an image of another program; and what such an image may lead to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.agents.living import Machine
from tests.unit.disks.foreign import MIB, Vhdx, noise

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may read anywhere is root's"),
]


def test_the_point_has_the_disk(agent: Machine, tmp_path: Path) -> None:
    disk = Vhdx(3 * MIB, {1: (6, noise(MIB))}).write(tmp_path / "disk.vhdx")
    agent.protect(disk, "--disk")
    agent.back_up(disk)
    agent.living("restore", "disk", "-i", disk, "latest", "--target", agent.restored / "disk.raw")
    assert (agent.restored / "disk.raw").read_bytes() == bytes(MIB) + noise(MIB) + bytes(MIB)


def test_a_part_that_this_machine_does_not_allow(agent: Machine, tmp_path: Path) -> None:
    """The image names the file, and the service named the image: neither has a say here."""
    (tmp_path / "secret").write_bytes(noise(MIB))
    disk = tmp_path / "disk.vmdk"
    disk.write_text('# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 2048 FLAT "secret" 0\n')
    agent.configure(f'[backup]\ndeny = ["{tmp_path}/secret"]\n')
    agent.protect(disk, "--disk")
    assert "no backup of that" in str(agent.living("protection", "backup-now", "-i", disk, code=1))
