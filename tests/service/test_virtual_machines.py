# SPDX-License-Identifier: Apache-2.0
"""Hypervisors and their machines: found, protected, restored, and refused. QEMU is real; its guest does not run. What
the Azure CLI makes of it is in tests/az/test_virtual_machines.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keepstone.catalogue import every
from keepstone.control import agents, drills, snapshots
from keepstone.control.sessions import machine as sessions
from keepstone.control.sessions.registry import Registry
from keepstone.errors import Conflict, InvalidRequest
from keepstone.identity import Principal
from keepstone.remote.wire import Begin, Begun, Commit, End, Work, decode, encode
from keepstone.vault import Container
from keepstone.workloads.kvm.kept import forget, named
from keepstone.workloads.kvm.qmp import Monitor
from tests.machines.guest import Guest, initramfs, make_disk, monitor

from .client import Client
from .conftest import Clock
from .exercised import exercises
from .machines import Machine, Register
from .protecting import Vault

pytestmark = [pytest.mark.service, pytest.mark.vm]
MACHINES = "Microsoft.Compute/virtualMachines"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A machine that has been put up and does not go on, with two disks, and what it would boot."""
    folder = tmp_path_factory.mktemp("guest")
    kernel, image = initramfs()
    boots = ["-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyS0 quiet panic=-1 no_timer_check"]
    disks = [(f"d{number}", make_disk(folder / f"d{number}.qcow2", 8)) for number in range(2)]
    with Guest(folder, disks, boots=False, extra=boots) as guest:
        yield guest


