# SPDX-License-Identifier: Apache-2.0
"""Virtual machines: resources that clients look up before they protect one, and what is behind each.

That is a machine of a hypervisor, which runs, and whose address is in `properties.keepstone`; or a disk image of the
service's machine as the unmanaged disk (`storageProfile.osDisk.vhd.uri`, a file: address), which is backed up as it
lies there, so crash-consistent.

The disks of a machine of a hypervisor are in its `storageProfile`: that of the system, and those of data by their
LUNs, which are their places among the others. Whoever chooses disks chooses LUNs, and what is kept are names: a disk
that is plugged in or out changes the places of others.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from keepstone.control import containers, resources
from keepstone.control.containers import VIRTUAL_MACHINE
from keepstone.control.plane import Change
from keepstone.control.sources import IMAGES, Source
from keepstone.errors import InvalidRequest, KeepstoneError, NotFound, Unsupported, UsageError
from keepstone.vault import Container, Item, Resource, Vault, folded
from keepstone.workloads.hypervisors import VmAddress, address_of

if TYPE_CHECKING:
    from keepstone.workloads.hypervisors.discovery import Found

__all__ = [
    "BEHIND",
    "behind",
    "disks",
    "exclusion",
    "find",
    "host",
    "is_running",
    "luns",
    "made",
    "noted",
    "paths",
    "source",
]

BEHIND = "keepstone"
"""The property of a virtual machine that has its address."""
_EXCLUSION = "diskExclusionProperties"


def find(connection: sa.Connection, path: object) -> Resource:
    """The virtual machine of this id. `InvalidRequest` where there is none."""
    if not isinstance(path, str) or folded(VIRTUAL_MACHINE) not in folded(path):
        raise InvalidRequest(
            f"properties.sourceResourceId is {path!r}; it has to be the id of a virtual machine",
            target="properties.sourceResourceId",
        )
    try:
        return resources.find(connection, path)
    except NotFound as error:
        raise InvalidRequest(str(error), target="properties.sourceResourceId", code="BMSUserErrorVMNotFound") from error


def source(connection: sa.Connection, properties: Mapping[str, Any]) -> Source:
    """What an item of a virtual machine is made of. `InvalidRequest` where there is no such machine; `Unsupported`
    where nothing that can be backed up is behind it."""
    machine = find(connection, properties.get("sourceResourceId") or properties.get("virtualMachineId"))
    address = behind(machine)
    if address is not None:
        document: dict[str, Any] = {"path": address.place, **address.document}
        chosen = exclusion(machine, properties)
        return Source(workload=IMAGES, friendly=machine.name, document=document | chosen, machine=machine)
    images = [_image(disk) for disk in _listed(machine)]
    if len(images) != 1 or not images[0]:
        raise Unsupported(
            f"virtual machine '{machine.name}' is none of a registered hypervisor, and has no disk image of the "
            "service's machine as its only disk; register its hypervisor with `keepstone hypervisor register`, or "
            "give it one of them with `keepstone vm create`"
        )
    if exclusion(machine, properties):
        raise InvalidRequest(
            f"'{machine.name}' has one disk; there is nothing to choose",
            target=f"properties.extendedProperties.{_EXCLUSION}",
        )
    return Source(workload=IMAGES, friendly=machine.name, document={"path": images[0]}, machine=machine)


def behind(machine: Resource) -> VmAddress | None:
    """The address of a machine of a hypervisor; None for another one. `InvalidRequest` for an address that is none."""
    told = machine.properties.get(BEHIND)
    if not isinstance(told, dict):
        return None
    try:
        return address_of(told)
    except UsageError as error:
        raise InvalidRequest(f"virtual machine '{machine.name}': {error}", target=f"properties.{BEHIND}") from error


def host(machine: Resource) -> dict[str, str]:
    """What its container has to say of where it is: nothing for a machine of the service's own."""
    told = machine.properties.get(BEHIND)
    name = told.get(containers.HOST) if isinstance(told, dict) else None
    return {containers.HOST: name} if isinstance(name, str) else {}


def is_running(item: Item) -> bool:
    """Whether an item is a machine of a hypervisor, and not a disk image."""
    return "machine" in item.source


def paths(document: Mapping[str, Any]) -> Iterable[str | Path]:
    """What a source takes of the machine that it is on."""
    return address_of(document).paths if "machine" in document else [document["path"]]


