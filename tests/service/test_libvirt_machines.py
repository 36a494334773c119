# SPDX-License-Identifier: Apache-2.0
"""Domains of a libvirt of the tests' own, as items of a vault: found, backed up, and made into new machines."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.control import snapshots
from keepstone.disks.nbd import NbdSink
from keepstone.errors import JobCancelled
from keepstone.workloads.libvirt import Virsh, destroy, find, undefine
from tests.libvirt.conftest import daemon
from tests.libvirt.daemon import Daemon, Little
from tests.libvirt.still import Still
from tests.machines.guest import make_disk

from .protecting import Vault
from .test_virtual_machines import MACHINES, machines, protect, tiers

__all__ = ["daemon"]

pytestmark = [pytest.mark.service, pytest.mark.vm]


@pytest.fixture(scope="module")
def little(daemon: Daemon) -> Iterator[Little]:
    folder = daemon.folder / "little"
    folder.mkdir()
    little = Little(
        daemon, [("vda", make_disk(folder / "d0.qcow2", 24)), ("vdb", make_disk(folder / "d1.qcow2", 24))], "little"
    )
    little.agent()
    yield little
    little.close()


def register(vault: Vault, daemon: Daemon) -> None:
    path = f"{vault.path}/backupFabrics/Azure/protectionContainers/GenericContainer;libvirt"
    about: dict[str, Any] = {"containerType": "GenericContainer"}
    about["extendedInformation"] = {"serviceEndpoints": {"libvirt": daemon.uri}}
    vault.client.arm("PUT", path, {"properties": about}, status=202)
    vault.work()


def test_from_a_domain_to_another_one(vault: Vault, daemon: Daemon, little: Little, tmp_path: Path) -> None:
    little.sh("echo one > /a/file; sync")
    register(vault, daemon)
    (found,) = [one for name, one in machines(vault).items() if name == "little"]
    assert found["storageProfile"]["dataDisks"] == [{"lun": 0, "name": "vdb", "diskSizeGB": 1}]
    item = protect(vault, "little")
    assert vault.back_up(item)["status"] == "Completed"
    little.sh("echo two > /a/file; sync")
    second = vault.back_up(item)
    assert second["status"] == "Completed", second
    newest, oldest = vault.points(item)
    assert newest["properties"]["recoveryPointType"] == "AppConsistent"
    assert newest["properties"]["keepstone"]["newBytes"] < 8 << 20

    drill = vault.job(f"{newest['id']}/drill", {})
    assert (drill["status"], drill["extendedInfo"]["propertyBag"]["Target"][:15]) == ("Completed", "the guest agent")

    little.sh("rm /a/file; sync")
    assert oldest["properties"]["keepstone"]["filesIntoGuest"] is True
    files = {"objectType": "FilesRestoreRequest", "recoveryType": "OriginalLocation", "paths": ["vda/0/file"]}
    job = vault.restore(oldest, **files)
    assert job["status"] == "Completed", job
    assert little.sh("cat /a/file") == "one\n"

    little.sh("echo three > /a/file; sync")
    wanted = {"objectType": "IaasVMRestoreRequest", "keepstone": {"targetPath": str(tmp_path / "new")}}
    replaced = vault.restore(oldest, **wanted, recoveryType="OriginalLocation")
    assert replaced["status"] == "Completed", replaced
    little.again()
    assert little.sh("cat /a/file") == "one\n"
    safety, *_ = vault.points(item)
    assert len(vault.points(item)) == 3
    assert replaced["extendedInfo"]["propertyBag"]["Recovery Point"] == safety["name"]
    little.agent()
    after = vault.back_up(item)
    assert after["status"] == "Completed", after
    assert vault.points(item)[0]["properties"]["keepstone"]["newBytes"] < 8 << 20

    target = f"{vault.group}/providers/{MACHINES}/again"
    network = f"{vault.group}/providers/Microsoft.Network/virtualNetworks/net"
    stands_for = {"location": "onprem1", "properties": {"keepstone": {"network": "user"}}}
    vault.client.arm("PUT", network, stands_for, status=201)
    job = vault.restore(
        oldest, **wanted, recoveryType="AlternateLocation", targetVirtualMachineId=target, virtualNetworkId=network
    )

    assert job["status"] == "Completed", job
    virsh = Virsh(daemon.uri)
    again = find(virsh, "again")
    try:
        assert again.runs
        assert {Path(disk.source).parent for disk in again.disks} == {tmp_path / "new"}
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o711  # libvirt's QEMU may be another user
        (card,) = ET.fromstring(virsh.ask("dumpxml", again.uuid)).iterfind("devices/interface")
        assert card.get("type") == "user"
        assert machines(vault)["again"]["keepstone"]["machine"] == f"libvirt:{again.uuid}"
        assert find(virsh, "little").uuid != again.uuid

        vault.client.arm("DELETE", target, status=200)
        elsewhere = {**wanted, "keepstone": {"targetPath": str(tmp_path / "newer")}}
        job = vault.restore(oldest, **elsewhere, recoveryType="AlternateLocation", targetVirtualMachineId=target)
        assert job["status"] == "Failed"
        assert "has a machine again already" in str(job["errorDetails"])
        assert not (tmp_path / "newer").exists()
    finally:
        destroy(virsh, again.uuid)
        undefine(virsh, again.uuid)


def test_snapshots_that_stay_on_the_host(
    vault: Vault, daemon: Daemon, little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(vault, daemon)
    item = protect(vault, "little")
    monkeypatch.setattr(vault.plane, "snapshots", tmp_path)
    little.sh("dd if=/dev/urandom of=/a/noise bs=1M count=8 2>/dev/null; sync")
    assert vault.back_up(item)["status"] == "Completed"
    both, one = ["InstantRP", "HardenedRP"], ["HardenedRP"]
    assert tiers(vault, item) == [both]
    little.sh("dd if=/dev/urandom of=/a/noise bs=1M count=4 conv=notrunc 2>/dev/null; sync")

    def restored(name: str) -> tuple[int, list[bytes]]:
        """What came from a snapshot, and the disks."""
        target = tmp_path / name
        wanted = {"objectType": "IaasVMRestoreRequest", "keepstone": {"targetPath": str(target)}}
        job = vault.restore(vault.points(item)[0], **wanted, recoveryType="RestoreDisks")
        assert job["status"] == "Completed", job
        taken = int(job["extendedInfo"]["propertyBag"].get("Bytes From Snapshot", 0))
        return taken, [(target / f"{disk}.raw").read_bytes() for disk in ("vda", "vdb")]

    near, disks = restored("near")
    assert near > 8 << 20
    daemon.stop()
    snapshots.look_all(vault.plane)  # which says nothing about QEMU
    daemon.start()
    assert tiers(vault, item) == [both]

    vault.client.arm("POST", f"{item}/releaseSnapshots", status=202)
    vault.work()
    assert tiers(vault, item) == [one]
    assert restored("far") == (0, disks)

    assert vault.back_up(item)["status"] == "Completed"
    assert tiers(vault, item) == [both, one]
    little.destroy()
    snapshots.look_all(vault.plane)
    assert tiers(vault, item) == [one, one]
    little.start()
    little.agent()


def test_cancelled_in_the_middle(vault: Vault, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever did that hears how the machine is, and the same again goes on."""
    still = Still(daemon, tmp_path, "still")
    try:
        still.write("vda", "write -P 1 0 1M")
        register(vault, daemon)
        item = protect(vault, "still")
        assert vault.back_up(item)["status"] == "Completed"
        (point,) = vault.points(item)
        still.write("vda", "write -P 2 0 2M")
        back = {"objectType": "IaasVMRestoreRequest", "recoveryType": "OriginalLocation"}

        def finish(self: NbdSink) -> None:
            raise JobCancelled("job 1 was cancelled")

        with monkeypatch.context() as patched:
            patched.setattr(NbdSink, "finish", finish)
            job = vault.restore(point, **back)

        assert job["status"] == "Cancelled"
        said = job["errorDetails"][0]["errorString"]
        assert "The machine still is off, and does not start: vda, vdb is neither what it was nor the point" in said
        assert still.state == "shut off"
        assert len(vault.points(item)) == 2
        assert "being put back" in str(vault.back_up(item)["errorDetails"])
        job = vault.restore(point, **back)
        assert (job["status"], still.state, len(vault.points(item))) == ("Completed", "running", 2)
        assert still.content(tmp_path / "now")["vda"][: 2 << 20] == bytes([1]) * (1 << 20) + bytes(1 << 20)
    finally:
        still.close()