@pytest.fixture
def host(guest: Guest, tmp_path: Path) -> Path:
    """A folder that has the machine, and one that is off."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "vm1.qmp").symlink_to(guest.qmp)
    (folder / "off.qmp").touch()
    (folder / "notes").touch()
    return folder


def register(vault: Vault, folder: object, name: str = "host", **more: str) -> Any:
    """Ask for it; what is answered."""
    path = f"{vault.path}/backupFabrics/Azure/protectionContainers/GenericContainer;{name}"
    about = {"containerType": "GenericContainer", "extendedInformation": {"serviceEndpoints": {"qemu": folder, **more}}}
    return vault.client.ask("PUT", path, {"properties": about})


def machines(vault: Vault) -> dict[str, dict[str, Any]]:
    """The properties of the machines of its group, by their names."""
    found = vault.client.arm("GET", f"{vault.group}/providers/{MACHINES}")["value"]
    return {one["name"]: one["properties"] for one in found}


def protect(vault: Vault, name: str, **more: Any) -> Any:
    """Ask for the protection of a machine; its item, or what is answered where it is refused."""
    ending = f"iaasvmcontainerv2;{vault.group.rpartition('/')[2]};{name}"
    path = f"{vault.path}/backupFabrics/Azure/protectionContainers/IaasVMContainer;{ending}/protectedItems/VM;{ending}"
    about = {
        "protectedItemType": MACHINES,
        "policyId": vault.policy("DefaultPolicy"),
        "sourceResourceId": f"{vault.group}/providers/{MACHINES}/{name}",
        **more,
    }
    answered = vault.client.ask("PUT", path, {"properties": about})
    return path if answered.status == 202 else answered


def exclusion(luns: list[Any], *, only: bool) -> dict[str, Any]:
    return {"extendedProperties": {"diskExclusionProperties": {"diskLunList": luns, "isInclusionList": only}}}


def test_machines_are_found(vault: Vault, host: Path) -> None:
    assert register(vault, str(host)).status == 202
    assert machines(vault) == {}

    vault.work()

    found = machines(vault)
    assert set(found) == {"little", "off"}
    assert found["little"]["storageProfile"]["osDisk"] == {"name": "disk0", "diskSizeGB": 1}
    assert found["little"]["storageProfile"]["dataDisks"] == [{"lun": 0, "name": "disk1", "diskSizeGB": 1}]
    assert found["little"]["keepstone"] == {"hypervisor": "GenericContainer;host", "machine": f"qemu:{host}/vm1.qmp"}
    assert "storageProfile" not in found["off"]
    (job,) = vault.client.arm("GET", f"{vault.path}/backupJobs?$filter=operation eq 'DiscoverMachines'")["value"]
    bag = job["properties"]["extendedInfo"]
    assert job["properties"]["status"] == "CompletedWithWarnings", bag
    where = f"{vault.path}/backupProtectionContainers?$filter=containerType eq 'GenericContainer'"
    (shown,) = vault.client.arm("GET", where)["value"]
    assert shown["properties"]["extendedInformation"] == {"serviceEndpoints": {"qemu": str(host)}}


def test_asking_again_waits_for_what_is_found(vault: Vault, host: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    register(vault, str(tmp_path / "empty"))
    vault.work()
    assert register(vault, str(host)).status == 202

    answered = vault.client.ask("POST", f"{vault.path}/backupFabrics/Azure/refreshContainers")

    operation = answered.headers["azure-asyncoperation"].partition("?")[0].rpartition("/")[2]
    status = f"{vault.path}/backupFabrics/Azure/operationsStatus/{operation}"
    assert vault.client.arm("GET", status)["status"] == "InProgress"
    vault.work()
    assert vault.client.arm("GET", status)["status"] == "Succeeded"
    assert set(machines(vault)) == {"little", "off"}


def test_hypervisors_that_are_refused(vault: Vault, host: Path) -> None:
    for folder, message in ((None, "it is missing"), ("relative", "name an absolute folder"), ("/a\0b", "absolute")):
        answered = register(vault, folder)
        assert (answered.status, message in answered.message) == (400, True), answered
    assert register(vault, str(host), name="").status == 400
    assert register(vault, str(host), resourceGroup="nowhere").code == "ResourceGroupNotFound"
    assert "not libvirtd" in register(vault, str(host), libvirtd="x").message
    assert register(vault, str(vault.plane.root)).status == 403
    assert machines(vault) == {}


def test_a_machine_of_the_same_name_is_another_one(vault: Vault, host: Path) -> None:
    other = f"{vault.group}/providers/{MACHINES}/little"
    vault.client.arm("PUT", other, {"location": "onprem1", "properties": {"mine": 1}}, status=201)
    register(vault, str(host))

    vault.work()

    assert machines(vault)["little"] == {"mine": 1, "provisioningState": "Succeeded"}


def test_a_machine_is_one_resource_in_whatever_group(vault: Vault, host: Path) -> None:
    """One that somebody made by its address, or restored, into another group than that of its hypervisor."""
    other = f"{vault.group}-other"
    vault.client.arm("PUT", other, {"location": "onprem1"}, status=201)
    mine = f"{other}/providers/{MACHINES}/mine"
    behind = {"machine": f"qemu:{host}/vm1.qmp"}
    vault.client.arm("PUT", mine, {"location": "onprem1", "properties": {"keepstone": behind}}, status=201)
    register(vault, str(host))

    vault.work()

    assert set(machines(vault)) == {"off"}
    found = vault.client.arm("GET", mine)["properties"]
    assert found["keepstone"] == behind
    assert found["storageProfile"]["osDisk"] == {"name": "disk0", "diskSizeGB": 1}
    vault.client.arm("DELETE", mine)
    vault.client.arm("POST", f"{vault.path}/backupFabrics/Azure/refreshContainers", status=202)
    vault.work()
    assert set(machines(vault)) == {"little", "off"}


def test_places_that_are_gone(vault: Vault, machine: Register, host: Path) -> None:
    """A machine whose agent was taken away, and a group that is locked: the others are found all the same."""
    web = machine()
    register(vault, "/run/vms", name="theirs", host=web.path.rpartition("/")[2])
    name = web.path.rpartition("/")[2]
    vault.client.arm("DELETE", f"{vault.path}/registeredIdentities/{name}", status=204)
    other = f"{vault.group}-locked"
    vault.client.arm("PUT", other, {"location": "onprem1"}, status=201)
    lock = f"{other}/providers/Microsoft.Authorization/locks/lock1"
    vault.client.arm("PUT", lock, {"properties": {"level": "ReadOnly"}}, status=201)
    register(vault, str(host), resourceGroup=other.rpartition("/")[2])
    vault.work()

    vault.client.arm("POST", f"{vault.path}/backupFabrics/Azure/refreshContainers", status=202)
    vault.work()

    jobs = vault.client.arm("GET", f"{vault.path}/backupJobs?$filter=operation eq 'DiscoverMachines'")["value"]
    bag = jobs[0]["properties"]["extendedInfo"]["propertyBag"]
    assert jobs[0]["properties"]["status"] == "CompletedWithWarnings"
    assert "does not become a resource" in str(bag)
    vault.client.arm("DELETE", lock)


def test_disks_are_chosen_by_their_luns(vault: Vault, host: Path, tmp_path: Path) -> None:
    register(vault, str(host))
    vault.work()
    assert (
        "has no data disk of LUN 7; it has 0 (disk1)" in protect(vault, "little", **exclusion([7], only=False)).message
    )
    for wrong in (["x"], "0", [-1], None):
        assert protect(vault, "little", **exclusion(wrong, only=True)).status == 400  # type: ignore[arg-type]
    item = protect(vault, "little", **exclusion(["0"], only=False))
    assert vault.back_up(item)["status"] == "Completed"
    vault.client.arm("PUT", item, {"properties": {
        "protectedItemType": MACHINES, "policyId": vault.policy("DefaultPolicy"), **exclusion([0], only=True)
    }}, status=202)  # fmt: skip
    assert vault.back_up(item)["status"] == "Completed"
    assert vault.show(item)["extendedProperties"] == exclusion([0], only=True)["extendedProperties"]

    newest, oldest = vault.points(item)
    assert oldest["properties"]["recoveryPointType"] == "CrashConsistent"
    for point, disks in ((newest, {"disk0.raw", "disk1.raw"}), (oldest, {"disk0.raw"})):
        target = tmp_path / point["name"]
        job = vault.restore(point, objectType="IaasVMRestoreRequest", recoveryType="RestoreDisks",
                            keepstone={"targetPath": str(target)})  # fmt: skip
        assert job["status"] == "Completed", job
        assert {path.name for path in target.iterdir()} == disks | {"machine.json"}
    assert json.loads((target / "machine.json").read_text())["excluded"] == ["disk1"]


def test_restores_that_are_refused(vault: Vault, host: Path, tmp_path: Path) -> None:
    register(vault, str(host))
    vault.work()
    item = protect(vault, "little")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    account = f"{vault.group}/providers/Microsoft.Storage/storageAccounts/account1"
    vault.client.arm("PUT", account, {"location": "onprem1", "properties": {}}, status=201)

    def refused(**wanted: Any) -> str:
        about = {"objectType": "IaasVMRestoreRequest", "recoveryType": "RestoreDisks", **wanted}
        answered = vault.client.ask("POST", f"{point['id']}/restore", {"properties": about})
        assert answered.status in (400, 403, 404), answered
        return str(answered.message)

    assert "RestoreDisks, OriginalLocation" in refused(recoveryType="Teleport")
    assert "has to be the id of a storage account" in refused()
    assert "was not found" in refused(storageAccountId=account + "2")
    assert "stands for no folder" in refused(storageAccountId=account)
    assert "no data disk of LUN 3" in refused(restoreDiskLunList=[3], keepstone={"targetPath": str(tmp_path)})
    assert "no format 'zip'" in refused(keepstone={"targetPath": str(tmp_path), "format": "zip"})
    assert "own folder" in refused(keepstone={"targetPath": str(vault.plane.root / "x")})
    hostile: list[Any] = [5, [], "x", {"disks": 5}, {"disks": [5]}, {"targetPath": 5}, {"safetyPoint": "x"}]
    for one in hostile:
        assert "properties.keepstone" in refused(keepstone=one)
    for key in ("storageAccountId", "targetVirtualMachineId", "virtualNetworkId"):
        assert f"properties.{key}" in refused(**{key: 5})
    assert "name an absolute path" in refused(keepstone={"targetPath": "/a\0b"})
    assert "restored by IaasVMRestoreRequest" in refused(objectType="ImageRestoreRequest")
    job = vault.restore(point, objectType="IaasVMRestoreRequest", recoveryType="RestoreDisks",
                        keepstone={"targetPath": str(tmp_path / "new"), "disks": ["disk9"]})  # fmt: skip
    assert job["status"] == "Failed"
    assert "the point has no disk disk9" in job["errorDetails"][0]["errorString"]
    assert not (tmp_path / "new").exists()


@exercises("keepstone.drill", "keepstone.drills", "keepstone.drill_screenshot")
def test_a_drill(vault: Vault, host: Path, clock: Clock) -> None:
    register(vault, str(host))
    vault.work()
    policy = vault.client.arm("GET", vault.policy("DefaultPolicy"))["properties"]
    every = {"properties": {**policy, "keepstone": {"drillEveryDays": 7}}}
    vault.client.arm("PUT", vault.policy("Drilled"), every)
    item = protect(vault, "little", policyId=vault.policy("Drilled"))
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    assert "drill" not in point["properties"]["keepstone"]
    assert drills.ask_due(vault.plane) == 1
    assert drills.ask_due(vault.plane) == 0
    refused = vault.client.refused("POST", f"{point['id']}/drill", status=409)
    assert "wait for its job" in refused.message

    vault.work()

    (drill,) = vault.client.arm("GET", f"{item}/drills")["value"]
    about = drill["properties"]
    assert (about["recoveryPoint"], about["level"], about["shutDown"]) == (point["name"], "agent", True)
    assert 0 < about["secondsToRecover"] < about["total"]
    assert {one["state"] for one in about["fileSystems"]} == {"readable", "mounted"}
    (again,) = vault.points(item)
    assert again["properties"]["keepstone"]["drill"]["level"] == "agent"
    path = f"{vault.path}/backupFabrics{drill['id'].partition('/backupFabrics')[2]}/screenshot?api-version=2024-04-01"
    picture = vault.client.raw("GET", path)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    assert picture.content.startswith(b"\x89PNG")
    vault.client.refused("GET", f"{item}/drills/none/screenshot", status=404)
    assert drills.ask_due(vault.plane) == 0
    clock.ahead += timedelta(days=8)
    try:
        assert drills.ask_due(vault.plane) == 1
    finally:
        clock.ahead = timedelta()


def test_policies_whose_drills_are_none(vault: Vault) -> None:
    policy = vault.client.arm("GET", vault.policy("DefaultPolicy"))["properties"]
    for days in (0, 367, "x", None):
        body = {"properties": {**policy, "keepstone": {"drillEveryDays": days}}}
        assert vault.client.ask("PUT", vault.policy("Wrong"), body).status == 400
    files = vault.client.arm("GET", vault.policy("FilesPolicy"))["properties"]
    body = {"properties": {**files, "keepstone": {"drillEveryDays": 3}}}
    assert "in a policy of AzureIaasVM" in vault.client.refused("PUT", vault.policy("Wrong"), body, status=400).message


def test_new_machines_that_are_refused(
    vault: Vault,
    host: Path,
    tmp_path: Path,
    client_of: Callable[[Principal | None], Client],
    principal: Callable[..., Principal],
) -> None:
    register(vault, str(host))
    vault.work()
    item = protect(vault, "little")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    network = f"{vault.group}/providers/Microsoft.Network/virtualNetworks/net"
    wrong = {"location": "onprem1", "properties": {"keepstone": {"network": "bridge=a b"}}}
    vault.client.arm("PUT", network, wrong, status=201)

    def refused(name: str, **wanted: Any) -> str:
        about = {
            "objectType": "IaasVMRestoreRequest",
            "recoveryType": "AlternateLocation",
            "targetVirtualMachineId": name,
            "keepstone": {"targetPath": str(tmp_path / "new")},
            **wanted,
        }
        answered = vault.client.ask("POST", f"{point['id']}/restore", {"properties": about})
        assert answered.status in (400, 403, 404), answered
        return str(answered.message)

    base = f"{vault.group}/providers/{MACHINES}"
    assert "has to be the id that the new machine gets" in refused("new")
    assert "has to be the id that the new machine gets" in refused(
        f"/subscriptions/x/resourceGroups/y/providers/{MACHINES}/z"
    )
    assert "'little' already" in refused(f"{base}/little")
    assert "is no name for a machine" in refused(f"{base}/a b")
    assert "was not found" in refused(f"{base}/new", virtualNetworkId=network + "2")
    assert "stands for 'bridge=a b'" in refused(f"{base}/new", virtualNetworkId=network)
    assert "own folder" in refused(f"{base}/new", keepstone={"targetPath": str(vault.plane.root / "x")})
    assert "name an absolute path" in refused(f"{base}/new", keepstone={"targetPath": "/a\0b"})
    operator = client_of(principal("Backup Operator", scope=vault.path))
    about = {"objectType": "IaasVMRestoreRequest", "recoveryType": "AlternateLocation",
             "targetVirtualMachineId": f"{base}/new", "keepstone": {"targetPath": str(tmp_path / "new")}}  # fmt: skip
    told = operator.refused("POST", f"{point['id']}/restore", {"properties": about}, status=403)
    assert "virtualMachines/write" in told.message
    assert not (tmp_path / "new").exists()
    assert set(machines(vault)) == {"little", "off"}


def test_disks_go_back_into_the_machine(vault: Vault, host: Path, guest: Guest) -> None:
    """Which stands, and goes on standing; the safety point is one of the item's."""
    register(vault, str(host))
    vault.work()
    item = protect(vault, "little")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)

    job = vault.restore(point, objectType="IaasVMRestoreRequest", recoveryType="OriginalLocation")

    assert job["status"] == "Completed", job
    bag = job["extendedInfo"]["propertyBag"]
    safety, first = vault.points(item)
    assert (first["name"], safety["name"]) == (point["name"], bag["Recovery Point"])
    assert bag["New Bytes"] == "0"
    assert vault.show(item)["lastRecoveryPoint"] == safety["properties"]["recoveryPointTime"]
    job = vault.restore(point, objectType="IaasVMRestoreRequest", recoveryType="OriginalLocation",
                        keepstone={"safetyPoint": False})  # fmt: skip
    assert job["status"] == "Completed", job
    assert len(vault.points(item)) == 2
    with monitor(guest.qmp) as ask:
        assert ask("query-status")["running"] is False


