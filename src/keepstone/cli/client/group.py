# SPDX-License-Identifier: Apache-2.0
"""`keepstone group …`: resource groups, as `az group`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepstone.cli.client.output import Column
from keepstone.cli.client.session import client_command, yes_option
from keepstone.cli.client.tags import tags_of, tags_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["group"]

_NAME = click.option("--name", "-n", "--resource-group", "-g", required=True, metavar="NAME", help="The group.")
_COLUMNS = (Column("name", "name"), Column("location", "location"), Column("tags", "tags"))


@click.group()
def group() -> None:
    """Resource groups: what vaults lie in."""


@client_command(name="create")
@_NAME
@click.option("--location", "-l", metavar="NAME", help="The region [default: the service's].")
@tags_option
def create(session: Session, name: str, location: str | None, tags: tuple[str, ...]) -> None:
    """Make a group, or change the tags of the one that there is."""
    from keepstone.cli.client.finding import group_path

    body = {"location": location or session.location, "tags": tags_of(tags) or {}}
    session.show(session.arm.ask("PUT", group_path(session, name), body).body, _COLUMNS)


@client_command(name="list")
def list_groups(session: Session) -> None:
    """List the groups that you may see."""
    found = list(session.arm.every(f"{session.subscription}/resourceGroups"))
    session.show(found, _COLUMNS, "no groups; make one with `keepstone group create`")


@client_command(name="show")
@_NAME
def show(session: Session, name: str) -> None:
    """Show a group."""
    from keepstone.cli.client.finding import group_path

    session.show(session.arm.get(group_path(session, name)), _COLUMNS)


@client_command(name="delete")
@_NAME
@yes_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def delete(session: Session, name: str, yes: bool, dry_run: bool) -> None:
    """Delete a group and what is in it. A vault is not deleted in this way: it has to go first."""
    from keepstone.cli.client.finding import group_path
    from keepstone.cli.client.radius import confirm, reach
    from keepstone.cli.client.radius import show as tell

    path = group_path(session, name)
    if dry_run:
        tell(session, reach(session, path))
        return
    confirm(session, f"Delete group {name} and what is in it?", path, yes)
    session.arm.finish(session.arm.ask("DELETE", path))
    session.tell(f"group {name} is deleted")


for _command in (create, list_groups, show, delete):
    group.add_command(_command)
