# SPDX-License-Identifier: Apache-2.0
"""`keepstone` for virtual machines, by a service that runs: hypervisors, machines, storage accounts, restores, drills.
QEMU is real; its guest does not run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.conftest import living
from tests.agents.living import Living
from tests.machines.guest import Guest, initramfs, make_disk, monitor

__all__ = ["living"]

pytestmark = [pytest.mark.service, pytest.mark.vm]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    kernel, image = initramfs()
    boots = ["-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyS0 quiet panic=-1 no_timer_check"]
    disks = [(f"d{number}", make_disk(tmp_path / f"d{number}.qcow2", 8)) for number in range(2)]
    with Guest(tmp_path, disks, boots=False, extra=boots) as guest:
        (tmp_path / "host").mkdir()
        (tmp_path / "host" / "vm.qmp").symlink_to(guest.qmp)
        yield guest


def status(job: dict[str, Any]) -> str:
    text: str = job["properties"]["status"]
    return text


@pytest.mark.usefixtures("guest")
def test_a_hypervisor_and_its_machine(living: Living, tmp_path: Path) -> None:
    assert "give --libvirt or --qemu" in living("hypervisor", "register", "-n", "h", code=2)
    living("hypervisor", "register", "-n", "h", "--qemu", tmp_path / "host")
    (shown,) = living("hypervisor", "list")
    assert shown["properties"]["extendedInformation"]["serviceEndpoints"] == {"qemu": str(tmp_path / "host")}
    assert [one["name"] for one in living("hypervisor", "refresh")] == ["little"]
    assert [one["name"] for one in living("vm", "list", "-g", "g")] == ["little"]

    living("protection", "enable-for-vm", "--vm", "little")
    assert status(living("protection", "backup-now", "-i", "little")) == "Completed"

    living("storage", "create", "-g", "g", "-n", "a1", "--path", tmp_path / "out", "--format", "qcow2")
    (account,) = living("storage", "list", "-g", "g")
    assert account["properties"]["keepstone"] == {"path": str(tmp_path / "out"), "format": "qcow2"}
    (tmp_path / "out").mkdir()
    restore = "restore", "machine", "-i", "little", "latest"
    would = living(*restore, "--in-place", "--dry-run")
    assert (would["target"], would["conflict"]) == ("in place, little", "is overwritten where it differs")
    assert status(living(*restore, "--storage-account", account["id"])) == "Completed"
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.iterdir()} == {"disk0.qcow2", "disk1.qcow2", "machine.json"}
    assert status(living(*restore, "--in-place", "--no-safety-point", "--yes")) == "Completed"
    assert "give one of --target, --storage-account" in living(*restore, code=2)
    assert "give --new-machine" in living(*restore, "--target", tmp_path / "x", "--vnet", "x", code=2)
    assert "leave out --format" in living(*restore, "--in-place", "--format", "vhd", code=2)
    assert "'little' already" in living(*restore, "--new-machine", "little", "--target", tmp_path / "x", code=2)

    assert living("drill", "list", "-i", "little") == []
    assert "there is no drill" in living("drill", "screenshot", "-i", "little", "latest", tmp_path / "x.png", code=3)
    assert status(living("drill", "run", "-i", "little")) == "Completed"
    (drill,) = living("drill", "list", "-i", "little")
    assert drill["properties"]["level"] == "agent"
    living("drill", "screenshot", "-i", "little", "latest", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")

    living("storage", "delete", "-g", "g", "-n", "a1", "--yes")
    assert living("storage", "list", "-g", "g") == []
    living("hypervisor", "unregister", "-n", "h", "--yes")
    assert living("hypervisor", "list") == []
    assert [one["name"] for one in living("vm", "list", "-g", "g")] == ["little"]


def test_a_machine_by_its_address(living: Living, guest: Guest, tmp_path: Path) -> None:
    made = living("vm", "create", "-g", "g", "-n", "single", "--qemu", guest.qmp, "--agent", guest.qga,
                  "--fleece", tmp_path)  # fmt: skip
    own = {"machine": f"qemu:{guest.qmp}", "agent": str(guest.qga), "fleece": str(tmp_path)}
    assert made["properties"]["keepstone"] == own
    assert "give --qemu or --disk" in living("vm", "create", "-g", "g", "-n", "x", code=2)
    assert "of a machine of QEMU" in living(
        "vm", "create", "-g", "g", "-n", "x", "--disk", "/x", "--agent", "/a", code=2
    )
    (found,) = [one for one in living("hypervisor", "refresh") if one["name"] == "single"]
    assert found["properties"]["storageProfile"]["osDisk"]["name"] == "disk0"
    living("protection", "enable-for-vm", "--vm", "single")
    new = tmp_path / "new"
    job = living("protection", "backup-now", "-i", "single")
    assert status(job) == "Completed", json.dumps(job)
    made = living("restore", "machine", "-i", "single", "latest", "--new-machine", "again", "--target", new)
    assert status(made) == "Completed", json.dumps(made)
    try:
        assert living("vm", "show", "-g", "g", "-n", "again")["properties"]["keepstone"]["machine"] == f"qemu:{new}/qmp"
    finally:
        end(new)
    living("vm", "delete", "-g", "g", "-n", "single", "--yes")


def end(folder: Path) -> None:
    """Of the machine that runs from it."""
    with monitor(folder / "qmp") as ask:
        ask("quit")
