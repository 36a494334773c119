# SPDX-License-Identifier: Apache-2.0
"""A point of a virtual machine: its disks restored, its disks put back, or a new machine made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keepstone.disks.writing import FORMATS
from keepstone.errors import InvalidRequest, KeepstoneError
from keepstone.portal.actions.action import Actions, Choice, Field, Plan
from keepstone.portal.actions.targets import Subject, elsewhere, machines, over, subject, target_field
from keepstone.portal.api import Document, Request
from keepstone.portal.places import subscription
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["actions"]

actions = Actions()
_FOLDER, _ACCOUNT, _IN_PLACE, _NEW = "folder", "account", "original", "new"
_IMAGE = "disk.img"


def _fields(visit: Visit) -> list[Field]:
    about = subject(visit)
    ways = [
        Choice(_FOLDER, _("its disks, into a new folder")),
        Choice(_ACCOUNT, _("its disks, into a storage account")),
    ]
    if at(about.point, "properties.isManagedVirtualMachine"):
        ways += [
            Choice(_IN_PLACE, _("its disks, over those of the machine")),
            Choice(_NEW, _("a new machine, which runs at once and is copied meanwhile")),
        ]
    accounts = [Choice("", _("none")), *_resources(visit, "Microsoft.Storage/storageAccounts")]
    networks = [Choice("", _("none")), *_resources(visit, "Microsoft.Network/virtualNetworks")]
    fields = [
        Field(name="way", label=_("Restore"), kind="choice", choices=ways, default=_FOLDER),
        target_field(_("A folder, which is made")),
        Field(name="account", label=_("Storage account"), kind="choice", choices=accounts),
        Field(
            name="format",
            label=_("As images of"),
            kind="choice",
            choices=(Choice("", _("the usual format")), *(Choice(name, name) for name in FORMATS)),
        ),
        machines(visit, about),
    ]
    disks = _disks(visit, about)
    if len(disks) > 1:
        fields.append(
            Field(
                name="disks",
                label=_("Of its data disks only these"),
                kind="choices",
                choices=[Choice(name, name) for name in disks],
                help=_("All, if none is chosen. The system's always is among them"),
            )
        )
    if len(ways) > 2:
        fields += [
            Field(
                name="safety",
                label=_("Over its disks: what is there now"),
                kind="choice",
                choices=(Choice("yes", _("becomes a point first")), Choice("no", _("is lost"))),
                default="yes",
            ),
            Field(name="machine", label=_("Name of the new machine")),
            Field(name="network", label=_("Network of the new machine"), kind="choice", choices=networks),
        ]
    return fields


@actions(
    "restore-machine", "Restore the machine",
    "Its disks become new images, or what the machine has, or those of a new machine.", fields=_fields,
)  # fmt: skip
def restore_machine(visit: Visit) -> Plan:
    """The disks of a machine, or a machine."""
    about = subject(visit)
    way, disks = visit.text("way", _FOLDER), visit.texts("disks")
    account, kind = visit.text("account"), visit.text("format")
    own: dict[str, Any] = {}
    wanted: dict[str, Any] = {"objectType": "IaasVMRestoreRequest", "recoveryType": "RestoreDisks"}
    options: tuple[str, ...] = ()
    if disks:
        own["disks"] = disks
        options += tuple(word for name in disks for word in ("--disk", name))
    radius: list[tuple[str, object]] = []
    is_safe = visit.text("safety", "yes") != "no"
    if way == _IN_PLACE:
        if kind or visit.text("container"):
            raise InvalidRequest(_("in place it stays where it is, as it is: choose no format and no other machine"))
        wanted["recoveryType"] = "OriginalLocation"
        own["safetyPoint"] = is_safe
        options += ("--in-place", *(() if is_safe else ("--no-safety-point",)))
        radius = [
            *over(visit, about),
            (_("Disks that are overwritten"), ", ".join(disks) if disks else _("all that the point has")),
            (_("The machine"), _("is paused meanwhile, and starts anew")),
            (_("What is there now"), _("becomes a point first") if is_safe else _("is lost")),
        ]
        if account:  # az asks for one, whatever it is for
            wanted["storageAccountId"] = account
    elif way == _ACCOUNT or (way == _NEW and account):
        if not account:
            raise InvalidRequest(_("choose a storage account"), target="account")
        wanted["storageAccountId"] = account
        options += "--storage-account", account
    else:
        place, more = elsewhere(visit)
        own["targetPath"] = place.pop("targetPath")
        wanted |= place
        options += more
    if kind:
        own["format"] = kind
        options += "--format", kind
    if way == _NEW:
        if visit.text("container"):
            raise InvalidRequest(_("a new machine is made where the old one is"), target="container")
        new = _new_machine(visit, about)
        wanted |= new
        options += "--new-machine", new["targetVirtualMachineId"].rpartition("/")[2]
        if "virtualNetworkId" in new:
            options += "--vnet", new["virtualNetworkId"]
    if own:
        wanted["keepstone"] = own
    return Plan(
        request=Request("POST", f"{about.name.id}/restore", {"properties": wanted}),
        az=_az(visit, about, wanted),
        keepstone=[("restore", "machine", *about.name.held, *options, "--yes", about.name.point)],
        radius=radius,
        then=link("/point", id=about.name.id),
        notice=_("The restore begins."),
    )


def _new_machine(visit: Visit, about: Subject) -> dict[str, str]:
    """`InvalidRequest`."""
    name, network = visit.text("machine").strip(), visit.text("network")
    if not name or "/" in name:
        raise InvalidRequest(_("say what the new machine is to be called"), target="machine")
    group = f"{subscription(visit)}/resourceGroups/{about.name.group}"
    new = {
        "recoveryType": "AlternateLocation",
        "targetVirtualMachineId": f"{group}/providers/Microsoft.Compute/virtualMachines/{name}",
    }
    return new | ({"virtualNetworkId": network} if network else {})


def _az(visit: Visit, about: Subject, wanted: Document) -> Sequence[Sequence[str]]:
    """The same in az's words: none where it has none, as for a folder, or a format."""
    own, mode = wanted.get("keepstone", {}), wanted["recoveryType"]
    if "storageAccountId" not in wanted or own.get("format") or own.get("safetyPoint") is False:
        return ()
    group = "--target-resource-group", about.name.group
    command = ["backup", "restore", "restore-disks", *about.name.held, "-r", about.name.point]
    command += ["--storage-account", wanted["storageAccountId"], *group]
    if own.get("disks"):
        luns = _luns(visit, about)
        if not all(name in luns for name in own["disks"]):
            return ()
        command += ["--diskslist", *(luns[name] for name in own["disks"])]
    if mode == "OriginalLocation":
        command += ["--restore-mode", mode]
    if mode == "AlternateLocation":
        network = str(wanted.get("virtualNetworkId", ""))
        subnets = _subnets(visit, network) if network else []
        if not subnets:
            return ()
        command += ["--target-vm-name", wanted["targetVirtualMachineId"].rpartition("/")[2]]
        command += ["--target-vnet-name", network.rpartition("/")[2], "--target-vnet-resource-group"]
        command += [network.split("/")[4], "--target-subnet-name", subnets[0]]
    return [command]


