# SPDX-License-Identifier: Apache-2.0
"""A hypervisor on a machine with an agent: its machines are found, backed up and restored by that agent."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.workloads.kvm.kept import named
from tests.agents.living import Machine
from tests.cli.services import until
from tests.machines.guest import Guest, make_disk, monitor
from tests.machines.test_replace import write

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may read anywhere is root's"),
]


@pytest.fixture
def guest(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A machine that has been put up and does not go on, and a folder with its monitor. Its name is a parameter."""
    name = ["-name", request.param] if hasattr(request, "param") else []
    disks = [(f"d{number}", make_disk(tmp_path / f"d{number}.qcow2", 8)) for number in range(2)]
    with Guest(tmp_path, disks, boots=False, extra=name) as guest:
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
    living("hypervisor", "unregister", "-n", agent.name, "--yes")  # who looks for machines would wait for it


@pytest.mark.parametrize("guest", ["keeper"], indirect=True)
def test_snapshots_that_it_keeps(agent: Machine, guest: Guest, tmp_path: Path) -> None:
    living = agent.living
    (tmp_path / "kept").mkdir()
    keeps = f'[backup]\nsnapshots = "{tmp_path}/kept"\n'
    # The service knows long before the agent's end of it that there is a point, and says that the job is over.
    agent.configure(f'{keeps}[[after]]\nrun = ["/bin/sleep", "4"]\n')
    living("hypervisor", "register", "-n", agent.name, "--qemu", tmp_path / "host", "--on", agent.name)
    living("protection", "enable-for-vm", "--vm", "keeper")
    write(guest, "disk0", "write -P 9 0 4M", "flush")  # else qemu-img would not see it

    def tiers() -> list[str]:
        told = living.points(Path("keeper"))[0]["properties"]["recoveryPointTierDetails"]
        return [tier["type"] for tier in told]

    def restored(*more: object) -> int:
        """What came from a snapshot."""
        job = living("restore", "machine", "-i", "keeper", "latest", *more)["properties"]
        assert job["status"] == "Completed", job
        return int(job["extendedInfo"]["propertyBag"].get("Bytes From Snapshot", 0))

    assert living("protection", "backup-now", "-i", "keeper")["properties"]["status"] == "Completed"
    until(lambda: "InstantRP" in tiers(), "what the agent says of its snapshot")
    assert "is not ours any more" in agent.said()
    disks = [content(image) for _, image in guest.disks]
    assert disks[0][: 4 << 20] == bytes([9]) * (4 << 20)
    write(guest, "disk0", "write -P 8 0 1M")
    target = agent.restored / "near"
    near = restored("--target", target)
    assert near >= 4 << 20
    assert [content(target / f"disk{number}.raw", "raw") for number in range(2)] == disks

    image = guest.disks[0][1]
    with image.open("r+b") as file:  # what no filter sees
        file.seek(image.read_bytes().index(bytes([9]) * (2 << 20)))
        file.write(bytes([7]) * (1 << 20))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # sockets have short paths
        folder = Path(short) / "new"
        agent.configure(f'{keeps}[restore]\nmachines = true\nallow = ["{short}"]\n')
        assert 1 << 20 <= restored("--new-machine", "wrong", "--target", folder) < near - (3 << 18)
        with monitor(folder / "qmp") as ask:
            ask("quit")
        until(lambda: not (folder / "qmp").exists(), "the end of its keeper")
        assert [content(folder / f"disk{number}.qcow2") for number in range(2)] == disks

    assert names(guest)
    living("item", "release-snapshots", "-i", "keeper")
    assert (tiers(), names(guest)) == (["HardenedRP"], [])
    living("hypervisor", "unregister", "-n", agent.name, "--yes")


def content(image: Path, format: str = "qcow2") -> bytes:
    """What is in an image, which a machine may have open."""
    raw = image.with_suffix(".content")
    subprocess.run(["qemu-img", "convert", "-U", "-f", format, "-O", "raw", image, raw], check=True)
    return raw.read_bytes()


def names(guest: Guest) -> list[Any]:
    """What there is of snapshots in QEMU."""
    with monitor(guest.qmp) as ask:
        nodes = [node["node-name"] for node in ask("query-named-block-nodes", flat=True)]
    return [node for node in nodes if named(node)]


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
