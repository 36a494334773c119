# SPDX-License-Identifier: Apache-2.0
"""`keepstone vm …`: virtual machines, as Azure's clients look them up before they protect one.

Behind one is a machine of QEMU, which is backed up while it runs, or a disk image of the service's machine, which is
backed up as it lies there: so while its machine does not run, or from a snapshot.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at
from keepstone.cli.client.resource import GROUP, all_of, forget, path_of
from keepstone.cli.client.session import client_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["TYPE", "vm"]

TYPE = "Microsoft.Compute/virtualMachines"
_NAME = click.option("--name", "-n", required=True, metavar="NAME", help="The virtual machine.")
_COLUMNS = (
    Column("name", "name"),
    Column("location", "location"),
    Column("machine", "properties.keepstone.machine"),
    Column("disk", lambda document: at(document, "properties.storageProfile.osDisk.vhd.uri")
                                    or at(document, "properties.storageProfile.osDisk.name")),
)  # fmt: skip


@click.group()
def vm() -> None:
    """Virtual machines: of QEMU, or disk images of the service's machine."""


@client_command(name="create")
@GROUP
@_NAME
@click.option("--qemu", metavar="SOCKET", help="The monitor (QMP) of a machine of QEMU.")
@click.option("--agent", metavar="SOCKET", help="The socket of its guest agent, which brings it to rest for a moment.")
@click.option(
    "--fleece", metavar="FOLDER", help="Where what it overwrites during a backup is kept [default: /var/tmp]."
)
@click.option("--disk", metavar="FILE", help="A disk image, a file or block device of the service's machine.")
def create(
    session: Session, group: str, name: str, qemu: str | None, agent: str | None, fleece: str | None, disk: str | None
) -> None:
    """Make a virtual machine of a machine of QEMU or of a disk image, or give one another. The machines of a
    hypervisor are found by themselves, see `keepstone hypervisor register`."""
    from keepstone.errors import UsageError

    if (qemu is None) == (disk is None):
        raise UsageError("what is behind it? give --qemu or --disk")
    if qemu is None and (agent or fleece):
        raise UsageError("--agent and --fleece are of a machine of QEMU; give --qemu, or leave them out")
    properties: dict[str, Any]
    if disk is not None:
        uri = Path(session.path(disk)).as_uri()
        properties = {"storageProfile": {"osDisk": {"name": Path(disk).name, "vhd": {"uri": uri}}}}
    else:
        own = {"machine": f"qemu:{session.path(qemu or '')}"}
        own |= {key: session.path(path) for key, path in (("agent", agent), ("fleece", fleece)) if path is not None}
        properties = {"keepstone": own}
    body = {"location": session.location, "properties": properties}
    session.show(session.arm.ask("PUT", path_of(session, group, TYPE, name), body).body, _COLUMNS)


@client_command(name="list")
@GROUP
def list_machines(session: Session, group: str) -> None:
    """List the virtual machines of a group."""
    session.show(all_of(session, group, TYPE), _COLUMNS, "no virtual machines; make one with `keepstone vm create`")


@client_command(name="show")
@GROUP
@_NAME
def show(session: Session, group: str, name: str) -> None:
    """Show a virtual machine."""
    session.show(session.arm.get(path_of(session, group, TYPE, name)), _COLUMNS)


@client_command(name="delete")
@GROUP
@_NAME
@yes_option
def delete(session: Session, group: str, name: str, yes: bool) -> None:
    """Forget a virtual machine. It stays as it is, and so do its recovery points."""
    forget(session, path_of(session, group, TYPE, name), f"virtual machine {name}", yes)


for _command in (create, list_machines, show, delete):
    vm.add_command(_command)
