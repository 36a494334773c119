# SPDX-License-Identifier: Apache-2.0
"""`keepstone vm …`: virtual machines that are disk images of the service's machine.

Clients of Azure protect virtual machines, which they look up as resources. This one has a disk image as its unmanaged
disk; it is backed up as it lies there, so while the machine does not run, or from a snapshot.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepstone.cli.client.output import Column
from keepstone.cli.client.session import client_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["vm"]

_TYPE = "Microsoft.Compute/virtualMachines"
_GROUP = click.option("--resource-group", "-g", "group", required=True, metavar="NAME", help="The resource group.")
_NAME = click.option("--name", "-n", required=True, metavar="NAME", help="The virtual machine.")
_COLUMNS = (
    Column("name", "name"),
    Column("location", "location"),
    Column("disk", "properties.storageProfile.osDisk.vhd.uri"),
)


@click.group()
def vm() -> None:
    """Virtual machines that are disk images of the service's machine."""


@client_command(name="create")
@_GROUP
@_NAME
@click.option("--disk", required=True, metavar="FILE", help="The disk image, a file or block device of that machine.")
def create(session: Session, group: str, name: str, disk: str) -> None:
    """Make a virtual machine of a disk image, or give one another image."""
    uri = Path(session.path(disk)).as_uri()
    body = {
        "location": session.location,
        "properties": {"storageProfile": {"osDisk": {"name": Path(disk).name, "vhd": {"uri": uri}}}},
    }
    session.show(session.arm.ask("PUT", _path(session, group, name), body).body, _COLUMNS)


@client_command(name="list")
@_GROUP
def list_machines(session: Session, group: str) -> None:
    """List the virtual machines of a group."""
    from keepstone.cli.client.finding import group_path

    found = list(session.arm.every(f"{group_path(session, group)}/providers/{_TYPE}"))
    session.show(found, _COLUMNS, "no virtual machines; make one with `keepstone vm create`")


@client_command(name="show")
@_GROUP
@_NAME
def show(session: Session, group: str, name: str) -> None:
    """Show a virtual machine."""
    session.show(session.arm.get(_path(session, group, name)), _COLUMNS)


@client_command(name="delete")
@_GROUP
@_NAME
@yes_option
def delete(session: Session, group: str, name: str, yes: bool) -> None:
    """Forget a virtual machine. Its disk image stays, and so do its recovery points."""
    session.console.confirm(f"Forget the virtual machine {name}?", yes)
    session.arm.finish(session.arm.ask("DELETE", _path(session, group, name)))
    session.tell(f"virtual machine {name} is forgotten")


def _path(session: Session, group: str, name: str) -> str:
    from keepstone.cli.client.finding import group_path

    return f"{group_path(session, group)}/providers/{_TYPE}/{name}"


for _command in (create, list_machines, show, delete):
    vm.add_command(_command)
