# SPDX-License-Identifier: Apache-2.0
"""Files out of a disk of a machine with an agent, which looks into it itself: over the network, into a folder there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.agents.living import Machine

pytestmark = [
    pytest.mark.agents,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may write anywhere is root's"),
]


def test_files_of_a_disk(agent: Machine, tmp_path: Path) -> None:
    inside, disk = tmp_path / "inside", tmp_path / "disk.img"
    (inside / "www").mkdir(parents=True)
    (inside / "www" / "big").write_bytes(os.urandom(3_000_000))
    (inside / "www" / "tool").write_text("x")
    (inside / "www" / "tool").chmod(0o4755)
    (inside / "other").touch()
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", inside, disk, "16M"], check=True)
    agent.protect(disk, "--disk")
    agent.back_up(disk)
    target = agent.restored / "files"

    agent.living("restore", "files", "-i", disk, "latest", "0/www", "--target", target)

    assert {path.name for path in (target / "0").iterdir()} == {"www"}
    assert (target / "0" / "www" / "big").read_bytes() == (inside / "www" / "big").read_bytes()
    assert (target / "0" / "www" / "tool").stat().st_mode & 0o7777 == 0o755
    agent.living("restore", "files", "-i", disk, "latest", "0/www", "--target", target, code=1)
    agent.living("restore", "files", "-i", disk, "latest", "0/www", "--target", target, "--conflict", "skip")
