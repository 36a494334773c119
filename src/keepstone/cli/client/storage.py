# SPDX-License-Identifier: Apache-2.0
"""`keepstone storage …`: storage accounts, which stand for folders that disks are restored into.

Azure restores disks of a virtual machine into a storage account, and `az backup restore restore-disks` names one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column
from keepstone.cli.client.resource import GROUP, all_of, forget, path_of
from keepstone.cli.client.session import client_command, yes_option
from keepstone.cli.formats import format_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["storage"]

_TYPE = "Microsoft.Storage/storageAccounts"
_NAME = click.option("--name", "-n", required=True, metavar="NAME", help="The storage account.")
_COLUMNS = (
    Column("name", "name"),
    Column("folder", "properties.keepstone.path"),
    Column("format", "properties.keepstone.format"),
)


@click.group()
def storage() -> None:
    """Storage accounts: folders that the disks of virtual machines are restored into."""


@client_command(name="create")
@GROUP
@_NAME
@click.option("--path", required=True, metavar="FOLDER", help="A folder of the machine that restores into it.")
@format_option
def create(session: Session, group: str, name: str, path: str, kind: str | None) -> None:
    """Let a storage account stand for a folder, where each restore gets a folder of its own."""
    own: dict[str, Any] = {"path": session.path(path)}
    if kind is not None:
        own["format"] = kind
    body = {"location": session.location, "kind": "StorageV2", "properties": {"keepstone": own}}
    session.show(session.arm.ask("PUT", path_of(session, group, _TYPE, name), body).body, _COLUMNS)


@client_command(name="list")
@GROUP
def list_accounts(session: Session, group: str) -> None:
    """List the storage accounts of a group."""
    session.show(
        all_of(session, group, _TYPE), _COLUMNS, "no storage accounts; make one with `keepstone storage create`"
    )


@client_command(name="delete")
@GROUP
@_NAME
@yes_option
def delete(session: Session, group: str, name: str, yes: bool) -> None:
    """Forget a storage account. Its folder stays, with all that is in it."""
    forget(session, path_of(session, group, _TYPE, name), f"storage account {name}", yes)


for _command in (create, list_accounts, delete):
    storage.add_command(_command)
