# SPDX-License-Identifier: Apache-2.0
"""A machine on a disk that is still in the store, and what it writes there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from tests.cli.conftest import cli, made
from tests.cli.running import Cli
from tests.cli.test_serve import serving
from tests.machines.guest import Guest, make_disk, monitor, until
from tests.unit.nbd.serving import read

__all__ = ["cli", "made"]

pytestmark = pytest.mark.vm


def test_a_machine_goes_on_from_a_point_and_leaves_the_store(made: Cli, guest: Guest, tmp_path: Path) -> None:
    """It reads what the point has and writes into its overlay; when that has taken in the rest, nobody needs to serve.
    `guest`: skips where there can be none."""
    disk = make_disk(tmp_path / "d0.raw", 32, "raw")
    (tmp_path / "mark").write_text("of the point")
    subprocess.run(["debugfs", "-w", "-R", f"write {tmp_path / 'mark'} mark", disk], check=True, capture_output=True)
    before = disk.read_bytes()
    made.backup("--image", disk)
    disk.unlink()
    overlay = tmp_path / "overlay.qcow2"
    with serving(made, "--socket", tmp_path / "socket") as (_, uris):
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", uris[0], str(overlay)]
        subprocess.run(create, check=True)
        machine = Guest(tmp_path, [("d0", overlay)])
        with machine:
            assert machine.sh("cat /a/mark") == "of the point"
            machine.sh("echo of the machine > /a/new; sync")
            with monitor(machine.qmp) as ask:
                ask("block-stream", job_id="stream", device="d0")
                until(lambda: not ask("query-block-jobs"), "the end of the copy")
            with NbdSource(Env(), uris[0]) as source:
                assert read(source) == before
            machine.off()
    again = tmp_path / "again"
    again.mkdir()
    with Guest(again, [("d0", overlay)]) as machine:
        assert machine.sh("cat /a/mark /a/new") == "of the pointof the machine\n"
