# SPDX-License-Identifier: Apache-2.0
"""Where a guest has the volumes of a point mounted.

The agent tells on which partition of which PCI device a file system is, and QEMU which of its disks that device is.
That is an answer for virtio-blk and NVMe, whose disks are devices of their own. Where there is none, or more than one,
somebody has to say it: a guess would put files over others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from keepstone.errors import NotFound
from keepstone.workloads.kvm.drives import drives
from keepstone.workloads.kvm.inside import Inside
from keepstone.workloads.kvm.qmp import Monitor

__all__ = ["mounted"]

_PARTITION = re.compile(r"(?:vd[a-z]+|nvme\d+n\d+(?:p(?=\d))?)(\d*)")

Place = tuple[int, int, int]


def mounted(monitor: Monitor, inside: Inside, disk: str, volume: str) -> str:
    """The path in the guest at which this volume of a disk, as `ls` shows it, is mounted. `NotFound`."""
    devices = {name: place for place, name in _pci(monitor.execute("query-pci"))}
    place = next((devices.get(_id(drive.device)) for drive in drives(monitor) if drive.disk.name == disk), None)
    found = set()
    for system in inside.filesystems() if place is not None else ():
        match = _PARTITION.fullmatch(str(system.get("name")))
        if match is None or (match[1] or "0") != volume:
            continue
        if place in [_place(one.get("pci-controller")) for one in system.get("disk") or () if isinstance(one, dict)]:
            found.add(str(system.get("mountpoint")))
    if len(found) != 1:
        where = f"at {' and '.join(sorted(found))}" if found else "nowhere that can be seen"
        raise NotFound(
            f"volume {volume} of {disk} is mounted {where} in the guest; say by --guest-target (of a request: "
            "guestPath) which folder of the guest stands for it"
        )
    return found.pop()


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