def disks(machine: Resource, luns: Collection[int], target: str) -> list[str]:
    """The names of the data disks that have these LUNs. `InvalidRequest`; `target`: where it names the request's."""
    known = {disk["lun"]: disk.get("name") for disk in _listed(machine)[1:] if type(disk.get("lun")) is int}
    unknown = sorted(lun for lun in luns if not known.get(lun))
    if unknown:
        have = ", ".join(f"{lun} ({name})" for lun, name in known.items() if name) or "none"
        raise InvalidRequest(
            f"'{machine.name}' has no data disk of LUN {', '.join(map(str, unknown))}; it has {have}. A disk that was "
            "plugged in just now is known after `keepstone hypervisor refresh`",
            target=target,
        )
    return [str(known[lun]) for lun in luns]


def exclusion(machine: Resource, properties: Mapping[str, Any]) -> dict[str, Any]:
    """What of a source says which disks are taken; nothing for all of them. `InvalidRequest`."""
    extended = properties.get("extendedProperties")
    told = extended.get(_EXCLUSION) if isinstance(extended, dict) else None
    if told is None:
        return {}
    target = f"properties.extendedProperties.{_EXCLUSION}"
    only = told.get("isInclusionList") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(only, bool):
        raise InvalidRequest(f"{target} has to have diskLunList and isInclusionList, true or false", target=target)
    place = f"{target}.diskLunList"
    return {"disks": {"names": disks(machine, luns(told.get("diskLunList"), place), place), "only": only}}


def luns(value: object, target: str) -> tuple[int, ...]:
    """A list of LUNs, which az sends as texts. `InvalidRequest`; `target`: where it is in the request."""
    texts = [str(lun) for lun in value] if isinstance(value, list) else ["none"]
    if not all(text.isascii() and text.isdecimal() and len(text) < 5 for text in texts):
        raise InvalidRequest(f"{target} has to be a list of LUNs, which are whole numbers", target=target)
    return tuple(map(int, texts))


def noted(change: Change, machine: Resource, found: Found) -> Resource:
    """Keep what a hypervisor told of a machine. One that did not answer stays as it was."""
    properties = {**machine.properties, BEHIND: {**machine.properties.get(BEHIND, {}), **found.address.document}}
    if found.disks:
        first, *others = found.disks
        properties["storageProfile"] = {
            "osDisk": {"name": first.name, "diskSizeGB": _gigabytes(first.size)},
            "dataDisks": [
                {"lun": lun, "name": disk.name, "diskSizeGB": _gigabytes(disk.size)} for lun, disk in enumerate(others)
            ],
        }
    if properties == machine.properties:
        return machine
    machine = replace(machine, properties=properties)
    change.save(machine)
    return machine


def made(
    change: Change, vault: Vault, there: Container, wanted: Mapping[str, Any], found: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str]]:
    """Make a resource of the new machine that an agent tells of. `there`: the container of the item that it was made
    of; `wanted`: the arguments of the job, which has its name. Its path, and what is wrong: an agent may tell anything,
    and meanwhile another machine may have got that name."""
    from keepstone.workloads.hypervisors.discovery import read_found

    group, name = str(wanted["group"]), str(wanted["name"])
    host = there.properties.get(containers.HOST) or there.name
    path = f"/subscriptions/{vault.subscription}/resourceGroups/{group}/providers/{resources.MACHINE}/{name}"
    try:
        if len(found) != 1:
            raise UsageError(f"its agent tells of {len(found)} machines")
        machine = read_found(found[0])
        with suppress(NotFound):
            resources.find(change.connection, path)
            raise UsageError(f"there is a virtual machine '{name}' by now; `keepstone vm create` gives it another name")
        told = {**machine.address.document, containers.HOST: host}
        resource, _ = resources.put(
            change, vault.subscription, group, resources.MACHINE, name, vault.location, {BEHIND: told}, {}
        )
    except KeepstoneError as error:
        return "", [f"the new machine is on '{host}', and is no resource: {error}"]
    noted(change, resource, machine)
    return resource.path, []


def _gigabytes(size: int) -> int:
    return -(-size >> 30)


def _listed(machine: Resource) -> list[dict[str, Any]]:
    """Its disks as the resource has them, the system's first."""
    profile = machine.properties.get("storageProfile")
    if not isinstance(profile, dict):
        return []
    others = profile.get("dataDisks")
    listed = [profile.get("osDisk"), *(others if isinstance(others, list) else [])]
    return [disk for disk in listed if isinstance(disk, dict)]


def _image(disk: Mapping[str, Any]) -> str:
    """The path of a disk that is a file here; empty for another one."""
    vhd = disk.get("vhd")
    parts = urlsplit(str(vhd.get("uri", ""))) if isinstance(vhd, dict) else None
    path = unquote(parts.path) if parts is not None and parts.scheme == "file" and not parts.netloc else ""
    return path if os.path.isabs(path) and "\0" not in path else ""
