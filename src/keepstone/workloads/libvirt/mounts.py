# SPDX-License-Identifier: Apache-2.0
"""What a guest of libvirt has mounted of its disks (virsh, guestinfo): libvirt itself asks the agent, and knows which
of the machine's disks is meant."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from keepstone.workloads.libvirt.virsh import Virsh
from keepstone.workloads.machines.mounts import Mount, partition

__all__ = ["mounts"]

_LINE = re.compile(r"fs\.(\d+)\.(name|mountpoint|disk\.\d+\.alias)\s*:\s(.*)")


def mounts(virsh: Virsh, uuid: str) -> Iterator[Mount]:
    """Disks go by their targets. What `Virsh.ask` raises."""
    systems: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for line in virsh.ask("guestinfo", uuid, "--filesystem").splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            systems[match[1]][match[2]] = match[3]
    for system in systems.values():
        volume = partition(system.get("name"))
        disks = [value for key, value in system.items() if key.endswith(".alias")]
        if volume is not None and "mountpoint" in system:
            for disk in disks:
                yield Mount(disk, volume, system["mountpoint"])
