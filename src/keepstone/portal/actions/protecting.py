# SPDX-License-Identifier: Apache-2.0
"""Protecting what was not: virtual machines, and folders, files and disks of machines."""

from __future__ import annotations

from typing import Any

from keepstone.control import containers, sources
from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Actions, Choice, Field, Plan
from keepstone.portal.api import Request
from keepstone.portal.places import Name, named
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["actions"]

actions = Actions()
_MACHINES, _FILES = "AzureIaasVM", "MAB"
_FABRIC = "backupFabrics/Azure/protectionContainers"


def _policies(visit: Visit, name: Name, management: str, default: str) -> Field:
    wanted = {"$filter": f"backupManagementType eq '{management}'"}
    found = [one["name"] for one in visit.client.every(f"{name.vault_id}/backupPolicies", **wanted)]
    chosen = default if default in found or not found else found[0]
    choices = [Choice(one, one) for one in found]
    return Field(name="policy", label=_("Policy"), kind="choice", choices=choices, default=chosen, required=True)


def _of_machine(visit: Visit) -> list[Field]:
    machine = visit.needed("vm")
    return [
        Field(name="vm", label=_("Machine"), kind="hidden", default=machine),
        _policies(visit, named(visit, "vault"), _MACHINES, "DefaultPolicy"),
    ]


@actions(
    "protect-machine", "Protect the machine", "Makes points of all of its disks, as a policy says.", fields=_of_machine
)
def protect_machine(visit: Visit) -> Plan:
    """A virtual machine."""
    name, machine = named(visit, "vault"), visit.needed("vm")
    policy = visit.text("policy", "DefaultPolicy")
    parts = machine.split("/")
    if len(parts) != 9 or not machine.startswith("/subscriptions/"):
        raise InvalidRequest(_("%(machine)s is no id of a virtual machine", machine=repr(machine)), target="vm")
    ending = f"iaasvmcontainerv2;{parts[4].casefold()};{parts[8].casefold()}"
    item = f"{name.vault_id}/{_FABRIC}/IaasVMContainer;{ending}/protectedItems/VM;{ending}"
    properties = {
        "protectedItemType": "Microsoft.Compute/virtualMachines",
        "policyId": f"{name.vault_id}/backupPolicies/{policy}",
        "sourceResourceId": machine,
    }
    return Plan(
        request=Request("PUT", item, {"properties": properties}),
        az=[("backup", "protection", "enable-for-vm", *name.at, "--vm", machine, "-p", policy)],
        keepstone=[("protection", "enable-for-vm", *name.at, "--vm", machine, "-p", policy)],
        then=link("/item", id=item),
        notice=_("The machine is protected."),
    )


def _of_path(visit: Visit) -> list[Field]:
    name = named(visit, "vault")
    found = visit.client.every(
        f"{name.vault_id}/backupProtectionContainers", **{"$filter": f"backupManagementType eq '{_FILES}'"}
    )
    known = {one["name"]: at(one, "properties.friendlyName") for one in found}
    own = containers.local_name()
    known.setdefault(own, own.partition(";")[2])
    return [
        Field(
            name="machine",
            label=_("Machine"),
            kind="choice",
            choices=[Choice(key, title) for key, title in sorted(known.items())],
            default=own,
            help=_("Others are here when their agent has registered: Infrastructure says how"),
        ),
        Field(
            name="path",
            label=_("Path"),
            help=_("A folder, a file, a disk image or a block device there"),
            required=True,
        ),
        Field(name="disk", label="", kind="check", choices=[Choice("yes", _("It is a disk: take it as one"))]),
        _policies(visit, name, _FILES, "FilesPolicy"),
        Field(name="exclude", label=_("Leave out"), kind="lines", help=_("Patterns as in .gitignore, one a line")),
        Field(name="include", label=_("Take only"), kind="lines", help=_("Patterns, one a line; everything, if empty")),
    ]


@actions(
    "protect-path", "Protect files or a disk",
    "Makes points of a folder, a file or a disk of a machine, as a policy says.",
    fields=_of_path,
)  # fmt: skip
def protect_path(visit: Visit) -> Plan:
    """A path of a machine."""
    name, path = named(visit, "vault"), visit.needed("path")
    machine = visit.text("machine") or containers.local_name()
    policy = visit.text("policy", "FilesPolicy")
    exclude, include = (visit.text(key).split("\n") for key in ("exclude", "include"))
    exclude, include = ([line.strip() for line in lines if line.strip()] for lines in (exclude, include))
    disk = "yes" in visit.texts("disk")
    whole = sources.absolute(path, elsewhere=machine != containers.local_name())
    if whole is None:
        raise InvalidRequest(_("%(path)s is no absolute path", path=repr(path)), target="path")
    properties: dict[str, Any] = {
        "protectedItemType": "MabFileFolderProtectedItem",
        "policyId": f"{name.vault_id}/backupPolicies/{policy}",
        "sourcePath": whole,
        "exclude": exclude,
        "include": include,
    }
    if disk:
        properties["sourceType"] = "DiskImage"
    item = f"{name.vault_id}/{_FABRIC}/{machine}/protectedItems/{sources.item_name(whole)}"
    patterns = [part for line in exclude for part in ("--exclude", line)]
    patterns += [part for line in include for part in ("--include", line)]
    flag = ("--disk",) if disk else ()
    return Plan(
        request=Request("PUT", item, {"properties": properties}),
        keepstone=[("protection", "enable", *name.at, "-c", machine, "--path", whole, "-p", policy, *flag, *patterns)],
        then=link("/item", id=item),
        notice=_("It is protected; its policy makes the first point, or you do."),
    )
