# SPDX-License-Identifier: Apache-2.0
"""What the container of the service's machine is called, and an item of files in it.

Both follow from what they are of, and the service refuses other names, so that the same folder is the same item whoever
asks for its protection. They are made here as in the server (`control/containers.py`, `control/sources.py`).
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from keepstone.cli.client.output import at

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["MACHINE", "destination", "files_name", "machine_name", "source_path"]

MACHINE = "Windows"
"""containerType of a machine, whatever its system: Azure knows no other."""


def machine_name(session: Session, vault: str, given: str | None) -> str:
    """The name of a machine's container; of the service's own where none is given. `UsageError` where nobody knows
    what that is called."""
    import socket

    from keepstone.errors import UsageError

    if given is not None:
        return given if ";" in given else f"{MACHINE};{given}"
    if session.place.root is not None:
        return f"{MACHINE};{socket.gethostname()}"
    where = {"backupManagementType": "MAB"}
    known = [str(one["name"]) for one in session.arm.every(f"{vault}/backupProtectionContainers", where)]
    if len(known) == 1:
        return known[0]
    raise UsageError("which machine? give the host name of the service's by --container-name")


def source_path(session: Session, machine: str | None, text: str) -> str:
    """A path of a machine (the name of its container, or its own; None: the service's) as it has to be told."""
    import socket

    own = socket.gethostname().casefold()
    is_own = machine is None or machine.rpartition(";")[2].casefold() == own
    return session.path(text) if is_own else text


def destination(session: Session, vault: str, item: dict[str, Any], machine: str | None, target: str) -> dict[str, Any]:
    """Where a point of an item goes, as requests say it. `machine`: another one than the item's, by what people call
    its container. `NotFound`, `UsageError`."""
    if machine is None:
        there = at(item, "properties.computerName")  # a virtual machine is restored by the service's own
        return {"targetPath": source_path(session, there, target)}
    from keepstone.cli.client.finding import find_container

    found = find_container(session, vault, machine)
    path = source_path(session, at(found, "properties.friendlyName"), target)
    return {"targetInfo": {"containerId": found["id"]}, "targetPath": path}


def files_name(path: str) -> str:
    """The name of the item of a folder, a file or a disk. One of Windows begins with a drive or a share."""
    import ntpath

    drive, rest = ntpath.splitdrive(path)
    if path.startswith("/") or not drive:
        path = os.path.normpath(path)
    else:
        path = ntpath.normpath(drive.upper() + rest if drive[1:] == ":" else path)
    digest = blake2b(os.fsencode(path), digest_size=12)
    return f"FileFolder;{digest.hexdigest()}"
