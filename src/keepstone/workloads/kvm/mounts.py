# SPDX-License-Identifier: Apache-2.0
"""What a guest of QEMU has mounted of its disks.

The agent tells on which partition of which PCI device a file system is, and QEMU which of its disks that device is.
That is an answer for virtio-blk and NVMe, whose disks are devices of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keepstone.workloads.kvm.drives import drives
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.machines.mounts import Mount, partition

__all__ = ["mounts"]

Place = tuple[int, int, int]


def mounts(monitor: Monitor, systems: list[dict[str, Any]]) -> Iterator[Mount]:
    """`systems`: what the agent answers to guest-get-fsinfo."""
    devices = {name: place for place, name in _pci(monitor.execute("query-pci"))}
    disks = {devices.get(_id(drive.device)): drive.disk.name for drive in drives(monitor)}
    for system in systems:
        volume = partition(system.get("name"))
        for one in system.get("disk") or ():
            place = _place(one.get("pci-controller")) if isinstance(one, dict) else None
            if volume is not None and place is not None and place in disks:
                yield Mount(disks[place], volume, str(system.get("mountpoint")))


def _id(device: str) -> str:
    """The id of a device out of its path in QEMU."""
    return device.removeprefix("/machine/peripheral/").removesuffix("/virtio-backend")


def _pci(buses: list[Any]) -> Iterator[tuple[Place, str]]:
    """(bus, slot, function) of each device, and its id."""
    for bus in buses:
        for device in bus["devices"]:
            if device.get("qdev_id"):
                yield (device["bus"], device["slot"], device["function"]), device["qdev_id"]
            if "devices" in device.get("pci_bridge", {}):
                yield from _pci([device["pci_bridge"]])


def _place(controller: object) -> Place | None:
    if not isinstance(controller, dict) or controller.get("domain") != 0:
        return None
    return controller.get("bus", -1), controller.get("slot", -1), controller.get("function", -1)
