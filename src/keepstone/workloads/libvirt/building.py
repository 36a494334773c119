# SPDX-License-Identifier: Apache-2.0
"""The description of a new domain out of values that were checked (libvirt, formatdomain.html).

`remaking` takes the description of a point and changes it. That is for a host which believes the point, for libvirt
does all that is in such a document: it runs the emulator that it names, hands over devices and folders of the host, and
gives QEMU any word. Here nothing of a foreign document is copied.

Invariants
* All elements and attributes are words of this module. What varies is a number, a word out of a table here, or a path
  that the caller chose.
* Of files of the host it names the images, the NVRAM and the kernel that the caller gives, and the host's own firmware.
  An image that names a file behind it (backing file) gets none.
* It has no emulator (libvirt has one of its own), no device of the host, and a network only where the caller says so.
* MAC addresses are libvirt's to choose.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.errors import KeepstoneError, Unsupported, UsageError
from keepstone.workloads.libvirt.markup import Element, child, made, parsed, written
from keepstone.workloads.machines.root import is_name

if TYPE_CHECKING:
    from keepstone.workloads.running.command import Network
    from keepstone.workloads.running.firmware import Firmware
    from keepstone.workloads.running.values import Hardware

__all__ = ["Image", "NewDomain", "built", "card", "lacking"]

_AGENT = "org.qemu.guest_agent.0"
_TARGET = re.compile(r"(?:vd|sd|hd)[a-z]{1,2}")
_BUSES = ("ide", "sata", "scsi", "usb")
_SCSI = {
    "virtio-scsi-pci": "virtio-scsi",
    "lsi53c895a": "lsilogic",
    "megasas": "lsisas1078",
    "pvscsi": "vmpvscsi",
    "mptsas1068": "lsisas1068",
}
_NICS = {"virtio-net-pci": "virtio", **{name: name for name in ("e1000", "e1000e", "rtl8139", "vmxnet3")}}
_GONE = (
    "crypto", "filesystem", "graphics", "hostdev", "iommu", "memory", "panic", "parallel", "pstore",
    "redirdev", "rng", "shmem", "smartcard", "sound", "tpm", "vsock", "watchdog",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Image:
    """A disk: `target`, its name in the machine, `bus`, as its point has it, and the qcow2 image that it is."""

    target: str
    bus: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDomain:
    """What it is beside its hardware. `machine`: a type that its host knows; `kvm`: whether the processor runs it.
    `nvram`: the file where its firmware keeps what it does; where none is there yet, libvirt begins one."""

    name: str
    uuid: str
    machine: str
    kvm: bool
    disks: Sequence[Image]
    network: Network
    firmware: Firmware | None = None
    nvram: Path | None = None


def built(hardware: Hardware, new: NewDomain) -> str:
    """Its XML. The first disk is the first to boot from. `UsageError` for a name or a path that none can have,
    `Unsupported` for a disk that libvirt would not call so."""
    if not is_name(new.name):
        raise UsageError(f"{new.name!r} is no name for a machine; take letters, digits, '.', '_' and '-'")
    smm = new.firmware is not None and new.firmware.smm
    root = made("domain", type="kvm" if new.kvm else "qemu")
    child(root, "name", new.name)
    child(root, "uuid", new.uuid)
    child(root, "memory", str(hardware.memory >> 10), unit="KiB")
    child(root, "vcpu", str(hardware.cpus))
    root.append(_system(hardware, new))
    features = child(root, "features")
    for feature in ("acpi", "apic"):
        child(features, feature)
    if smm:
        child(features, "smm", state="on")
    processor = child(root, "cpu", mode="host-passthrough" if new.kvm else "maximum")
    child(processor, "topology", sockets="1", cores=str(hardware.cpus), threads="1")
    child(root, "clock", offset="localtime" if hardware.localtime else "utc")
    devices = child(root, "devices")
    for order, disk in enumerate(new.disks, 1):
        devices.append(_disk(disk, new.machine, None if hardware.kernel is not None else order))
    if any(disk.bus.startswith("scsi") for disk in new.disks):
        child(devices, "controller", type="scsi", index="0", model=_SCSI[hardware.scsi])
    for nic in hardware.nics or (None,):
        if new.network.kind != "none":
            devices.append(card(new.network, "virtio" if nic is None else _NICS[nic.model]))
    child(child(devices, "serial", type="pty"), "target", port="0")
    child(child(devices, "console", type="pty"), "target", type="serial", port="0")
    child(child(devices, "channel", type="unix"), "target", type="virtio", name=_AGENT)
    child(child(devices, "video"), "model", type="vga")
    return written(root)


def _system(hardware: Hardware, new: NewDomain) -> Element:
    system = made("os")
    child(system, "type", "hvm", arch="x86_64", machine=new.machine)
    if new.firmware is not None:
        secure = "yes" if new.firmware.smm else "no"
        child(system, "loader", _path(new.firmware.code), readonly="yes", secure=secure, type="pflash")
        assert new.nvram is not None
        child(system, "nvram", _path(new.nvram), template=_path(new.firmware.template))
    if hardware.kernel is not None:
        child(system, "kernel", _path(hardware.kernel.kernel))
        if hardware.kernel.initrd is not None:
            child(system, "initrd", _path(hardware.kernel.initrd))
        child(system, "cmdline", _line(hardware.kernel.append))
    return system


def _disk(image: Image, machine: str, order: int | None) -> Element:
    if not _TARGET.fullmatch(image.target):
        raise Unsupported(
            f"the point has a disk {image.target!a}, and libvirt calls none so; restore the disks, and make the "
            "machine by hand"
        )
    bus = next((bus for bus in _BUSES if image.bus.startswith(bus)), "virtio")
    if bus == "ide" and "q35" in machine:
        bus = "sata"
    disk = made("disk", type="file", device="disk")
    child(disk, "driver", name="qemu", type="qcow2")
    child(disk, "source", file=_path(image.path))
    child(disk, "backingStore")  # none, whatever the image says
    child(disk, "target", dev=image.target, bus=bus)
    if order is not None:  # a kernel has the first place otherwise
        child(disk, "boot", order=str(order))
    return disk


def card(network: Network, model: str) -> Element:
    """A network card that is connected to this, which is not none. `UsageError`."""
    new = made("interface", type="bridge" if network.kind == "bridge" else "user")
    if network.kind == "bridge":
        child(new, "source", bridge=_line(network.bridge))
    child(new, "model", type=model)
    return new


def _path(path: Path) -> str:
    return _line(str(path))


def _line(text: str) -> str:
    """What XML can hold. `UsageError`."""
    if not text.isprintable():
        raise UsageError(f"{text!a:.200} cannot be said to libvirt; leave out what cannot be printed")
    return text


def lacking(description: bytes, network: Network) -> str:
    """What the machine of this description had and a new one has not, for people; empty where that is nothing, or
    cannot be told. Of the document there are only counts in it."""
    try:
        root = parsed(description, "the description of the machine")
    except KeepstoneError:
        return ""
    found = Counter(device.tag for device in root.iterfind("devices/*") if device.tag in _GONE)
    found["drive for removable disks"] = sum(
        disk.get("device") in ("cdrom", "floppy") for disk in root.iterfind("devices/disk")
    )
    found["channel"] = sum(target.get("name") != _AGENT for target in root.iterfind("devices/channel/target"))
    if network.kind == "none":
        found["network card"] = sum(1 for _ in root.iterfind("devices/interface"))
    found["words for QEMU itself"] = sum(device.tag == "qemu:commandline" for device in root)
    return ", ".join(f"{name} ({count})" for name, count in sorted(found.items()) if count)
