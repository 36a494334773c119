# SPDX-License-Identifier: Apache-2.0
"""Machines whose disks have threads of their own: an old QEMU would end when they are served, so they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.errors import Unsupported
from tests.machines.guest import Guest, make_disk, monitor
from tests.machines.yard import Yard

pytestmark = pytest.mark.vm


DISK = ["virtio-blk-pci,drive=d0,id=disk0,iothread=io0"]
SCSI = ["virtio-scsi-pci,id=scsi0,iothread=io0", "scsi-hd,drive=d0,id=disk0,bus=scsi0.0"]


@pytest.mark.parametrize("devices", [DISK, SCSI], ids=["virtio", "scsi"])
def test_a_machine_with_threads_for_its_disks(tmp_path: Path, devices: list[str]) -> None:
    disk = make_disk(tmp_path / "d0.qcow2", 8)
    extra = [
        "-object",
        "iothread,id=io0",
        "-blockdev",
        f"driver=qcow2,node-name=d0,file.driver=file,file.filename={disk}",
    ]
    extra += [word for device in devices for word in ("-device", device)]
    with Guest(tmp_path, [], extra=extra, boots=False) as guest:
        with monitor(guest.qmp) as ask:
            version = ask("query-version")["qemu"]
        yard = Yard(guest, tmp_path)
        if (version["major"], version["minor"]) >= (9, 0):
            yard.backup()
        else:
            with pytest.raises(Unsupported, match=r"disk0 .*iothread"):
                yard.backup()
        assert guest.process.poll() is None
