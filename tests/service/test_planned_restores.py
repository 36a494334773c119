# SPDX-License-Identifier: Apache-2.0
"""What the portal plans for machines: each way, what it asks for, and the same in az's words. In the browser it is in
tests/portal/test_restore.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.arm.service import Service
from keepstone.errors import InvalidRequest
from keepstone.identity import Principal
from keepstone.portal.actions.action import Plan
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.api import Client
from keepstone.portal.visit import Visit
from tests.machines.guest import Guest, initramfs, make_disk

from .client import ADDRESS
from .protecting import Vault

pytestmark = [pytest.mark.service, pytest.mark.vm, pytest.mark.portal]
MACHINES = "Microsoft.Compute/virtualMachines"
Planned = Callable[..., Plan]


@pytest.fixture
def point(vault: Vault, tmp_path: Path) -> Iterator[str]:
    """Of a machine of two disks, which stands before its first instruction."""
    kernel, image = initramfs()
    boots = ["-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyS0 quiet panic=-1 no_timer_check"]
    disks = [(f"d{number}", make_disk(tmp_path / f"d{number}.qcow2", 8)) for number in range(2)]
    with Guest(tmp_path, disks, boots=False, extra=boots) as guest:
        (tmp_path / "host").mkdir()
        (tmp_path / "host" / "vm.qmp").symlink_to(guest.qmp)
        held = f"{vault.path}/backupFabrics/Azure/protectionContainers"
        about = {"serviceEndpoints": {"qemu": str(tmp_path / "host")}}
        host = {"properties": {"containerType": "GenericContainer", "extendedInformation": about}}
        vault.client.arm("PUT", f"{held}/GenericContainer;host", host, status=202)
        vault.work()
        ending = f"iaasvmcontainerv2;{vault.group.rpartition('/')[2]};little"
        item = f"{held}/IaasVMContainer;{ending}/protectedItems/VM;{ending}"
        wanted = {
            "protectedItemType": MACHINES,
            "policyId": vault.policy("DefaultPolicy"),
            "sourceResourceId": f"{vault.group}/providers/{MACHINES}/little",
        }
        vault.client.arm("PUT", item, {"properties": wanted}, status=202)
        assert vault.back_up(item)["status"] == "Completed"
        (made,) = vault.points(item)
        yield str(made["id"])


@pytest.fixture
def around(vault: Vault, tmp_path: Path) -> dict[str, str]:
    """A storage account and a network of the vault's group."""
    base = f"{vault.group}/providers"
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "account": ("Microsoft.Storage/storageAccounts", {"keepstone": {"path": str(tmp_path / "out")}}),
        "network": ("Microsoft.Network/virtualNetworks", {"subnets": [{"name": "inner"}]}),
    }
    (tmp_path / "out").mkdir()
    for name, (kind, properties) in kinds.items():
        body = {"location": "onprem1", "properties": properties}
        vault.client.arm("PUT", f"{base}/{kind}/{name}", body, status=201)
    return {name: f"{base}/{kind}/{name}" for name, (kind, _) in kinds.items()}


@pytest.fixture
def planned(vault: Vault, service: Service, principal: Callable[..., Principal], point: str) -> Planned:
    """What is planned for what an Owner gives; it is asked for, and taken on."""
    client = Client(service, principal("Owner"), ADDRESS)

    def plan(**given: str | list[str]) -> Plan:
        form = {name: [value] if isinstance(value, str) else value for name, value in given.items()}
        visit = Visit(
            plane=vault.plane, client=client, path="/do/restore-machine", query={}, form={"id": [point], **form}
        )
        made = ACTIONS["restore-machine"].plan(visit)
        assert client.send(made.request).status == 202
        return made

    return plan


def asked(plan: Plan) -> dict[str, Any]:
    assert plan.request.body is not None
    properties: dict[str, Any] = plan.request.body["properties"]
    return properties


def test_each_way(planned: Planned, point: str, around: dict[str, str], vault: Vault, tmp_path: Path) -> None:
    group, name = vault.group.rpartition("/")[2], point.rpartition("/")[2]
    parts = point.split("/")
    at = ("-g", group, "-v", "vault1", "-c", parts[12], "-i", parts[14])
    az = ["backup", "restore", "restore-disks", *at, "-r", name, "--storage-account", around["account"]]
    az += ["--target-resource-group", group]

    folder = planned(way="folder", target=str(tmp_path / "new"), format="vhdx", disks=["disk1"])
    assert asked(folder)["keepstone"] == {"disks": ["disk1"], "targetPath": str(tmp_path / "new"), "format": "vhdx"}
    assert folder.az == ()
    (command,) = folder.keepstone
    options = ("--disk", "disk1", "--target", str(tmp_path / "new"), "--format", "vhdx", "--yes", name)
    assert command == ("restore", "machine", *at, *options)

    account = planned(way="account", account=around["account"], disks=["disk1"])
    assert asked(account)["recoveryType"] == "RestoreDisks"
    assert [list(one) for one in account.az] == [[*az, "--diskslist", "0"]]
    assert planned(way="account", account=around["account"], format="vmdk").az == ()

    over = planned(way="original", account=around["account"])
    assert asked(over)["recoveryType"] == "OriginalLocation"
    assert [list(one) for one in over.az] == [[*az, "--restore-mode", "OriginalLocation"]]
    assert dict(over.radius)["What is there now"] == "becomes a point first"
    lost = planned(way="original", safety="no")
    assert (asked(lost)["keepstone"], lost.az) == ({"safetyPoint": False}, ())
    assert dict(lost.radius)["What is there now"] == "is lost"

    new = planned(way="new", account=around["account"], machine="again", network=around["network"])
    assert asked(new)["targetVirtualMachineId"] == f"{vault.group}/providers/{MACHINES}/again"
    assert asked(new)["virtualNetworkId"] == around["network"]
    into = ["--target-vm-name", "again", "--target-vnet-name", "network", "--target-vnet-resource-group", group]
    assert [list(one) for one in new.az] == [[*az, *into, "--target-subnet-name", "inner"]]
    (command,) = new.keepstone
    assert command[-6:] == ("--new-machine", "again", "--vnet", around["network"], "--yes", name)
    assert planned(way="new", target=str(tmp_path / "newer"), machine="again").az == ()


def test_what_is_wrong_is_said(planned: Planned) -> None:
    for given, message in (
        ({}, "say where to"),
        ({"way": "account"}, "choose a storage account"),
        ({"way": "original", "format": "vhd"}, "choose no format"),
        ({"way": "new", "target": "/x"}, "to be called"),
        ({"way": "new", "target": "/x", "machine": "a/b"}, "to be called"),
        ({"way": "new", "target": "/x", "machine": "a", "container": "Windows;x"}, "where the old one is"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            planned(**given)
