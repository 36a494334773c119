# SPDX-License-Identifier: Apache-2.0
"""Virtual machines for tests: a resource, and a small disk in a file."""

from __future__ import annotations

import json
import random
from pathlib import Path

from .running import Az
from .serving import LOCATION, Server

__all__ = ["make_machine"]


def make_machine(az: Az, server: Server, group: str, name: str, folder: Path) -> str:
    """Make one whose disk is in `folder`; its id."""
    disk = folder / f"{name}.img"
    disk.write_bytes(random.Random(name).randbytes(2 << 20) + bytes(2 << 20))
    path = f"{server.group(group)}/providers/Microsoft.Compute/virtualMachines/{name}"
    disks = {"osDisk": {"name": "os", "createOption": "FromImage", "vhd": {"uri": disk.as_uri()}}}
    body = {"location": LOCATION, "properties": {"storageProfile": disks}}
    az(f"rest --method put --url {path}?api-version=2024-07-01 --body", json.dumps(body))
    return path
