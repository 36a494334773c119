# SPDX-License-Identifier: Apache-2.0
"""Domains whose disks have iothreads: what their descriptions say of it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from keepstone.errors import Unsupported
from keepstone.workloads.libvirt import Domain, DomainDisk, Virsh
from keepstone.workloads.libvirt.threads import check_threads
from tests.libvirt.daemon import Daemon

pytestmark = pytest.mark.vm

DISKS = tuple(
    DomainDisk(name, f"/{name}", "file", "qcow2", 1 << 20, "virtio", read_only=False) for name in ("vda", "sda")
)
DOMAIN = Domain(
    uuid="", name="little", state="running", persistent=True, disks=DISKS, agent=False, os_type="hvm", firmware="bios",
    nvram="", kernel="", initrd="", tpm=False, description="",
)  # fmt: skip
XML = """<domain><devices>
<disk device='disk'><driver name='qemu' {disk}/><target dev='vda' bus='virtio'/></disk>
<controller type='virtio' index='0'/><controller type='scsi' index='0'><driver {controller}/></controller>
<disk device='disk'><target dev='sda' bus='scsi'/><address type='drive' controller='0'/></disk>
</devices></domain>"""


@pytest.mark.parametrize(
    ("disk", "controller", "named"),
    [
        ("", "", ""),
        ("iothread='1'", "", "vda"),
        ("", "iothread='1'", "sda"),
        ("iothread='2'", "iothread='1'", "vda, sda"),
    ],
)
def test_which_disks_have_threads(daemon: Daemon, disk: str, controller: str, named: str) -> None:
    domain = replace(DOMAIN, description=XML.format(disk=disk, controller=controller))
    virsh = Virsh(daemon.uri)
    version = re.search(r"Running hypervisor: QEMU (\d+)", virsh.ask("version"))
    assert version is not None
    if not named or int(version[1]) >= 9:
        check_threads(virsh, domain, DISKS)
        return
    with pytest.raises(Unsupported, match=rf"^{named} has an iothread, and QEMU \d"):
        check_threads(virsh, domain, DISKS)
    check_threads(virsh, domain, [one for one in DISKS if one.target not in named])
