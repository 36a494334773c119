# SPDX-License-Identifier: Apache-2.0
"""A libvirt on a machine with an agent: the disks of its machines go back into them by that agent."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.agents.living import Machine
from tests.cli.services import until
from tests.libvirt.conftest import daemon
from tests.libvirt.daemon import Daemon
from tests.libvirt.still import Still

__all__ = ["daemon"]

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may read anywhere is root's"),
]


@pytest.mark.parametrize("dies", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_domain_of_another_host(agent: Machine, daemon: Daemon, tmp_path: Path, dies: bool) -> None:
    """Its disks go back into it; where its agent dies in the middle, the one after it goes on, without another safety
    point."""
    living, name = agent.living, f"elsewhere{int(dies)}"
    still, item = Still(daemon, tmp_path, name), Path(name)
    try:
        living("hypervisor", "register", "-n", f"lv{int(dies)}", "--libvirt", daemon.uri, "--on", agent.name)
        living("protection", "enable-for-vm", "--vm", name)
        still.write("vda", "write -P 1 0 1M")
        assert "Completed" in living("protection", "backup-now", "-i", name)["properties"]["status"]
        (oldest,) = living.points(item)
        first = still.content(tmp_path / "first")
        still.write("vda", "write -P 2 0 3M")
        still.write("vdb", "write -P 3 5M 1M")
        second = still.content(tmp_path / "second")
        before = still.description()
        socket = daemon.uri.partition("socket=")[2]
        back = ("restore", "machine", "-i", name, oldest["name"], "--in-place", "--yes")
        agent.configure(f'[restore]\nallow = ["{socket}", "{still.disks["vda"]}"]\n')
        assert f"{still.disks['vdb']} is not in restore.allow" in str(living(*back, code=1))
        assert (still.state, still.description(), len(living.points(item))) == ("running", before, 1)
        agent.configure(f'[restore]\nallow = ["{socket}", "{tmp_path}"]\n')

        job = living(*back, "--no-wait")["name"]
        if dies:
            until(lambda: "keepstone:replacing" in still.description(), "the mark")
            agent.stop(signal.SIGKILL)
            until(lambda: not agent.jobs(), "the end of its job")
            agent.start()

        ended = agent.ended(job)["properties"]
        # One disk is raw and read in full: that is said, and forgotten with the agent to whom it was said.
        assert ended["status"] == ("Completed" if dies else "CompletedWithWarnings"), ended
        assert (still.state, still.description()) == ("running", before)
        assert still.content(tmp_path / "now") == first
        safety, *more = living.points(item)
        assert ended["extendedInfo"]["propertyBag"]["Recovery Point"] == safety["name"]
        assert [point["name"] for point in more] == [oldest["name"]]
        living(*back[:4], safety["name"], *back[5:], "--no-safety-point")
        assert still.content(tmp_path / "again") == second
        assert len(living.points(item)) == 2
        living("hypervisor", "unregister", "-n", f"lv{int(dies)}", "--yes")  # who looks for machines would wait for it
    finally:
        still.close()


def test_a_clone(agent: Machine, daemon: Daemon, tmp_path: Path) -> None:
    """What its image is above is read where it may be backed up, and need not be what is written to."""
    living, item = agent.living, Path("clone")
    (tmp_path / "images").mkdir()
    base = tmp_path / "base.raw"
    base.write_bytes(b"\1" * (1 << 20))
    still = Still(daemon, tmp_path / "images", item.name, beneath=base)
    try:
        living("hypervisor", "register", "-n", "lvc", "--libvirt", daemon.uri, "--on", agent.name)
        living("protection", "enable-for-vm", "--vm", item.name)
        daemon.virsh("destroy", still.name)
        first = still.content(tmp_path / "first")
        now = ("protection", "backup-now", "-i", item.name)
        socket = daemon.uri.partition("socket=")[2]
        back = ("restore", "machine", "-i", item.name, "latest", "--in-place", "--yes", "--no-safety-point")
        restore = f'[restore]\nallow = ["{socket}", "{tmp_path}/images"]\n'
        agent.configure(f'[backup]\ndeny = ["{base}"]\n{restore}')
        assert f"{base} is beneath {base}, and this machine's agent allows no backup of that" in str(
            living(*now, code=1)
        )

        agent.configure(restore)
        assert "Completed" in living(*now)["properties"]["status"]
        daemon.virsh("start", still.name)
        still.write("vda", "write -z 0 1M")
        agent.configure(f'[backup]\ndeny = ["{base}"]\n{restore}')
        assert "allows no backup of that" in str(living(*back, code=1))
        assert still.state == "running"
        agent.configure(restore)
        living(*back)

        assert still.content(tmp_path / "now") == first
        living("hypervisor", "unregister", "-n", "lvc", "--yes")
    finally:
        still.close()
