# SPDX-License-Identifier: Apache-2.0
"""The disks of a machine, as its QEMU has them: fixed disks and NVRAM; no CDs, no floppies, no firmware.

Where QEMU keeps snapshots for us a filter of ours stands between a device and its disk (`kept.py`): the disk is what is
beneath.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from keepstone.decoders import known
from keepstone.errors import Conflict, NotFound, SourceFailed
from keepstone.workloads.kvm.monitor import Monitor, Refused
from keepstone.workloads.machines import Disk, Role
from keepstone.workloads.machines.root import is_name

__all__ = ["ASIDE", "KEEPER", "Bitmap", "Drive", "beneath", "bitmaps", "chosen", "drives"]

_FLASH = "/machine/system.flash"
_DEVICE = re.compile(r"/machine/peripheral(?:-anon)?/([^/]+)")
_LARGEST = 1 << 60
ASIDE = "keepstone-replace-"
"""How nodes begin that stand in for a disk while it is put back, see `aside.py`."""
KEEPER = re.compile(r"keepstone-[0-9a-f]{8}\.[kb][0-9a-z]{11}")
"""What the filters of kept snapshots are called, and the nodes that these are put over, see `kept.py`."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk. `node`: what QEMU calls it; `keeps`: its image can keep a bitmap while QEMU is off; `device`: whose disk
    it is; `writable`: whether that may write. `top`: what is attached to the device, which is the disk itself, or a
    filter of ours over it."""

    disk: Disk
    node: str
    keeps: bool
    device: str
    writable: bool
    top: str


class Bitmap(msgspec.Struct, frozen=True):
    """A record of changes. `inconsistent`: QEMU ended without saving it."""

    name: str = ""
    recording: bool = False
    busy: bool = False
    persistent: bool = False
    inconsistent: bool = False


class _Image(msgspec.Struct, frozen=True):
    size: int = msgspec.field(name="virtual-size")


class _Inserted(msgspec.Struct, frozen=True):
    node: str = msgspec.field(name="node-name")
    driver: str = msgspec.field(name="drv")
    ro: bool
    image: _Image


class _Block(msgspec.Struct, frozen=True):
    device: str = ""
    qdev: str = ""
    removable: bool = False
    inserted: _Inserted | None = None


class _Node(msgspec.Struct, frozen=True):
    node: str = msgspec.field(name="node-name")
    bitmaps: list[Bitmap] = msgspec.field(name="dirty-bitmaps", default_factory=list)


def drives(monitor: Monitor) -> list[Drive]:
    """In QEMU's order. A name is the id of the device where it has one, so that it outlives snapshots of the image.

    `Conflict` while one of them is being put back from a point.
    """
    try:
        found = msgspec.convert(monitor.execute("query-block"), known(list[_Block]))
    except msgspec.MsgspecError as error:
        raise SourceFailed(f"QEMU at {monitor.place} describes its disks in an unknown way: {error}") from error
    disks: list[Drive] = []
    kept = any(block.inserted is not None and KEEPER.fullmatch(block.inserted.node) for block in found)
    under = _under(monitor) if kept else {}
    for block in found:
        flash = block.qdev.startswith(_FLASH)
        top = block.inserted
        inserted = None if top is None else under.get(top.node, top)
        if top is None or inserted is None or block.removable or (flash and inserted.ro):
            continue
        if inserted.node.startswith(ASIDE):
            raise Conflict(
                f"QEMU at {monitor.place} has disks that are being put back from a point; wait for that, or run that "
                "restore again where it ended early"
            )
        if not 0 <= inserted.image.size <= _LARGEST:
            raise SourceFailed(
                f"QEMU says that {inserted.node} has {inserted.image.size} bytes; it cannot be backed up"
            )
        name = _name(block, inserted, {drive.disk.name for drive in disks})
        role = Role.NVRAM if flash else Role.DISK
        disk = Disk(name, inserted.image.size, role, _bus(monitor, block.qdev))
        keeps = inserted.driver == "qcow2" and not inserted.ro
        disks.append(Drive(disk, inserted.node, keeps, block.qdev, not inserted.ro, top.node))
    return disks


def _under(monitor: Monitor) -> dict[str, _Inserted]:
    """What is beneath each of our filters."""
    found = msgspec.convert(monitor.execute("query-named-block-nodes", flat=True), known(list[_Inserted]))
    nodes = {node.node: node for node in found}
    return {filter: nodes[disk] for filter, disk in beneath(monitor).items() if disk in nodes}


def beneath(monitor: Monitor) -> dict[str, str]:
    """By the names of our filters, the disks beneath them. `Refused` by a QEMU that does not tell."""
    told = monitor.execute("x-debug-query-block-graph")
    names = {node["id"]: str(node["name"]) for node in told["nodes"]}
    below = {
        names[edge["parent"]]: names[edge["child"]]
        for edge in told["edges"]
        if edge["name"] == "file" and KEEPER.fullmatch(names[edge["parent"]])
    }
    return {name: below.get(node, node) for name, node in below.items()}


def _name(block: _Block, inserted: _Inserted, taken: Collection[str]) -> str:
    device = _DEVICE.match(_path(block.qdev))
    for name in (device[1] if device else "", block.device, inserted.node):
        if is_name(name) and name not in taken:
            return name
    return next(name for number in range(len(taken) + 1) if (name := f"disk-{number}") not in taken)


def _path(qdev: str) -> str:
    """Of a device that has an id QEMU may say that alone."""
    return f"/machine/peripheral/{qdev}" if qdev and not qdev.startswith("/") else qdev


def _bus(monitor: Monitor, qdev: str) -> str:
    """The type of the device, not of what it is made of; empty where QEMU does not say."""
    path = _path(qdev)
    device = _DEVICE.match(path)
    with contextlib.suppress(Refused):
        return str(monitor.execute("qom-get", path=device[0] if device else path, property="type"))[:100]
    return ""


def chosen(found: list[Drive], exclude: Collection[str]) -> tuple[list[Drive], list[str]]:
    """(what is left without these disks, the names of what is left out); they go by their names, or their nodes'."""
    for name in exclude:
        if not any(name in (drive.disk.name, drive.node) for drive in found):
            names = ", ".join(drive.disk.name for drive in found)
            raise NotFound(f"the machine has no disk {name!r} to exclude; it has {names or 'none'}")
    left_out = [drive for drive in found if drive.disk.name in exclude or drive.node in exclude]
    return [drive for drive in found if drive not in left_out], [drive.disk.name for drive in left_out]


def bitmaps(monitor: Monitor) -> dict[str, dict[str, Bitmap]]:
    """By node, those that have a name."""
    nodes: Any = monitor.execute("query-named-block-nodes", flat=True)
    found = msgspec.convert(nodes, known(list[_Node]))
    return {node.node: {bitmap.name: bitmap for bitmap in node.bitmaps if bitmap.name} for node in found}
