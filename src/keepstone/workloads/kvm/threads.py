# SPDX-License-Identifier: Apache-2.0
"""Disks that have a thread of their own in QEMU (`iothread`), and QEMUs that end when such a disk is served.

Before 9.0 QEMU's NBD server lets go of a client in the thread of the disk; with the mending of CVE-2024-7409, which
distributions have taken into older versions, it ends there: `nbd_blockdev_client_closed: Assertion
qemu_in_main_thread()` (seen in Debian's 7.2.22, with every backup of a guest that ran). So such a disk is refused, and
the guest goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from keepstone.errors import Unsupported
from keepstone.workloads.kvm.drives import Drive
from keepstone.workloads.kvm.monitor import Monitor, Refused

__all__ = ["SOUND", "check_threads", "has_thread", "refuse_threads"]

SOUND = (9, 0)
"""The first version of QEMU that serves them."""


def check_threads(monitor: Monitor, disks: Sequence[Drive]) -> None:
    """`Unsupported` where one of these disks must not be served."""
    version = monitor.execute("query-version")["qemu"]
    if (version["major"], version["minor"]) >= SOUND:
        return
    used = [drive.disk.name for drive in disks if has_thread(monitor, drive.device)]
    if used:
        refuse_threads(used, f"QEMU {version['major']}.{version['minor']} at {monitor.place}")


def refuse_threads(disks: Sequence[str], qemu: str) -> None:
    """`Unsupported`, which names them."""
    raise Unsupported(
        f"{', '.join(disks)} has an iothread, and {qemu} would end while it is backed up, and its guest with it. Take "
        "QEMU 9.0 or newer, or give the disk no iothread; without these disks (--exclude-disk) the machine can be "
        "backed up"
    )


def has_thread(monitor: Monitor, device: str) -> bool:
    """Of the device or of what it is plugged into, such as the controller of a SCSI disk."""
    path = device.removesuffix("/virtio-backend")
    for _ in range(4):
        with contextlib.suppress(Refused):
            if monitor.execute("qom-get", path=path, property="iothread"):
                return True
        try:
            bus = str(monitor.execute("qom-get", path=path, property="parent_bus"))
        except Refused:
            return False
        path = bus.rpartition("/")[0]
        if not path:
            return False
    return False
