# SPDX-License-Identifier: Apache-2.0
"""`keepstone container …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.machine import MACHINE, machine_name
from keepstone.cli.client.output import Column, at, count, moment
from keepstone.cli.client.session import vault_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["container"]

Document = dict[str, Any]
_NAME = click.option(
    "--name",
    "-n",
    "--container-name",
    "-c",
    "name",
    required=True,
    metavar="NAME",
    help="The container, or its machine.",
)
_COLUMNS = (
    Column("name", "name"),
    Column("friendly name", "properties.friendlyName"),
    Column("type", "properties.backupManagementType"),
    Column("status", "properties.registrationStatus"),
    Column("items", "properties.protectedItemCount", count),
    Column("health", "properties.healthStatus"),
    Column("agent", lambda document: _agent(document) and at(document, "properties.agentVersion")),
    Column("last seen", "properties.keepstone.lastSeen", moment),
)
_DETAILS = (
    *_COLUMNS,
    Column("system", lambda document: _system(at(document, "properties.keepstone.system") or {})),
    Column("certificate until", "properties.keepstone.certificateEnds", moment),
    Column("what is wrong", lambda document: [f"{one['message']}; {' '.join(one['recommendations'])}"
                                              for one in at(document, "properties.mabContainerHealthDetails") or ()]),
)  # fmt: skip


def _agent(document: Any) -> Any:
    """What is shown of a machine's agent; None where it has none."""
    return at(document, "properties.keepstone")


def _system(facts: Document) -> str:
    """Such as `Linux 6.1, Python 3.11, 4 processors`."""
    parts = [" ".join(str(facts[key]) for key in ("os", "release") if facts.get(key))]
    parts.append(f"Python {facts['python']}" if facts.get("python") else "")
    parts.append(f"{facts['cpus']} processors" if facts.get("cpus") else "")
    return ", ".join(part for part in parts if part)


@click.group()
def container() -> None:
    """Containers: machines, and whatever else holds items."""


@vault_command(name="list")
@click.option("--backup-management-type", "management", metavar="TYPE", help="Only those of MAB, AzureIaasVM.")
def list_containers(session: Session, vault: str, management: str | None) -> None:
    """List the containers that are registered with a vault."""
    found = list(session.arm.every(f"{vault}/backupProtectionContainers", {"backupManagementType": management}))
    session.show(found, _COLUMNS, "no containers; one registers with its first item")


@vault_command(name="show")
@_NAME
def show(session: Session, vault: str, name: str) -> None:
    """Show a container."""
    from keepstone.cli.client.finding import find_container

    session.show(find_container(session, vault, name), _DETAILS)


@vault_command(name="register")
@click.option(
    "--name", "-n", "--container-name", "-c", "name", metavar="NAME", help="The machine [default: the service's own]."
)
def register(session: Session, vault: str, name: str | None) -> None:
    """Register the service's machine with a vault. Its first item does so as well; others register by their agents."""
    from keepstone.cli.client.finding import named

    name = machine_name(session, vault, name)
    path = named(f"{vault}/backupFabrics/Azure", "protectionContainers", name)
    properties = {"containerType": MACHINE, "backupManagementType": "MAB", "friendlyName": name.partition(";")[2]}
    session.arm.finish(session.arm.ask("PUT", path, {"properties": properties}))
    session.show(session.arm.get(path), _COLUMNS)


@vault_command(name="unregister")
@_NAME
@yes_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def unregister(session: Session, vault: str, name: str, yes: bool, dry_run: bool) -> None:
    """Remove a container that holds no items, and the identity of its agent."""
    from keepstone.cli.client.finding import find_container
    from keepstone.cli.client.radius import confirm, reach
    from keepstone.cli.client.radius import show as tell

    found = find_container(session, vault, name)
    title = at(found, "properties.friendlyName")
    if dry_run:
        tell(session, reach(session, found["id"]))
        return
    confirm(session, f"Unregister {title}?", found["id"], yes)
    session.arm.finish(session.arm.ask("DELETE", found["id"]))
    session.tell(f"{title} is unregistered")


@vault_command(name="revoke")
@_NAME
@yes_option
def revoke(session: Session, vault: str, name: str, yes: bool) -> None:
    """Take the identity of a machine's agent away. Items and points stay, and it may register again."""
    from keepstone.cli.client.finding import find_container, named
    from keepstone.errors import NotFound

    found = find_container(session, vault, name)
    title = at(found, "properties.friendlyName")
    if not _agent(found) or at(found, "properties.keepstone.revoked"):
        raise NotFound(f"{title} has no agent; `keepstone container list` shows which have")
    session.console.confirm(f"Take the identity of {title} away? What it was to do is cancelled.", yes)
    session.arm.ask("DELETE", named(vault, "registeredIdentities", found["name"]))
    session.tell(f"{title} is not let in any more; `keepstone vault credentials download` lets it register again")


for _command in (list_containers, show, register, revoke, unregister):
    container.add_command(_command)
