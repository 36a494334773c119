# SPDX-License-Identifier: Apache-2.0
"""The whole life of a virtual machine's item: a real guest of QEMU, and the Azure CLI."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machines.guest import Guest, Shell, make_disk, monitor

from .running import Az
from .serving import LOCATION, Server

pytestmark = [pytest.mark.service, pytest.mark.vm]

GROUP, VAULT = "machines", "machines"
IN = f"-g {GROUP} -v {VAULT}"
WEB = f"{IN} -c web -i web"
VM = "--backup-management-type AzureIaasVM --workload-type VM"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A machine of three disks; its system's is the one that it writes to."""
    folder = tmp_path_factory.mktemp("web")
    disks = [(f"d{number}", make_disk(folder / f"d{number}.qcow2", 24)) for number in range(3)]
    with Guest(folder, disks) as guest:
        guest.sh("echo one > /a/file; echo data > /b/file; sync")
        yield guest


@pytest.fixture(scope="module")
def vault(az: Az, server: Server, guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a vault whose hypervisor has the machine."""
    az(f"group create -n {GROUP} -l {LOCATION}")
    az(f"backup vault create -g {GROUP} -n {VAULT} -l {LOCATION}")
    folder = tmp_path_factory.mktemp("sockets")
    (folder / "web.qmp").symlink_to(guest.qmp)
    (folder / "web.qga").symlink_to(guest.qga)
    server.keepstone(f"hypervisor register {IN} -n host", "--qemu", str(folder))
    return server.vault(GROUP, VAULT)


def finish(az: Az, server: Server, job: dict[str, Any]) -> dict[str, Any]:
    """The job at its end, which went well."""
    server.settle(job["name"])
    az(f"backup job wait {IN} -n {job['name']}")
    done: dict[str, Any] = az(f"backup job show {IN} -n {job['name']}")
    assert done["properties"]["status"] == "Completed", json.dumps(done)
    return done


def test_a_life(az: Az, server: Server, vault: str, guest: Guest, tmp_path: Path) -> None:
    (machine,) = az(f"vm list -g {GROUP}")
    assert machine["name"] == "little"
    assert [disk["lun"] for disk in machine["storageProfile"]["dataDisks"]] == [0, 1]
    vm = machine["id"]
    assert not az(f"backup protection check-vm --vm {vm}")

    configured = az(
        f"backup protection enable-for-vm {IN} --vm {vm} -p DefaultPolicy --disk-list-setting exclude --diskslist 1"
    )

    assert configured["properties"]["status"] == "Completed"
    assert az(f"backup protection check-vm --vm {vm}").casefold() == vault.casefold()
    little = f"{IN} -c little -i little"
    first = finish(az, server, az(f"backup protection backup-now {little} {VM} --retain-until 31-12-2199"))
    (point,) = az(f"backup recoverypoint list {little} {VM}")
    assert point["properties"]["recoveryPointType"] == "AppConsistent"
    assert first["properties"]["operation"] == "Backup"

    updated = az(f"backup protection update-for-vm {little} --disk-list-setting resetexclusionsettings")
    assert updated["properties"]["status"] == "Completed"
    guest.sh("echo two > /a/file; sync")
    second = finish(az, server, az(f"backup protection backup-now {little} {VM} --retain-until 31-12-2199"))
    assert "Warning 1" not in second["properties"]["extendedInfo"]["propertyBag"]
    newest, oldest = az(f"backup recoverypoint list {little} {VM}")
    assert oldest["name"] == point["name"]
    assert newest["properties"]["keepstone"]["newBytes"] < 4 << 20

    folder = tmp_path / "restored"
    folder.mkdir()
    server.keepstone(f"storage create -g {GROUP} -n account", "--path", str(folder), "--format", "qcow2")
    restore = f"backup restore restore-disks {little} --storage-account account --target-resource-group {GROUP}"
    finish(az, server, az(f"{restore} -r {oldest['name']}"))
    finish(az, server, az(f"{restore} -r {newest['name']} --restore-only-osdisk true"))
    by_count = sorted(folder.iterdir(), key=lambda path: -len(list(path.iterdir())))
    assert [sorted(path.name for path in one.iterdir()) for one in by_count] == [
        ["disk0.qcow2", "disk1.qcow2", "machine.json"],
        ["disk0.qcow2", "machine.json"],
    ]
    assert [content(one / "disk0.qcow2") for one in by_count] == ["one\n", "two\n"]
    described = json.loads((by_count[0] / "machine.json").read_text())
    assert (described["name"], described["excluded"]) == ("little", ["disk2"])

    here = tmp_path / "here"
    here.mkdir()
    at = f"{little} -r {newest['name']}"
    ran = az.run(f"backup restore files mount-rp {at}", folder=here)
    assert ran.code == 0, ran
    (script,) = here.iterdir()
    password = ran.err.rpartition("Use password ")[2].split()[0]
    assert password not in script.read_text()
    assert password not in script.name
    assert attached(script, password) == {"disk0/file": "two\n", "disk1/file": "data\n"}
    assert "the password is wrong" in refused(script, password[::-1])
    assert az.run(f"backup restore files unmount-rp {at}").code == 0  # it waits until nobody gets anything
    assert "the session may be over" in refused(script, password)

    guest.sh("echo three > /a/file; sync")
    put_back = finish(az, server, az(f"{restore} -r {newest['name']} --restore-mode OriginalLocation"))
    guest.again()
    assert guest.sh("cat /a/file") == "two\n"
    safety = az(f"backup recoverypoint list {little} {VM}")[0]
    assert put_back["properties"]["extendedInfo"]["propertyBag"]["Recovery Point"] == safety["name"]

    network = f"-g {GROUP} -n net --resource-type Microsoft.Network/virtualNetworks"
    az(f"resource create {network} --properties", json.dumps({"subnets": [{"name": "default"}]}))
    into = "--target-vm-name again --target-vnet-name net --target-subnet-name default"
    finish(az, server, az(f"{restore} -r {safety['name']} {into} --target-vnet-resource-group {GROUP}"))
    new = az(f"resource show -g {GROUP} -n again --resource-type Microsoft.Compute/virtualMachines")["properties"][
        "keepstone"
    ]
    try:
        with Shell(Path(new["agent"])) as shell:
            assert shell.sh("cat /a/file") == "three\n"
    finally:
        with monitor(Path(new["machine"].removeprefix("qemu:"))) as ask:
            ask("quit")

    stopped = az(f"backup protection disable {little} {VM} --yes")
    assert stopped["properties"]["operation"] == "DisableBackup"
    az(f"backup protection resume {little} {VM} -p DefaultPolicy")
    deleted = az(f"backup protection disable {little} {VM} --delete-backup-data true --yes")
    assert deleted["properties"]["operation"] == "DeleteBackupData"
    az(f"backup protection undelete {little} {VM}")
    assert len(az(f"backup recoverypoint list {little} {VM}")) == 3


def content(image: Path) -> str:
    """What is in the file of a disk's file system."""
    raw = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    subprocess.run(["e2fsck", "-fn", raw], check=True, capture_output=True)
    return subprocess.run(["debugfs", "-R", "cat file", raw], check=True, capture_output=True, text=True).stdout


def attached(script: Path, password: str) -> dict[str, str]:
    """What is in the files that a script shows; it is ended then, and has left nothing."""
    folder = script.parent / "attached"
    command = ["sh", str(script), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f"{password}\n")
        process.stdin.flush()
        said = []
        for line in process.stderr:
            said.append(line)
            if "Press Enter" in line:
                break
        found = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.glob("*/file"))}
        _, rest = process.communicate("\n", timeout=60)
        assert process.returncode == 0, "".join([*said, rest])
    assert not folder.exists()
    return found


def refused(script: Path, password: str) -> str:
    """What a script says that attaches nothing."""
    command = ["sh", str(script), str(script.parent / "refused")]
    done = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done
    assert not (script.parent / "refused").exists()
    return done.stderr


def test_a_policy_asks_for_drills(az: Az, server: Server, vault: str) -> None:
    """az takes our own property along, as the page says."""
    policy = az(f"backup policy show {IN} -n DefaultPolicy")
    policy["properties"]["keepstone"] = {"drillEveryDays": 7}

    az(f"backup policy set {IN} -n DefaultPolicy --policy", json.dumps(policy))

    shown = server.keepstone(f"policy show {IN} -n DefaultPolicy")
    assert shown["properties"]["keepstone"] == {"drillEveryDays": 7}
