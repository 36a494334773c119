# SPDX-License-Identifier: Apache-2.0
"""Disks that are taken from their devices for a while, so that they can be written to.

QEMU lets nobody else write to a node that a device may write to, also while the machine is stopped. So the device gets
another node meanwhile, of the same size and with nothing on it (its property `drive`, which QEMU lets one set on a
device in use since 6.0), and the disk itself stays open in QEMU: its image is locked and its bitmaps record.

Invariants
* Whoever finds a stand-in finds the disk that belongs there: its name is made of the name of the disk's node.
* A disk that is aside is held by a node of ours. One that came by `-drive` belongs to its device alone, and would be
  gone with it.
* The machine is stopped as long as a disk is aside. Where somebody lets it go on all the same, it sees empty disks, and
  what it writes harms none of its own.
"""

from __future__ import annotations

import hashlib
from typing import Any

from keepstone.workloads.kvm.drives import ASIDE, Drive
from keepstone.workloads.kvm.monitor import Monitor, Refused

__all__ = ["give_back", "set_aside"]


def set_aside(monitor: Monitor, drive: Drive) -> None:
    """Take a disk from its device. `Refused` where QEMU does not; what was made until then, `sweep` takes away."""
    holder, stand_in = _names(drive.node)
    monitor.execute("blockdev-add", driver="raw", node_name=holder, file=drive.node)
    monitor.execute("blockdev-add", driver="null-co", node_name=stand_in, size=drive.disk.size, read_zeroes=True)
    monitor.execute("qom-set", path=drive.device, property="drive", value=stand_in)


def give_back(monitor: Monitor, prefix: str) -> None:
    """Give all disks that are aside to their devices again, where `prefix` is that of those who set disks aside."""
    if prefix != ASIDE:
        return
    nodes: list[Any] = monitor.execute("query-named-block-nodes", flat=True)
    disks = {_names(node["node-name"])[1]: node["node-name"] for node in nodes}
    for block in monitor.execute("query-block"):
        stand_in = (block.get("inserted") or {}).get("node-name", "")
        if stand_in.startswith(ASIDE):
            if stand_in not in disks:
                raise Refused(
                    f"the disk of {block.get('qdev')} is gone from QEMU at {monitor.place}; start the machine anew"
                )
            monitor.execute("qom-set", path=block["qdev"], property="drive", value=disks[stand_in])


def _names(node: str) -> tuple[str, str]:
    """Of what holds a disk, and of what its device has meanwhile; a name of a node has 31 characters at most."""
    mark = hashlib.sha256(node.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{ASIDE}k{mark}", f"{ASIDE}h{mark}"
