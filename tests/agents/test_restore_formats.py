# SPDX-License-Identifier: Apache-2.0
"""A disk of a machine with an agent, into an image of another format: by a sink, and read in order over the network."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.agents.living import Machine
from tests.unit.disks_writing.images import QEMU, needs_qemu, qemu
from tests.unit.images.disk import sparse

pytestmark = [
    pytest.mark.vm,
    needs_qemu,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may write anywhere is root's"),
]


def test_images_of_other_formats(agent: Machine, tmp_path: Path) -> None:
    data = {at: random.Random(at).randbytes(700_000) for at in (0, 20_000_000, 49_000_000)}
    disk = sparse(tmp_path / "disk.img", 50_000_000, data)
    agent.protect(disk, "--disk")
    agent.back_up(disk)
    for name in ("vhdx", "vmdk", "vhd"):
        target = agent.restored / f"disk.{name}"
        agent.living("restore", "disk", "-i", disk, "latest", "--target", target, "--format", name)
        qemu("compare", "-f", "raw", "-F", QEMU.get(name, name), disk, target)
        assert target.stat().st_blocks * 512 < 10_000_000
