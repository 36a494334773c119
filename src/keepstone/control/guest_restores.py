# SPDX-License-Identifier: Apache-2.0
"""Asking for files out of the disks of a point: into a folder of a machine, or back into the guest that runs.

Back into the guest they go through its agent, by whoever is on the host of its hypervisor: a worker of the service, or
the agent of Keepstone there.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.control import agents, items, restores, virtual_machines
from keepstone.control.plane import Change
from keepstone.control.restores import Wanted
from keepstone.control.work.restore import FILES, INTO_GUEST, RESTORE
from keepstone.errors import InvalidRequest, KeepstoneError, Unsupported
from keepstone.vault import Container, Item, RecoveryPoint, Vault
from keepstone.workloads.escaping import escaped, unescaped
from keepstone.workloads.guestfiles.reader import IMAGE
from keepstone.workloads.hypervisors import QemuAddress, VmAddress, address_of

__all__ = ["depth", "guest", "has_guest", "restore"]

_PATHS = "properties.paths"
_FOLDER = "restore them into a folder of a machine (AlternateLocation)"
_CONFLICTS = "overwrite, skip or keep-both"


def restore(
    change: Change, vault: Vault, held: Container, item: Item, point: RecoveryPoint, wanted: Wanted, activity: str
) -> UUID:
    """Ask for it; the job. Without a target files go back into the guest, beneath its folder `wanted.guest` or to where
    they came from. `InvalidRequest`, `Unsupported`; `NotFound`, `Conflict` as in `restores.restore`."""
    about: dict[str, Any] = {"point": point.name, "user": True, "conflict": wanted.conflict}
    about["paths"] = _paths(item, wanted)
    if wanted.format is not None:
        raise InvalidRequest(
            "properties.format is for images of disks, and this restores files; leave it out",
            target="properties.format",
        )
    if wanted.target is None:
        restores.machine(change, vault, held, wanted.container, None)
        agent = agents.serving(change.connection, held)
        address = guest(change.connection, item)
        about |= {"mode": INTO_GUEST, "target": None, "guest": _into(item, wanted)}
        if agent is not None:  # which has no catalogue to find it in
            about["address"] = address.document
        else:
            for socket in address.paths:
                change.plane.reach.check(socket)
        return items.work(change, vault, held, item, RESTORE, activity, about, agent)
    if wanted.guest is not None:
        raise InvalidRequest(
            "properties.guestPath is a folder of the guest, into which files go with OriginalLocation; for a folder of "
            "a machine name properties.targetPath alone",
            target="properties.guestPath",
        )
    if wanted.delete and wanted.conflict is None:
        raise InvalidRequest(
            "properties.delete removes what is there and not in the point; say what becomes of the rest, with "
            f"properties.conflict: {_CONFLICTS}",
            target="properties.delete",
        )
    there = restores.machine(change, vault, held, wanted.container, wanted.target)
    agent = agents.serving(change.connection, there)
    target = restores.place(there, wanted.target, elsewhere=agent is not None)
    if agent is None:
        change.plane.reach.check(target)
    about |= {"mode": FILES, "target": target, "delete": wanted.delete}
    if there.id != held.id:
        about["to"] = there.friendly
    return items.work(change, vault, held, item, RESTORE, activity, about, agent)


def guest(connection: sa.Connection, item: Item) -> VmAddress:
    """The machine of an item, whose guest agent can be reached on its host. `Unsupported`, `InvalidRequest` where it
    cannot, with what to do instead."""
    name = f"'{item.friendly}'"
    if not virtual_machines.is_running(item):
        raise Unsupported(f"{name} is a disk, and no machine whose guest could take files; {_FOLDER}")
    address = address_of(item.source)
    if not isinstance(address, QemuAddress):
        return address
    agent = address.agent or _found_since(connection, item, address)
    if agent is None:
        raise InvalidRequest(
            f"no guest agent of {name} is known, and files go into a guest through it: its socket belongs beside that "
            f"of the monitor, {address.monitor}, as {address.monitor.stem}.qga, where `keepstone hypervisor refresh` "
            f"finds it; or {_FOLDER}",
            target="properties.recoveryType",
        )
    return QemuAddress(address.monitor, agent, address.fleece)


def has_guest(connection: sa.Connection, item: Item) -> bool:
    """Whether files can go back into its guest, as far as that is known before anybody asks the guest."""
    try:
        guest(connection, item)
    except KeepstoneError:
        return False
    return True


def depth(item: Item) -> int:
    """How many components of a path name its disk and its volume."""
    return 2 if virtual_machines.is_running(item) else 1


def _found_since(connection: sa.Connection, item: Item, address: QemuAddress) -> Any:
    """The socket of an agent that was found when the machine was protected already."""
    try:
        machine = virtual_machines.find(connection, item.properties.get("sourceResourceId"))
        known = virtual_machines.behind(machine)
    except KeepstoneError:
        return None
    return known.agent if isinstance(known, QemuAddress) and known.monitor == address.monitor else None


def _into(item: Item, wanted: Wanted) -> str | None:
    """The folder of the guest; None for where the files came from."""
    if wanted.delete:
        raise InvalidRequest(
            "nothing is deleted in a guest; leave out properties.delete, and delete there what is too much",
            target="properties.delete",
        )
    for path in wanted.paths:
        if _parts(path)[depth(item) - 1] == IMAGE:
            raise InvalidRequest(
                f"{path!r} is a disk, and only files and folders go into a guest; put disks back with "
                "IaasVMRestoreRequest",
                target=_PATHS,
            )
    if wanted.guest is None:
        return None
    folder = PurePosixPath(wanted.guest)
    if not folder.is_absolute() or ".." in folder.parts or not wanted.guest.isprintable():
        raise InvalidRequest(
            f"properties.guestPath is {wanted.guest!r}; name an absolute folder of the guest, as /srv/restored",
            target="properties.guestPath",
        )
    return str(folder)


def _paths(item: Item, wanted: Wanted) -> list[str]:
    """The paths as they are kept, each once, and none beneath another one. `InvalidRequest`."""
    shown = "disk0/1/etc/fstab" if virtual_machines.is_running(item) else "1/etc/fstab"
    if not wanted.paths:
        raise InvalidRequest(
            f"{_PATHS} has to name the files and folders that are wanted of '{item.friendly}', as they are shown when "
            f"it is browsed: {shown}. {_whole(item)}",
            target=_PATHS,
        )
    found = set[tuple[bytes, ...]]()
    for path in wanted.paths:
        parts = _parts(path)
        if b".." in parts or b"." in parts or any(b"\0" in part for part in parts):
            raise InvalidRequest(
                f"{path!r} is no path of a point; give paths as they are shown when it is browsed: {shown}",
                target=_PATHS,
            )
        if len(parts) < depth(item):
            raise InvalidRequest(
                f"{path!r} names no file or folder in a volume of a disk; give paths as they are shown when the point "
                f"is browsed: {shown}. {_whole(item)}",
                target=_PATHS,
            )
        found.add(tuple(parts))
    topmost = (one for one in found if not any(one[:length] in found for length in range(1, len(one))))
    return sorted(escaped(b"/".join(parts)) for parts in topmost)


def _whole(item: Item) -> str:
    kind = "IaasVMRestoreRequest" if item.management == "AzureIaasVM" else "ImageRestoreRequest"
    return f"Whole disks are restored by {kind}"


def _parts(path: str) -> list[bytes]:
    """The components of a path as it is shown. `InvalidRequest`."""
    try:
        return [part for part in unescaped(path).split(b"/") if part]
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{path!r} is no path that any point has", target=_PATHS) from error
