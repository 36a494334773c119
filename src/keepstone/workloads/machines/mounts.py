# SPDX-License-Identifier: Apache-2.0
"""Where a guest has the volumes of a point mounted, as agent and hypervisor tell it together.

Where nobody can tell, or there is more than one place, somebody has to say it: a guess would put files over others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from keepstone.errors import NotFound

__all__ = ["Mount", "mounted", "partition"]

_DEVICE = re.compile(r"(?:[svx]v?d[a-z]+|nvme\d+n\d+(?:p(?=\d))?)(\d*)")


class Mount(NamedTuple):
    """`volume`: of the disk of this name, as `ls` shows it; `path`: where it is in the guest."""

    disk: str
    volume: str
    path: str


def partition(device: object) -> str | None:
    """The number of the volume that a device of Linux is, such as `vda1`: 0 for a whole disk; None for another one."""
    match = _DEVICE.fullmatch(str(device))
    return None if match is None else match[1] or "0"


def mounted(mounts: Iterable[Mount], disk: str, volume: str) -> str:
    """The path of the guest at which this volume of a disk is. `NotFound`."""
    found = sorted({mount.path for mount in mounts if (mount.disk, mount.volume) == (disk, volume)})
    if len(found) != 1:
        where = f"at {' and '.join(found)}" if found else "nowhere that can be seen"
        raise NotFound(
            f"volume {volume} of {disk} is mounted {where} in the guest; say by --guest-target (of a request: "
            "guestPath) which folder of the guest stands for it"
        )
    return found[0]
