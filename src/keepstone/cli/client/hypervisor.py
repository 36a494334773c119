# SPDX-License-Identifier: Apache-2.0
"""`keepstone hypervisor …`: hosts whose virtual machines the service finds by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column
from keepstone.cli.client.session import vault_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["hypervisor"]

Document = dict[str, Any]
_TYPE = "GenericContainer"
_NAME = click.option("--name", "-n", required=True, metavar="NAME", help="The hypervisor.")
_ENDPOINTS = "properties.extendedInformation.serviceEndpoints"
_COLUMNS = (
    Column("name", "properties.friendlyName"),
    Column("status", "properties.registrationStatus"),
    Column("libvirt", f"{_ENDPOINTS}.libvirt"),
    Column("monitors", f"{_ENDPOINTS}.qemu"),
    Column("on", f"{_ENDPOINTS}.host"),
    Column("machines in group", f"{_ENDPOINTS}.resourceGroup"),
)


def _data(document: Any) -> list[str]:
    """Each with its LUN."""
    profile = (document.get("properties") or {}).get("storageProfile") or {}
    return [f"{disk.get('lun')}: {disk.get('name')}" for disk in profile.get("dataDisks") or ()]


_MACHINES = (
    Column("name", "name"),
    Column("group", lambda document: str(document["id"]).split("/")[4]),
    Column("address", "properties.keepstone.machine"),
    Column("system disk", "properties.storageProfile.osDisk.name"),
    Column("data disks", _data),
)


@click.group()
def hypervisor() -> None:
    """Hypervisors: their virtual machines can be protected, which `keepstone vm list` shows."""


@vault_command(name="register")
@_NAME
@click.option("--libvirt", metavar="URI", help="A libvirt of the service's machine, such as qemu:///system.")
@click.option("--qemu", metavar="FOLDER", help="Where each machine of QEMU has its monitor, NAME.qmp, "
                                                             "and the socket of its agent, NAME.qga.")  # fmt: skip
@click.option("--on", "host", metavar="MACHINE", help="The machine with an agent that it is on, by the name of its "
                                                      "container [default: the service's].")  # fmt: skip
@click.option("--machine-group", metavar="NAME", help="The resource group of its machines [default: the vault's].")
def register(
    session: Session,
    vault: str,
    name: str,
    libvirt: str | None,
    qemu: str | None,
    host: str | None,
    machine_group: str | None,
) -> None:
    """Register a hypervisor with a vault and find its machines; one that is registered gets another place."""
    from keepstone.cli.client.finding import find_container
    from keepstone.errors import UsageError

    if (libvirt is None) == (qemu is None):
        raise UsageError("where are its machines? give --libvirt or --qemu")
    place = qemu or "" if host is not None else session.path(qemu or "")
    endpoints = {"libvirt": libvirt} if libvirt is not None else {"qemu": place}
    if host is not None:
        endpoints["host"] = str(find_container(session, vault, host)["name"])
    if machine_group is not None:
        endpoints["resourceGroup"] = machine_group
    body = {
        "containerType": _TYPE,
        "backupManagementType": "DefaultBackup",
        "friendlyName": name,
        "extendedInformation": {"serviceEndpoints": endpoints},
    }
    path = _path(vault, name)
    session.arm.finish(session.arm.ask("PUT", path, {"properties": body}))
    session.arm.finish(session.arm.ask("POST", f"{vault}/backupFabrics/Azure/refreshContainers"))
    session.show(session.arm.get(path), _COLUMNS)


@vault_command(name="list")
def list_hypervisors(session: Session, vault: str) -> None:
    """List the hypervisors of a vault."""
    found = list(session.arm.every(f"{vault}/backupProtectionContainers", {"containerType": _TYPE}))
    session.show(found, _COLUMNS, "no hypervisors; add one with `keepstone hypervisor register`")


@vault_command(name="refresh")
def refresh(session: Session, vault: str) -> None:
    """Look for machines now, and list what can be protected. It is done every hour, too."""
    from keepstone.cli.client.vm import TYPE

    session.arm.finish(session.arm.ask("POST", f"{vault}/backupFabrics/Azure/refreshContainers"))
    found = [
        one
        for one in session.arm.every(f"{session.subscription}/providers/{TYPE}")
        if (one.get("properties") or {}).get("keepstone")
    ]
    session.show(found, _MACHINES, "no machines were found")


@vault_command(name="unregister")
@_NAME
@yes_option
def unregister(session: Session, vault: str, name: str, yes: bool) -> None:
    """Look for the machines of a hypervisor no more. Those that are known stay, and so do their points."""
    path = _path(vault, name)
    session.arm.get(path)
    session.console.confirm(f"Unregister the hypervisor {name}?", yes)
    session.arm.finish(session.arm.ask("DELETE", path))
    session.tell(f"hypervisor {name} is unregistered")


def _path(vault: str, name: str) -> str:
    from keepstone.cli.client.finding import named

    return named(f"{vault}/backupFabrics/Azure", "protectionContainers", f"{_TYPE};{name}")


for _command in (register, list_hypervisors, refresh, unregister):
    hypervisor.add_command(_command)
