# SPDX-License-Identifier: Apache-2.0
"""What of a block device is mounted, and so may change while it is read."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["mounted"]

_DEVICES = Path("/sys/dev/block")
_MOUNTS = Path("/proc/self/mountinfo")


def mounted(device: int, *, devices: Path = _DEVICES, mounts: Path = _MOUNTS) -> list[str]:
    """Where the device of this number (`st_rdev`) or a partition of it is mounted to be written to; nothing where the
    system does not tell."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        numbers = {number, *(file.read_text().strip() for file in (devices / number).glob("*/dev"))}
        table = mounts.read_text(errors="surrogateescape")
    except OSError:
        return []
    found = []
    for line in table.splitlines():
        fields, _, options = line.partition(" - ")
        _, _, of, _, place, *_ = fields.split(" ")
        if of in numbers and "ro" not in options.split(" ")[2].split(","):
            found.append(place)
    return found
