# SPDX-License-Identifier: Apache-2.0
"""A machine out of a point stands beside the one that it came from, and runs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from keepstone.disks.writing import FORMATS
from keepstone.errors import NotFound, SourceFailed, TargetExists, UsageError
from keepstone.workloads import Silent
from keepstone.workloads.libvirt import define, destroy, find, renamed, start, undefine
from keepstone.workloads.machines import machine_of, restore_disks
from keepstone.workloads.running import Network
from tests.libvirt.yard import Yard
from tests.machines.guest import until

pytestmark = pytest.mark.vm

_RICH = """<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>web</name><uuid>11111111-2222-3333-4444-555555555555</uuid><genid>66666666-2222-3333-4444-555555555555</genid>
<description>a &lt;!DOCTYPE&gt; is text here</description>
<sysinfo type='smbios'><system><entry name='uuid'>11111111-2222-3333-4444-555555555555</entry>
<entry name='serial'>S1</entry></system></sysinfo>
<os firmware='efi'><type arch='x86_64'>hvm</type><nvram template='/usr/share/T.fd'>/var/lib/web_VARS.fd</nvram></os>
<devices>
<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/><source dev='/dev/vg/web'/>
<backingStore/><target dev='vda' bus='virtio'/><boot order='1'/></disk>
<disk type='network' device='disk'><auth username='a'><secret type='ceph' uuid='x'/></auth>
<source protocol='rbd' name='p/i'/><target dev='vdb' bus='virtio'/></disk>
<disk type='file' device='disk'><source file='/data/other.img'/><target dev='vdc' bus='virtio'/></disk>
<disk type='block' device='cdrom'><source dev='/dev/sr0'/><target dev='sda' bus='sata'/><readonly/></disk>
<interface type='network'><mac address='52:54:00:00:00:01'/>
<source network='default'/><model type='virtio'/><address type='pci' slot='0x03'/></interface>
<serial type='file'><source path='/var/log/web.log'/><target port='0'/></serial>
<channel type='unix'><source mode='bind' path='/run/web.agent'/>
<target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<tpm model='tpm-crb'><backend type='emulator' version='2.0'><source type='dir' path='/srv/tpm'/></backend></tpm>
<graphics type='vnc' port='5901' autoport='no'><listen type='address' address='127.0.0.1'/></graphics>
</devices>
<qemu:commandline><qemu:arg value='-no-hpet'/></qemu:commandline>
</domain>"""

_BARE = "<domain><devices/></domain>"


def one(element: ET.Element, path: str) -> ET.Element:
    """What is there."""
    found = element.find(path)
    assert found is not None
    return found


def test_nothing_of_the_old_one_is_shared() -> None:
    made = renamed(
        _RICH, "web-2", {"vda": (Path("/new/a.qcow2"), "qcow2"), "vdb": (Path("/new/b <&> '.raw"), "raw")}, Network()
    )

    root = ET.fromstring(made)
    assert root.findtext("name") == "web-2"
    assert root.find("uuid") is None
    assert root.findtext("genid") in (None, "")
    assert [entry.get("name") for entry in root.iterfind("sysinfo/system/entry")] == ["serial"]
    disks = [
        (one(disk, "target").get("dev"), disk.get("type"), disk.find("source"))
        for disk in root.iterfind("devices/disk")
    ]
    assert [(target, kind) for target, kind, _ in disks] == [("vda", "file"), ("vdb", "file"), ("sda", "file")]
    assert [source.get("file") if source is not None else None for _, _, source in disks] == [
        "/new/a.qcow2",
        "/new/b <&> '.raw",
        None,
    ]
    assert one(root, "devices/disk/driver").attrib == {"name": "qemu", "type": "qcow2", "cache": "none"}
    assert root.find("devices/interface") is None
    for old in (
        "52:54",
        "default",
        "/var/lib",
        "/dev/",
        "rbd",
        "auth",
        "web.log",
        "/run/web",
        "/srv/tpm",
        "5901",
        "11111111",
    ):
        assert old not in made
    assert "template" in made
    assert 'xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0"' in made
    assert "<qemu:arg" in made
    with_variables = renamed(_RICH, "web-2", {}, Network(), nvram=Path("/new/vars"))
    assert ET.fromstring(with_variables).findtext("os/nvram") == "/new/vars"


@pytest.mark.parametrize(
    ("network", "card"),
    [
        (Network("user"), {"type": "user"}),
        (Network("bridge", "br0"), {"type": "bridge"}),
    ],
)
def test_it_is_in_the_network_that_somebody_chose(network: Network, card: dict[str, str]) -> None:
    for description, model in ((_RICH, "e1000"), (_BARE, "virtio")):
        root = ET.fromstring(
            renamed(description.replace("model type='virtio'", "model type='e1000'"), "web-2", {}, network)
        )
        (found,) = root.iterfind("devices/interface")
        source = found.find("source")

        assert found.attrib == card
        assert (None if source is None else source.attrib) == ({"bridge": "br0"} if network.bridge else None)
        assert one(found, "model").attrib == {"type": model}
        assert found.find("mac") is None
        assert (found.find("address") is not None) == (description is _RICH)


def test_a_network_that_cannot_be_said() -> None:
    with pytest.raises(UsageError):
        renamed(_RICH, "web-2", {}, Network("bridge", "br0\n"))


@pytest.mark.parametrize(
    ("description", "name", "disks", "error"),
    [
        (_RICH, "-web", {}, UsageError),
        (_RICH, "a/b", {}, UsageError),
        (_RICH, "web-2", {"vdz": (Path("/a"), "raw")}, NotFound),
        (_RICH, "web-2", {"sda": (Path("/a"), "raw")}, NotFound),
        (_RICH, "web-2", {"vda": (Path("/a"), "vmdk")}, UsageError),
        ("<domain>", "web-2", {}, SourceFailed),
        (b"\xff\xfe", "web-2", {}, SourceFailed),
        ("<network><devices/></network>", "web-2", {}, SourceFailed),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><domain><devices/></domain>", "web-2", {}, SourceFailed),
        ("<domain>" + "<a>" * 5000 + "</a>" * 5000 + "</domain>", "web-2", {}, SourceFailed),
        ("<domain>" + " " * (5 << 20) + "</domain>", "web-2", {}, SourceFailed),
    ],
)
def test_what_is_no_description(description: bytes | str, name: str, disks: dict[str, tuple[Path, str]],
                                error: type[Exception]) -> None:  # fmt: skip
    with pytest.raises(error):
        renamed(description, name, disks, Network())


def test_it_runs_beside_the_old_one(yard: Yard, tmp_path: Path) -> None:
    yard.little.sh("echo of this moment > /a/words; sync")
    made = yard.backup()
    place = yard.little.daemon.folder / "made"
    place.mkdir()
    images = {"vda": (place / "a.qcow2", "qcow2"), "vdb": (place / "b.raw", "raw")}
    with yard.store.reader(made.point) as reader:
        machine = machine_of(reader)
        restore_disks(yard.env, machine, lambda disk: (images[disk.name][0], FORMATS[images[disk.name][1]]), Silent())
    description = renamed(machine.about.definition["domain.xml"], "little-2", images, Network())
    (tmp_path / "x").write_text(description)

    uuid = define(yard.virsh, description)
    with pytest.raises(TargetExists, match="has a machine little-2 already"):
        define(yard.virsh, description)
    try:
        start(yard.virsh, uuid, paused=True)
        assert find(yard.virsh, "little-2").state == "paused"
        destroy(yard.virsh, uuid)
        start(yard.virsh, uuid)
        read = '{"execute":"guest-file-open","arguments":{"path":"/a/words"}}'
        daemon = yard.little.daemon
        until(lambda: daemon._run("qemu-agent-command", uuid, read).returncode == 0, "its agent, and the file")
        assert find(yard.virsh, "little").state == "running"
        destroy(yard.virsh, uuid)
    finally:
        undefine(yard.virsh, uuid, state=True)
    assert uuid not in yard.virsh.uuids()
    assert images["vda"][0].exists()
