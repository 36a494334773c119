# SPDX-License-Identifier: Apache-2.0
"""The description of a domain that a point has, made that of a new one: it can stand and run beside the old one.

Invariant: nothing in the result names a file, a socket, a port or an address of the old machine that only one machine
can have, or that the new one would write to; and it is in none of the old one's networks, where it would meet it. What
is shared by nature stays: the firmware's code, kernel and initrd. What is of the host, such as devices that are passed
through, stays too, and is the host's to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.errors import NotFound, SourceFailed, UsageError
from keepstone.workloads.libvirt.building import card
from keepstone.workloads.libvirt.markup import Element, child, made, parsed, written
from keepstone.workloads.machines.root import is_name

if TYPE_CHECKING:
    from keepstone.workloads.running.command import Network

__all__ = ["renamed"]

_FORMATS = ("raw", "qcow2")
_OF_THE_OLD = ("backingStore", "auth", "mirror", "encryption", "reservations", "transient")
_TALKING = ("serial", "console", "parallel", "channel")
_PRIVATE = ("pty", "spicevmc", "spiceport", "null", "vc", "qemu-vdagent", "dbus", "nmdm")  # no two machines clash by it


def renamed(
    description: bytes | str,
    name: str,
    disks: Mapping[str, tuple[Path, str]],
    network: Network,
    *,
    nvram: Path | None = None,
) -> str:
    """The XML of a new domain `name`. `disks`: by target, the image that it has from now on, and its format (`raw` or
    `qcow2`); all other disks are left out, and CDs are taken out. `network`: what its cards are connected to; it has
    as many as the old one, and none for none. `nvram`: the file of its own; without one the firmware begins anew.

    It has no UUID and no MAC address: libvirt gives it new ones. `UsageError` where name or format is none, `NotFound`
    where it has no such disk, `SourceFailed` where it is no description of a domain.
    """
    if not is_name(name):
        raise UsageError(f"{name!r} is no name for a machine; take letters, digits, '.', '_' and '-'")
    root = parsed(description, "the description of the machine")
    devices = root.find("devices")
    if root.tag != "domain" or devices is None:
        raise SourceFailed("the description of the machine is no domain of libvirt; make the machine by hand")
    _identity(root, name, nvram)
    left = dict(disks)
    for disk in devices.findall("disk"):
        target = disk.find("target")
        wanted = left.pop(target.get("dev", ""), None) if target is not None and _fixed(disk) else None
        if wanted is not None:
            _place(disk, *wanted)
        elif _fixed(disk):
            devices.remove(disk)
        else:
            _without(disk, "source", *_OF_THE_OLD)
            disk.set("type", "file")
    if left:
        raise NotFound(f"the machine has no disk {', '.join(sorted(left))}; see the targets in its description")
    _connect(devices, network)
    for device in devices:
        _alone(device)
    return written(root)


def _fixed(disk: Element) -> bool:
    return disk.get("device", "disk") in ("disk", "lun")


def _identity(root: Element, name: str, nvram: Path | None) -> None:
    root.attrib.pop("id", None)
    _without(root, "uuid", "name")
    called = child(root, "name", name)
    root.remove(called)
    root.insert(0, called)
    for generation in root.findall("genid"):
        generation.text = None  # libvirt makes a new one, and the guest sees that it is another machine
    for system in root.iterfind("sysinfo/system"):
        for entry in system.findall("entry"):
            if entry.get("name") == "uuid":
                system.remove(entry)  # it has to be that of the domain
    for variables in root.iterfind("os/nvram"):
        variables.text = None if nvram is None else str(nvram)
        variables.attrib.pop("type", None)
        _without(variables, "source")


def _place(disk: Element, path: Path, format: str) -> None:
    if format not in _FORMATS:
        raise UsageError(f"a disk of a machine is {' or '.join(_FORMATS)} here, not {format}")
    _without(disk, "source", *_OF_THE_OLD)
    disk.set("type", "file")
    disk.set("device", "disk")
    for key in ("sgio", "rawio", "snapshot"):
        disk.attrib.pop(key, None)
    child(disk, "source", file=str(path))
    driver = disk.find("driver")
    if driver is None:
        driver = child(disk, "driver", name="qemu")
    driver.set("type", format)


def _connect(devices: Element, network: Network) -> None:
    cards = devices.findall("interface")
    for old in cards:
        devices.remove(old)
    if network.kind == "none":
        return
    for old in cards or [made("interface")]:
        model = old.find("model")
        new = card(network, "virtio" if model is None else model.get("type", "virtio"))
        new.extend(kept for tag in ("boot", "address") for kept in old.findall(tag))  # where its guest looks for it
        devices.append(new)


def _alone(device: Element) -> None:
    """Take from a device what it cannot have in two machines."""
    if device.tag == "tpm":
        for backend in device.iterfind("backend[@type='emulator']"):
            _without(backend, "source")
    elif device.tag in _TALKING:
        _without(device, "log")
        if device.tag == "channel" and device.get("type") == "unix":
            _without(device, "source")  # libvirt makes a socket of its own
        elif device.get("type") not in _PRIVATE:
            _without(device, "source", "protocol")
            device.set("type", "pty")
    elif device.tag == "graphics":
        for key in ("port", "tlsPort", "websocket", "socket"):
            device.attrib.pop(key, None)
        if device.get("type") in ("vnc", "spice", "rdp"):
            device.set("autoport", "yes")
        for listens in device.findall("listen"):
            listens.attrib.pop("socket", None)


def _without(parent: Element, *tags: str) -> None:
    for tag in tags:
        for found in parent.findall(tag):
            parent.remove(found)
