# SPDX-License-Identifier: Apache-2.0
"""Asking for a restore of a virtual machine, as Azure has it.

    RestoreDisks       new images of its disks, in a folder of the host
    OriginalLocation   over the disks of the machine itself, which is paused meanwhile and starts anew
    AlternateLocation  a new machine: one of QEMU runs at once from the vault, and is moved while it does; one of
                       libvirt has its images first

A new machine has no network, unless it is put into a virtual network that stands for one, by its own property
`keepstone.network`: `user`, or `bridge=NAME`. It would meet the old one there.

Azure restores disks into a storage account. One of ours stands for a folder, by its own property `keepstone.path`, and
may say of which format images there are (`keepstone.format`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.control import agents, groups, items, resources, restores, virtual_machines
from keepstone.control.plane import Change
from keepstone.control.work.restore import CREATE, REPLACE, RESTORE
from keepstone.disks.writing import FORMATS, RAW
from keepstone.errors import InvalidRequest, NotFound
from keepstone.vault import Container, Item, RecoveryPoint, Resource, Vault, folded

__all__ = ["Mode", "Wanted", "restore", "storage"]

_BRIDGE = re.compile(r"bridge=[A-Za-z0-9_.-]{1,15}")
_STAMP = "%Y%m%dT%H%M%SZ"


class Mode(StrEnum):
    """Azure's recoveryType."""

    DISKS = "RestoreDisks"
    REPLACE = REPLACE
    CREATE = CREATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`target`: the folder that the images go into, which is made; `account`: the id of the storage account that they
    go into otherwise, into a folder of their own. `container`: another machine that restores, by the name of its
    container. `luns`: the data disks that go with that of the system, `names`: the disks, by their names; all where
    neither is given. `format`: of the images. `safety`: whether a point of what is there now is made first. `machine`,
    `network`: the id of the new machine, and that of the virtual network that it is put into; None for none."""

    mode: Mode
    target: str | None = None
    account: str | None = None
    container: str | None = None
    luns: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()
    format: str | None = None
    safety: bool = True
    machine: str | None = None
    network: str | None = None


def restore(
    change: Change, vault: Vault, held: Container, item: Item, point: RecoveryPoint, wanted: Wanted, activity: str
) -> UUID:
    """Ask for it; the job. `InvalidRequest`; `NotFound`, `Conflict` as in `restores.restore`."""
    about: dict[str, Any] = {"point": point.name, "user": True, "mode": str(wanted.mode)}
    about["disks"] = _disks(change.connection, item, wanted)
    if wanted.mode is Mode.REPLACE:
        if not virtual_machines.is_running(item):
            raise InvalidRequest(
                f"'{item.friendly}' is a disk image; put it back with `keepstone restore disk --in-place`",
                target="properties.recoveryType",
            )
        about |= {"target": None, "safety": wanted.safety}
        agent = agents.serving(change.connection, held)
        return items.work(change, vault, held, item, RESTORE, activity, about, agent)
    folder, format, told = _place(change, item, point, wanted)
    if wanted.mode is Mode.CREATE:
        agent = agents.serving(change.connection, held)
        folder = restores.place(held, folder, elsewhere=agent is not None)
        if agent is None:
            change.plane.reach.check(folder)
        about |= _new_machine(change.connection, vault, wanted) | {"target": folder, "properties": told}
        return items.work(change, vault, held, item, RESTORE, activity, about, agent)
    there = restores.machine(change, vault, held, wanted.container, folder)
    agent = agents.serving(change.connection, there)
    folder = restores.place(there, folder, elsewhere=agent is not None)
    if agent is None:
        change.plane.reach.check(folder)
    about |= {"target": folder, "format": format, "properties": told}
    if there.id != held.id:
        about["to"] = there.friendly
    if not virtual_machines.is_running(item):  # a disk image, whose restore is one file
        about |= {"target": f"{folder}/{item.friendly}{FORMATS[format].suffixes[0]}", "folder": True}
    return items.work(change, vault, held, item, RESTORE, activity, about, agent)


def storage(connection: sa.Connection, path: object) -> tuple[Resource, Mapping[str, Any]]:
    """A storage account, and what of it says where it is. `InvalidRequest`."""
    target = "properties.storageAccountId"
    if not isinstance(path, str) or folded(resources.STORAGE) not in folded(path):
        raise InvalidRequest(f"{target} is {path!r}; it has to be the id of a storage account", target=target)
    try:
        account = resources.find(connection, path)
    except NotFound as error:
        raise InvalidRequest(str(error), target=target) from error
    told = account.properties.get(virtual_machines.BEHIND)
    place = told.get("path") if isinstance(told, dict) else None
    if not isinstance(place, str) or not PurePosixPath(place).is_absolute():
        raise InvalidRequest(
            f"storage account '{account.name}' stands for no folder; give it one with `keepstone storage create -g "
            f"{account.group_name} -n {account.name} --path FOLDER`",
            target=target,
        )
    assert isinstance(told, dict)
    return account, told


def _place(change: Change, item: Item, point: RecoveryPoint, wanted: Wanted) -> tuple[str, str, dict[str, str]]:
    """(the folder, the format of what goes there, what people see of it in the job)."""
    if wanted.target is not None:
        return wanted.target, _format(wanted.format), {}
    account, told = storage(change.connection, wanted.account)
    name = f"{item.friendly}-{point.made.strftime(_STAMP)}-{change.now.strftime(_STAMP)}"
    if wanted.mode is Mode.CREATE:  # its sockets are there, too, and their paths must not be long
        name = (wanted.machine or "").rpartition("/")[2]
    shown = {"Target Storage Account Name": account.name, "Target Folder": name}
    return f"{told['path'].rstrip('/')}/{name}", _format(wanted.format or told.get("format")), shown


def _new_machine(connection: sa.Connection, vault: Vault, wanted: Wanted) -> dict[str, str]:
    """What a job says of it. `InvalidRequest`, also where one of its name is there."""
    from keepstone.workloads.machines.root import is_name

    target = "properties.targetVirtualMachineId"
    parts = (wanted.machine or "").strip("/").split("/")
    start, kind = ["subscriptions", vault.subscription, "resourcegroups"], folded(resources.MACHINE).split("/")
    if len(parts) != 8 or [*map(folded, parts[:3])] != start or [*map(folded, parts[5:7])] != kind:
        raise InvalidRequest(
            f"{target} is {wanted.machine!r}; it has to be the id that the new machine gets, in this subscription",
            target=target,
        )
    group, name = groups.find(connection, vault.subscription, parts[3]).name, parts[7]
    if not is_name(name):
        raise InvalidRequest(
            f"{name!r} is no name for a machine; take letters, digits, '.', '_' and '-'", target=target
        )
    with contextlib.suppress(NotFound):
        there = resources.find(connection, wanted.machine or "")
        raise InvalidRequest(f"there is a virtual machine '{there.name}' already; choose another name", target=target)
    return {"name": name, "group": group, "network": _network(connection, wanted.network)}


def _network(connection: sa.Connection, path: str | None) -> str:
    """What a virtual network stands for."""
    target = "properties.virtualNetworkId"
    if path is None:
        return "none"
    try:
        network = resources.find(connection, path)
    except NotFound as error:
        raise InvalidRequest(str(error), target=target) from error
    told = network.properties.get(virtual_machines.BEHIND)
    value = str(told.get("network", "none")) if isinstance(told, dict) else "none"
    if value not in ("none", "user") and not _BRIDGE.fullmatch(value):
        raise InvalidRequest(
            f"virtual network '{network.name}' stands for {value!r}; write none, user, or bridge=NAME", target=target
        )
    return value


def _format(name: object) -> str:
    if name is None:
        return RAW
    if not isinstance(name, str) or name not in FORMATS:
        raise InvalidRequest(f"there is no format {name!r}; choose one of {', '.join(FORMATS)}", target="format")
    return name


def _disks(connection: sa.Connection, item: Item, wanted: Wanted) -> list[str] | None:
    """The names of the data disks that are wanted; None for all of them."""
    if wanted.names:
        return list(wanted.names)
    if wanted.luns is None or not virtual_machines.is_running(item):
        return None
    machine = virtual_machines.find(connection, item.properties.get("sourceResourceId"))
    return virtual_machines.disks(machine, wanted.luns, "properties.restoreDiskLunList")
