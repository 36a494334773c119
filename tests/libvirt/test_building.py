# SPDX-License-Identifier: Apache-2.0
"""The description of a new domain has our own words alone, whatever a point says of the old one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env
from keepstone.errors import Unsupported, UsageError
from keepstone.workloads.libvirt import Virsh, define, undefine
from keepstone.workloads.libvirt.building import Image, NewDomain, built, lacking
from keepstone.workloads.libvirt.capabilities import offered
from keepstone.workloads.machines import Consistency, Level, Machine
from keepstone.workloads.running import Network
from keepstone.workloads.running.definition import hardware_of
from keepstone.workloads.running.firmware import firmware
from keepstone.workloads.running.values import SCSI, Hardware, Kernel, Nic
from tests.libvirt.daemon import Daemon

pytestmark = pytest.mark.vm

_UUID = "0f0f0f0f-1111-4222-8333-444444444444"
_HOSTILE = """<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>evil</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
<metadata><evil:hook xmlns:evil='urn:evil'>/bin/evil</evil:hook></metadata>
<memory unit='TiB'>9999999</memory><vcpu cpuset='0-evil'>99999999</vcpu>
<os firmware='evil'><type arch='x86_64' machine='evil,accel=evil'>exe</type><loader type='rom'>/evil/loader</loader>
<nvram template='/evil/template'>/evil/nvram</nvram><init>/evil/init</init><dtb>/evil/dtb</dtb>
<bootmenu enable='yes' timeout='1'/></os>
<memoryBacking><source type='file'/></memoryBacking>
<sysinfo type='fwcfg'><entry name='opt/evil' file='/evil/fwcfg'/></sysinfo>
<clock offset='evil'/><seclabel type='none' model='evil'/>
<on_crash>coredump-destroy</on_crash>
<devices><emulator>/evil/emulator</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/evil/disk'/>
<backingStore type='file'><source file='/evil/backing'/></backingStore><target dev='vda' bus='evil'/></disk>
<disk type='block' device='lun' rawio='yes'><source dev='/dev/evil'/><target dev='sda' bus='scsi'/></disk>
<disk type='file' device='cdrom'><source file='/evil/cdrom'/><target dev='sdb' bus='sata'/></disk>
<controller type='scsi' model='evil'/>
<filesystem type='mount' accessmode='passthrough'><source dir='/evil'/><target dir='evil'/></filesystem>
<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0' slot='0'/></source></hostdev>
<hostdev mode='capabilities' type='misc'><source><char>/dev/evil</char></source></hostdev>
<interface type='ethernet'><script path='/evil/script'/><model type='evil'/>
<mac address='52:54:00:00:00:01'/></interface>
<interface type='network'><source network='evil'/></interface>
<serial type='file'><source path='/evil/serial'/></serial>
<channel type='unix'><source mode='bind' path='/evil/channel'/><target type='virtio' name='evil'/></channel>
<tpm model='tpm-crb'><backend type='passthrough'><device path='/dev/evil'/></backend></tpm>
<graphics type='vnc' listen='0.0.0.0' passwd='evil'/>
<rng model='virtio'><backend model='random'>/dev/evil</backend></rng>
<shmem name='evil'/><memory model='nvdimm'><source><path>/evil/nvdimm</path></source></memory>
</devices>
<qemu:commandline><qemu:arg value='-evil'/><qemu:env name='LD_PRELOAD' value='/evil/so'/></qemu:commandline>
</domain>"""
_ELEMENTS = {
    "domain", "name", "uuid", "memory", "vcpu", "os", "type", "features", "acpi", "apic", "cpu", "topology", "clock",
    "devices", "disk", "driver", "source", "backingStore", "target", "boot", "controller", "serial", "console",
    "channel", "video", "model",
}  # fmt: skip


def told(document: str) -> Hardware:
    """What is taken from the description of a domain."""
    about = Machine(name="x", moment=0, consistency=Consistency(Level.CRASH), disks=[],
                    definition={"domain.xml": document.encode()})  # fmt: skip
    return hardware_of(about)


def new(**more: Any) -> NewDomain:
    """A new domain of two disks in a folder that needs escaping."""
    disks = [Image("vda", "virtio", Path("/new & 'old' <\">/vda.qcow2")), Image("sda", "scsi", Path("/new/sda.qcow2"))]
    usual = {"name": "web-2", "uuid": _UUID, "machine": "q35", "kvm": False, "disks": disks, "network": Network()}
    return NewDomain(**{**usual, **more})


def test_nothing_of_a_hostile_description() -> None:
    made = built(told(_HOSTILE), new())

    root = ET.fromstring(made)
    assert {element.tag for element in root.iter()} == _ELEMENTS
    assert "evil" not in made
    assert "52:54" not in made
    assert "11111111" not in made
    assert [one.get("file") for one in root.iterfind("devices//source")] == [
        "/new & 'old' <\">/vda.qcow2",
        "/new/sda.qcow2",
    ]
    assert (root.findtext("name"), root.findtext("uuid"), root.findtext("vcpu")) == ("web-2", _UUID, "1024")
    assert int(root.findtext("memory") or 0) <= 1 << 34  # KiB, see `of_domain`
    assert [target.get("bus") for target in root.iterfind("devices/disk/target")] == ["virtio", "scsi"]
    assert all(disk.find("backingStore") is not None for disk in root.iterfind("devices/disk"))


def test_what_a_new_one_lacks() -> None:
    assert lacking(_HOSTILE.encode(), Network("user")) == (
        "channel (1), drive for removable disks (1), filesystem (1), graphics (1), hostdev (2), memory (1), rng (1), "
        "shmem (1), tpm (1), words for QEMU itself (1)"
    )
    assert "network card (2)" in lacking(_HOSTILE.encode(), Network())
    assert lacking(b"<domain><devices><evil/></devices></domain>", Network()) == lacking(b"<", Network()) == ""


@pytest.mark.parametrize(
    ("hardware", "more", "error"),
    [
        (Hardware(), {"name": "web'/><evil"}, UsageError),
        (Hardware(), {"disks": [Image("vda", "virtio", Path("/new\n/vda"))]}, UsageError),
        (Hardware(), {"disks": [Image("vda' bus='x", "virtio", Path("/new/vda"))]}, Unsupported),
        (Hardware(kernel=Kernel(Path("/boot/vmlinuz"), None, "quiet\0")), {}, UsageError),
    ],
)
def test_what_cannot_be_said(hardware: Hardware, more: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        built(hardware, new(**more))


@pytest.mark.parametrize("bus", ["virtio", "ide", "sata", "scsi", "usb", "of-no-kind"])
@pytest.mark.parametrize("machine", ["q35", "pc", "pc-i440fx-5.2", "pc-q35-99.9"])
def test_libvirt_takes_it(daemon: Daemon, machine: str, bus: str) -> None:
    virsh = Virsh(daemon.uri)
    offer = offered(virsh, machine)
    assert offer.machine == ("q35" if "99" in machine else machine)
    disks = [Image(f"sd{letter}", bus, Path(f"/new/{letter}.qcow2")) for letter in "abc"]

    uuid = define(virsh, built(Hardware(), new(machine=offer.machine, disks=disks, kvm=offer.kvm)))

    try:
        assert uuid == _UUID
        shown = ET.fromstring(daemon.virsh("dumpxml", uuid, "--inactive"))
        known = {"of-no-kind": "virtio", "ide": "sata" if "q35" in offer.machine else "ide"}.get(bus, bus)
        assert [one.get("bus") for one in shown.iterfind("devices/disk/target")] == [known] * 3
        assert shown.find("devices/interface") is None
    finally:
        undefine(virsh, uuid)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("scsi", SCSI)
def test_libvirt_takes_firmware_networks_and_kernels(daemon: Daemon, scsi: str, secure: bool) -> None:
    virsh = Virsh(daemon.uri)
    try:
        code = firmware(Env(), "x86_64", secure=secure, nvram=None)
    except Unsupported as error:
        pytest.skip(str(error))
    kernel = Kernel(Path("/new/kernel"), Path("/new/initrd"), "root=/dev/vda a='b' \"c\" <d>")
    hardware = Hardware(scsi=scsi, nics=(Nic("e1000e"), Nic("virtio-net-pci")), localtime=True, kernel=kernel)
    network = Network("bridge", "br0") if secure else Network("user")

    uuid = define(virsh, built(hardware, new(network=network, firmware=code, nvram=Path("/new/vars"))))

    try:
        shown = ET.fromstring(daemon.virsh("dumpxml", uuid, "--inactive"))
        assert (shown.findtext("os/nvram"), shown.findtext("os/loader")) == ("/new/vars", str(code.code))
        assert shown.findtext("os/cmdline") == kernel.append
        interfaces = shown.iterfind("devices/interface")
        cards = [(card.get("type"), model.get("type")) for card in interfaces for model in card.iterfind("model")]
        assert cards == [(network.kind, "e1000e"), (network.kind, "virtio")]
        assert code.smm is secure
    finally:
        undefine(virsh, uuid)
