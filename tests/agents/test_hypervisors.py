# SPDX-License-Identifier: Apache-2.0
"""A hypervisor on a machine with an agent: its machines are found, backed up and restored by that agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.living import Machine
from tests.cli.services import until
from tests.libvirt.conftest import daemon
from tests.libvirt.daemon import Daemon
from tests.libvirt.still import Still
from tests.machines.guest import Guest, make_disk, monitor

__all__ = ["daemon"]

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
    with monitor(guest.qmp) as ask:
        for disk in ("disk0", "disk1"):
            line = f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "write -P 5 0 1M"'
            assert "error" not in ask("human-monitor-command", command_line=line).lower()
    back = ("restore", "machine", "-i", "little", "latest", "--in-place", "--disk", "disk1", "--yes")
    assert "is not in restore.allow of this machine's agent" in str(living(*back, code=1))
    assert len(living.points(Path("little"))) == 2  # not even the safety point
    agent.configure(f'[restore]\nallow = ["{guest.qmp}"]\n')
    replaced = living(*back)["properties"]
    assert replaced["status"] == "Completed", replaced
    safety, *before = living.points(Path("little"))
    assert (replaced["extendedInfo"]["propertyBag"]["Recovery Point"], len(before)) == (safety["name"], 2)
    for number in range(2):
        raw = tmp_path / f"{number}.raw"
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", guest.disks[number][1], raw], check=True)
        assert raw.read_bytes()[:4096] != bytes([5]) * 4096
    living(*back[:3], "little", safety["name"], *back[5:])
    for number in range(2):
        raw = tmp_path / f"{number}.raw"
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", guest.disks[number][1], raw], check=True)
        assert raw.read_bytes()[:4096] == bytes([5]) * 4096
    agent.configure(f'[backup]\ndeny = ["{guest.qmp}"]\n')
    assert "no backup of that" in str(living("protection", "backup-now", "-i", "little", code=1))

    new_machine(agent, tmp_path, safety["name"])


def new_machine(agent: Machine, place: Path, point: str) -> None:
    """It runs from the service's store at once, then alone, and can be protected in its turn."""
    living = agent.living
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # sockets have short paths
        folder = Path(short) / "new"
        make = ("restore", "machine", "-i", "little", point, "--new-machine", "new", "--target", folder)
        assert "starts no machines out of points" in str(living(*make, code=1))
        agent.configure("[restore]\nmachines = true\n")
        assert f"{folder} is not in restore.allow" in str(living(*make, code=1))
        agent.configure(f'[restore]\nmachines = true\nallow = ["{short}"]\n')

        made = living(*make)["properties"]

        assert made["status"] == "Completed", made
        agent.stop()
        with monitor(folder / "qmp") as ask:
            assert ask("query-status")["status"] == "running"
        agent.start()
        assert "'new' already" in str(living(*make, code=2))
        living("protection", "enable-for-vm", "--vm", "new")
        again = living("protection", "backup-now", "-i", "new")["properties"]
        assert again["status"] == "Completed", again
        with monitor(folder / "qmp") as ask:
            ask("quit")
        until(lambda: not (folder / "qmp").exists(), "the end of its keeper")
        raw = place / "new.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", folder / "disk1.qcow2", raw], check=True)
        assert raw.read_bytes()[:4096] == bytes([5]) * 4096


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