def _resources(visit: Visit, kind: str) -> list[Choice]:
    """Those of a type that he may see."""
    found = visit.client.every(f"{subscription(visit)}/providers/{kind}")
    return [Choice(one["id"], f"{one['name']} ({one['id'].split('/')[4]})") for one in found]


def _disks(visit: Visit, about: Subject) -> list[str]:
    """The names of the point's disks, as far as they can be told."""
    try:
        listed = visit.client.get(f"{about.name.id}/entries")
    except KeepstoneError:
        return []
    names = [str(one["name"]) for one in listed["value"]]
    return [] if listed["kind"] != "disk" or _IMAGE in names else names


def _luns(visit: Visit, about: Subject) -> dict[str, str]:
    """The LUNs of the machine's data disks, by their names."""
    try:
        machine = visit.client.get(str(at(about.item, "properties.sourceResourceId")))
    except KeepstoneError:
        return {}
    disks = at(machine, "properties.storageProfile.dataDisks") or []
    return {str(disk["name"]): str(disk["lun"]) for disk in disks if "lun" in disk and disk.get("name")}


def _subnets(visit: Visit, network: str) -> list[str]:
    try:
        found = visit.client.get(network)
    except KeepstoneError:
        return []
    return [str(one["name"]) for one in at(found, "properties.subnets") or []]