def tiers(vault: Vault, item: str) -> list[list[str]]:
    """In which tiers each point is, the newest first."""
    told = [point["properties"]["recoveryPointTierDetails"] for point in vault.points(item)]
    assert {tier["status"] for details in told for tier in details} == {"Valid"}
    return [[tier["type"] for tier in details] for details in told]


def test_snapshots_that_stay_on_the_host(
    vault: Vault, host: Path, guest: Guest, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(vault, str(host))
    vault.work()
    item = protect(vault, "little")
    assert vault.back_up(item)["status"] == "Completed"
    monkeypatch.setattr(vault.plane, "snapshots", tmp_path)
    assert vault.back_up(item)["status"] == "Completed"
    assert vault.back_up(item)["status"] == "Completed"
    both, one = ["InstantRP", "HardenedRP"], ["HardenedRP"]
    assert tiers(vault, item) == [both, both, one]
    shown = vault.client.arm("GET", vault.points(item)[1]["id"])["properties"]
    assert [tier["type"] for tier in shown["recoveryPointTierDetails"]] == both

    def restored(number: int, name: str) -> tuple[str | None, list[bytes]]:
        """What came from a snapshot, and the disks."""
        target = tmp_path / name
        job = vault.restore(vault.points(item)[number], objectType="IaasVMRestoreRequest",
                            recoveryType="RestoreDisks", keepstone={"targetPath": str(target)})  # fmt: skip
        assert job["status"] == "Completed", job
        bag = job["extendedInfo"]["propertyBag"]
        return bag.get("Bytes From Snapshot"), [(target / f"disk{disk}.raw").read_bytes() for disk in range(2)]

    near, disks = restored(1, "near")
    assert int(near or 0) > 0
    assert restored(2, "far") == (None, disks)

    clock.ahead += timedelta(days=1, hours=23)
    try:
        snapshots.look_all(vault.plane)
    finally:
        clock.ahead = timedelta()
    assert tiers(vault, item) == [both, both, one]
    clock.ahead += timedelta(days=2, hours=1)
    try:
        snapshots.look_all(vault.plane)
    finally:
        clock.ahead = timedelta()
    assert tiers(vault, item) == [one, one, one]

    assert vault.back_up(item)["status"] == "Completed"
    assert tiers(vault, item) == [both, one, one, one]
    job = vault.restore(vault.points(item)[0], objectType="IaasVMRestoreRequest", recoveryType="OriginalLocation")
    assert job["status"] == "CompletedWithWarnings", job
    assert "1 snapshots that QEMU kept of the machine went" in str(job["extendedInfo"]["propertyBag"])
    assert tiers(vault, item) == [one] * 5

    assert vault.back_up(item)["status"] == "Completed"
    with Monitor(vault.plane.env, guest.qmp) as asked:
        forget(asked, "", lambda _: True)  # as if QEMU had been started anew
    assert tiers(vault, item)[0] == both
    assert restored(0, "gone") == (None, disks)
    assert tiers(vault, item)[0] == one

    assert vault.back_up(item)["status"] == "Completed"
    (host / "vm1.qmp").rename(host / "away")
    snapshots.look_all(vault.plane)  # QEMU has ended, as far as one can see
    (host / "away").rename(host / "vm1.qmp")
    assert tiers(vault, item)[0] == one

    assert vault.back_up(item)["status"] == "Completed"
    assert tiers(vault, item)[0] == both
    vault.client.arm("POST", f"{item}/releaseSnapshots", status=202)
    vault.work()
    assert tiers(vault, item)[0] == one
    with monitor(guest.qmp) as ask:
        assert not [node for node in ask("query-named-block-nodes", flat=True) if named(node["node-name"])]

    assert vault.back_up(item)["status"] == "Completed"
    vault.client.arm("DELETE", item, status=202)
    snapshots.look_all(vault.plane)
    with monitor(guest.qmp) as ask:
        assert not [node for node in ask("query-named-block-nodes", flat=True) if named(node["node-name"])]


def test_an_agent_tells_of_a_hypervisor(vault: Vault, machine: Register, host: Path) -> None:
    """What it says is looked at: it is somebody else's machine."""
    web = machine()
    assert register(vault, "/run/vms", name="theirs", host=web.path.rpartition("/")[2]).status == 202
    register(vault, str(host))
    vault.work()
    assert set(machines(vault)) == {"little", "off"}

    work = sessions.claim(vault.plane, web.id)

    assert work is not None
    assert (work.operation, work.item) == ("DiscoverMachines", "")
    assert work.source == {"qemu": "/run/vms", "host": web.path.rpartition("/")[2]}
    good = {"name": "db", "address": {"machine": "qemu:/run/vms/db.qmp"}, "disks": [{"name": "vda", "size": 5}]}
    ours = f"{vault.group}/providers/{MACHINES}/ours"  # at the same place of another machine: the service's own
    vault.client.arm("PUT", ours, {"location": "onprem1", "properties": {"keepstone": good["address"]}}, status=201)
    hostile: list[dict[str, Any]] = [
        {},
        good | {"name": "x" * 300},
        good | {"disks": [{"name": "../a", "size": 5}]},
        good | {"disks": [{"name": "a", "size": "5"}]},
        good | {"address": {"machine": "qemu:relative"}},
        good | {"address": {"machine": "libvirt:1", "connect": "qemu+ssh://there/system"}},
        good | {"name": "little", "address": {"machine": f"qemu:{host}/vm1.qmp"}},  # one of another hypervisor
    ]
    said = End(job=work.job, token=work.token, status="Completed", found=[good, *hostile])
    sessions.end(vault.plane, web.id, said)
    job = vault.client.arm("GET", f"{vault.path}/backupJobs/{work.job}")["properties"]
    bag = job["extendedInfo"]["propertyBag"]
    assert (job["status"], len([key for key in bag if key.startswith("Warning")])) == ("CompletedWithWarnings", 7)
    found = machines(vault)
    assert set(found) == {"db", "little", "off", "ours"}
    assert "storageProfile" not in found["ours"]
    assert found["db"]["keepstone"]["host"] == web.path.rpartition("/")[2]
    assert "host" not in found["little"]["keepstone"]
    item = protect(vault, "db")
    vault.client.arm("POST", f"{item}/backup", {"properties": {"objectType": "IaasVMBackupRequest"}}, status=202)
    vault.work()  # which is not this agent
    backup = sessions.claim(vault.plane, web.id)
    assert backup is not None
    assert backup.source == {"path": "/run/vms/db.qmp", "machine": "qemu:/run/vms/db.qmp"}

    sessions.end(vault.plane, web.id, End(job=backup.job, token=backup.token, status="Failed", code="X", message="x"))
    vault.client.arm("DELETE", web.path, status=202)  # it holds nothing: the items are those of its machines
    gone = vault.client.refused("POST", f"{item}/backup", {"properties": {}}, status=409)
    assert "is not registered any more" in gone.message
    with vault.plane.look() as connection:
        (held,) = [one for one in every(connection, Container) if one.friendly == "db" and one.vault == vault.uuid]
        assert agents.machine_of(connection, held) == held.id  # nobody's, and so not the service's own


@pytest.mark.parametrize("behind", [5, "x", [], {}, {"machine": 5}, {"machine": "qemu:relative"}, {"agent": {}}])
@pytest.mark.parametrize("profile", [5, {"osDisk": 5, "dataDisks": 5}, {"dataDisks": [5, {"lun": []}]}])
def test_resources_that_make_no_sense(vault: Vault, host: Path, behind: object, profile: object) -> None:
    """Anybody who may write resources writes what he likes: it is in nobody's way."""
    wrong = f"{vault.group}/providers/{MACHINES}/wrong"
    about = {"keepstone": behind, "storageProfile": profile}
    vault.client.arm("PUT", wrong, {"location": "onprem1", "properties": about}, status=201)
    assert register(vault, str(host)).status == 202
    vault.work()
    assert set(machines(vault)) == {"little", "off", "wrong"}
    answered = protect(vault, "wrong", **exclusion([0], only=False))
    assert answered.status == 400, answered


def test_a_machine_that_is_gone(vault: Vault, host: Path) -> None:
    register(vault, str(host))
    vault.work()
    item = protect(vault, "off")

    job = vault.back_up(item)

    assert job["status"] == "Failed"
    assert "is not there; is the machine running?" in job["errorDetails"][0]["errorString"]
    assert vault.points(item) == []


class ByHand:
    """What the agent of a host does, which has one machine, `db`."""

    def __init__(self, vault: Vault, host: Machine) -> None:
        self.vault, self.host = vault, host
        self.registry = Registry(vault.plane)
        name = host.path.rpartition("/")[2]
        register(vault, "/run/vms", host=name)
        look = self.claimed()
        self.db = {"name": "db", "address": {"machine": "qemu:/run/vms/db.qmp"}, "disks": [{"name": "vda", "size": 5}]}
        self.end(look, self.db)
        self.item = protect(vault, "db")
        self.commit(self.begin(self.asked(f"{self.item}/backup")))
        (self.point,) = vault.points(self.item)

    def claimed(self) -> Work:
        work = sessions.claim(self.vault.plane, self.host.id)
        assert work is not None
        return work

    def asked(self, path: str, **properties: Any) -> Work:
        """Ask for something, and take it."""
        assert self.vault.client.ask("POST", path, {"properties": properties}).status == 202
        return self.claimed()

    def restore(self, **wanted: Any) -> Work:
        return self.asked(f"{self.point['id']}/restore", objectType="IaasVMRestoreRequest", **wanted)

    def begin(self, work: Work) -> str:
        asked = encode(Begin(job=work.job, token=work.token, kind="machine"))
        return decode(self.registry.ask(self.host.id, "begin", "", 0, memoryview(asked)), Begun).session

    def commit(self, session: str, detail: bytes = b"") -> None:
        said = Commit(records=0, root=b"", detail=detail, source=b"/", logical=0, read=0, files=0, warnings=0)
        self.registry.ask(self.host.id, "commit", session, 0, memoryview(encode(said)))

    def end(self, work: Work, *found: dict[str, Any]) -> dict[str, Any]:
        """Say that it is done; what became of it."""
        said = End(job=work.job, token=work.token, status="Completed", found=[*found])
        sessions.end(self.vault.plane, self.host.id, said)
        path = f"{self.vault.path}/backupJobs/{work.job}"
        ended: dict[str, Any] = self.vault.client.arm("GET", path)["properties"]
        return ended


@pytest.fixture
def by_hand(vault: Vault, machine: Register) -> Iterator[ByHand]:
    made = ByHand(vault, machine())
    yield made
    made.registry.close()


def test_an_agent_makes_one_safety_point(by_hand: ByHand, clock: Clock) -> None:
    """For the restore that it holds, which goes on after it, also in the hands of another attempt."""
    vault, item = by_hand.vault, by_hand.item

    work = by_hand.restore(recoveryType="OriginalLocation")

    assert (work.operation, work.arguments["mode"], work.arguments["safety"]) == ("Restore", "OriginalLocation", True)
    by_hand.commit(by_hand.begin(work))
    safety, first = vault.points(item)
    assert first["name"] == by_hand.point["name"]
    with pytest.raises(Conflict, match="is made already"):
        by_hand.begin(work)
    clock.ahead = timedelta(minutes=5)  # and it says nothing any more
    try:
        again = by_hand.claimed()
    finally:
        clock.ahead = timedelta()
    assert (again.job, again.attempt, again.arguments["safety"]) == (work.job, 2, False)
    ended = by_hand.end(again)
    assert (ended["status"], ended["extendedInfo"]["propertyBag"]["Recovery Point"]) == ("Completed", safety["name"])
    without = by_hand.restore(recoveryType="OriginalLocation", keepstone={"safetyPoint": False})
    with pytest.raises(InvalidRequest, match="makes no point"):
        by_hand.begin(without)
    assert by_hand.end(without)["status"] == "Completed"
    assert len(vault.points(item)) == 2


def test_an_agent_tells_of_a_new_machine(by_hand: ByHand) -> None:
    """Its name is what was asked for, its host that of the agent; one that has got the name meanwhile keeps it."""
    vault = by_hand.vault

    def made(name: str, *found: dict[str, Any], meanwhile: bool = False) -> list[str]:
        target = f"{vault.group}/providers/{MACHINES}/{name}"
        wanted: dict[str, Any] = {"recoveryType": "AlternateLocation", "targetVirtualMachineId": target}
        work = by_hand.restore(**wanted, keepstone={"targetPath": "/srv/new"})
        assert (work.arguments["mode"], work.arguments["target"]) == ("AlternateLocation", "/srv/new")
        if meanwhile:
            vault.client.arm("PUT", target, {"location": "onprem1", "properties": {}}, status=201)
        ended = by_hand.end(work, *found)
        bag = ended["extendedInfo"]["propertyBag"]
        told = [text for key, text in bag.items() if key.startswith("Warning")]
        assert ended["status"] == ("CompletedWithWarnings" if told else "Completed")
        return told

    new = {"name": "whatever", "address": {"machine": "qemu:/srv/new/qmp"}, "disks": [{"name": "vda", "size": 1 << 30}]}
    assert made("new", new) == []
    assert "tells of 0 machines" in made("none")[0]
    assert "tells of 2 machines" in made("two", new, new)[0]
    assert "has to be an absolute path" in made("bad", new | {"address": {"machine": "qemu:x"}})[0]
    assert "there is a virtual machine 'taken' by now" in made("taken", new, meanwhile=True)[0]

    found = machines(vault)
    assert set(found) == {"db", "new", "taken"}
    assert found["new"]["keepstone"] == {"machine": "qemu:/srv/new/qmp", "host": found["db"]["keepstone"]["host"]}
    assert "keepstone" not in found["taken"]
    assert found["new"]["storageProfile"]["osDisk"] == {"name": "vda", "diskSizeGB": 1}
