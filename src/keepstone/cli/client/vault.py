# SPDX-License-Identifier: Apache-2.0
"""`keepstone vault …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.enrolment import credentials
from keepstone.cli.client.output import Column
from keepstone.cli.client.recovery_kit import recovery_kit
from keepstone.cli.client.session import client_command, yes_option
from keepstone.cli.client.tags import tags_of, tags_option
from keepstone.cli.client.usage import usage
from keepstone.cli.service.rebuild import rebuild

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["vault"]

Document = dict[str, Any]
_STATES = ("Disabled", "Unlocked", "Locked")
_DELETE_STATES = ("Enable", "Disable", "AlwaysON")  # as az spells them
_SECURITY = "properties.securitySettings"
_COLUMNS = (
    Column("name", "name"),
    Column("group", lambda document: document["id"].split("/")[4]),
    Column("location", "location"),
    Column("soft delete", f"{_SECURITY}.softDeleteSettings.softDeleteState"),
    Column("days", f"{_SECURITY}.softDeleteSettings.softDeleteRetentionPeriodInDays"),
    Column("immutability", f"{_SECURITY}.immutabilitySettings.state"),
    Column("security", "properties.bcdrSecurityLevel"),
    Column("tags", "tags"),
)
_PROPERTIES = (
    Column("setting", "name"),
    Column("soft delete", "properties.softDeleteFeatureState"),
    Column("days", "properties.softDeleteRetentionPeriodInDays"),
    Column("redundancy", "properties.storageModelType"),
    Column("cross-region restore", "properties.crossRegionRestoreFlag"),
)
_NAME = click.option(
    "--name", "-n", "--vault-name", "-v", "name", envvar="KEEPSTONE_VAULT", metavar="NAME",
    help="The vault [also: KEEPSTONE_VAULT; default: the only one].",
)  # fmt: skip
_THIS = click.option("--name", "-n", "--vault-name", "-v", "name", required=True, metavar="NAME", help="The vault.")
_GROUP = click.option(
    "--resource-group", "-g", "group", envvar="KEEPSTONE_GROUP", metavar="NAME",
    help="Its group [also: KEEPSTONE_GROUP; default: where the vault is].",
)  # fmt: skip
_IMMUTABILITY = click.option(
    "--immutability-state", type=click.Choice(_STATES, case_sensitive=False),
    help="Whether points may go before their time; Locked is for ever.",
)  # fmt: skip
_SOFT_DELETE = click.option(
    "--soft-delete-state", type=click.Choice(_DELETE_STATES, case_sensitive=False),
    help="Whether what is deleted can be taken back; AlwaysON is for ever.",
)  # fmt: skip
_DAYS = click.option("--soft-delete-duration", type=int, metavar="DAYS", help="For how long: 14 to 180 days.")


@click.group()
def vault() -> None:
    """Vaults: each has policies, items, and a store and keys of its own."""


@client_command(name="create")
@_THIS
@click.option(
    "--resource-group", "-g", "group", envvar="KEEPSTONE_GROUP", required=True, metavar="NAME",
    help="Its group [also: KEEPSTONE_GROUP].",
)  # fmt: skip
@click.option("--location", "-l", metavar="NAME", help="The region [default: the service's].")
@_IMMUTABILITY
@_SOFT_DELETE
@_DAYS
@tags_option
def create(
    session: Session,
    name: str,
    group: str,
    location: str | None,
    immutability_state: str | None,
    soft_delete_state: str | None,
    soft_delete_duration: int | None,
    tags: tuple[str, ...],
) -> None:
    """Make a vault, with its store, its keys and its recovery kit."""
    from keepstone.cli.client.finding import vault_path
    from keepstone.errors import AlreadyExists, NotFound

    path = vault_path(session, group, name)
    try:
        session.arm.get(path)
    except NotFound:
        pass
    else:
        raise AlreadyExists(f"there is a vault {name} in group {group}; change it with `keepstone vault update`")
    body = {
        "location": location or session.location,
        "properties": _settings(immutability_state, soft_delete_state, soft_delete_duration),
        "tags": tags_of(tags) or {},
    }
    session.arm.finish(session.arm.ask("PUT", path, body))
    session.show(session.arm.get(path), _COLUMNS)


@client_command(name="list")
@_GROUP
def list_vaults(session: Session, group: str | None) -> None:
    """List the vaults that you may see."""
    from keepstone.cli.client.finding import group_path

    within = session.subscription if group is None else group_path(session, group)
    found = list(session.arm.every(f"{within}/providers/Microsoft.RecoveryServices/vaults"))
    session.show(found, _COLUMNS, "no vaults; make one with `keepstone vault create`")


@client_command(name="show")
@_NAME
@_GROUP
def show(session: Session, name: str | None, group: str | None) -> None:
    """Show a vault."""
    from keepstone.cli.client.finding import vault_path

    session.show(session.arm.get(vault_path(session, group, name)), _COLUMNS)


@client_command(name="update")
@_NAME
@_GROUP
@_IMMUTABILITY
@_SOFT_DELETE
@_DAYS
@tags_option
@yes_option
def update(
    session: Session,
    name: str | None,
    group: str | None,
    immutability_state: str | None,
    soft_delete_state: str | None,
    soft_delete_duration: int | None,
    tags: tuple[str, ...],
    yes: bool,
) -> None:
    """Change settings and tags of a vault."""
    from keepstone.cli.client.finding import vault_path
    from keepstone.errors import UsageError

    body: Document = {}
    settings = _settings(immutability_state, soft_delete_state, soft_delete_duration)
    if settings:
        body["properties"] = settings
    if tags:
        body["tags"] = tags_of(tags)
    if not body:
        raise UsageError("nothing is to be changed; give a setting or --tags")
    path = vault_path(session, group, name)
    for chosen, word in ((immutability_state, "Locked"), (soft_delete_state, "AlwaysON")):
        if chosen == word:
            session.console.confirm(f"{word} can never be taken back, by nobody. Set it?", yes)
    session.arm.finish(session.arm.ask("PATCH", path, body))
    session.show(session.arm.get(path), _COLUMNS)


@client_command(name="delete")
@_THIS
@_GROUP
@yes_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def delete(session: Session, name: str, group: str | None, yes: bool, dry_run: bool) -> None:
    """Delete a vault that holds no items; for as long as its soft delete says it can be taken back."""
    from keepstone.cli.client.finding import vault_path
    from keepstone.cli.client.radius import confirm, reach
    from keepstone.cli.client.radius import show as tell

    path = vault_path(session, group, name)
    title = session.arm.get(path)["name"]
    if dry_run:
        tell(session, reach(session, path))
        return
    confirm(session, f"Delete vault {title}?", path, yes)
    session.arm.finish(session.arm.ask("DELETE", path))
    session.tell(f"vault {title} is deleted")


@vault.group(name="backup-properties")
def backup_properties() -> None:
    """Soft delete and redundancy of a vault, as az shows them."""


@client_command(name="show")
@_NAME
@_GROUP
def show_properties(session: Session, name: str | None, group: str | None) -> None:
    """Show them."""
    from keepstone.cli.client.finding import vault_path

    path = vault_path(session, group, name)
    session.show([session.arm.get(f"{path}/{one}") for one in (_STORAGE_CONFIG, _CONFIG)], _PROPERTIES)


@client_command(name="set")
@_NAME
@_GROUP
@click.option(
    "--soft-delete-feature-state", "state", type=click.Choice(_DELETE_STATES, case_sensitive=False),
    help="Whether what is deleted can be taken back; AlwaysON is for ever.",
)  # fmt: skip
@_DAYS
@click.option("--backup-storage-redundancy", "redundancy", metavar="KIND", help="LocallyRedundant, in this version.")
@yes_option
def set_properties(
    session: Session,
    name: str | None,
    group: str | None,
    state: str | None,
    soft_delete_duration: int | None,
    redundancy: str | None,
    yes: bool,
) -> None:
    """Change them."""
    from keepstone.cli.client.finding import vault_path
    from keepstone.errors import UsageError

    if state is None and soft_delete_duration is None and redundancy is None:
        raise UsageError("nothing is to be changed; give --soft-delete-feature-state, --soft-delete-duration or "
                         "--backup-storage-redundancy")  # fmt: skip
    path = vault_path(session, group, name)
    if state == "AlwaysON":
        session.console.confirm("AlwaysON can never be taken back, by nobody. Set it?", yes)
    if redundancy is not None:
        session.arm.ask("PATCH", f"{path}/{_STORAGE_CONFIG}", {"properties": {"storageModelType": redundancy}})
    settings: Document = {} if state is None else {"softDeleteFeatureState": _spelled(state)}
    if soft_delete_duration is not None:
        settings["softDeleteRetentionPeriodInDays"] = soft_delete_duration
    if settings:
        session.arm.ask("PATCH", f"{path}/{_CONFIG}", {"properties": settings})
    session.show([session.arm.get(f"{path}/{one}") for one in (_STORAGE_CONFIG, _CONFIG)], _PROPERTIES)


_CONFIG = "backupconfig/vaultconfig"
_STORAGE_CONFIG = "backupstorageconfig/vaultstorageconfig"


def _settings(immutability: str | None, state: str | None, days: int | None) -> Document:
    """Properties of a vault with what of these is given."""
    security: Document = {}
    if immutability is not None:
        security["immutabilitySettings"] = {"state": immutability}
    soft: Document = {} if state is None else {"softDeleteState": _spelled(state)}
    if days is not None:
        soft["softDeleteRetentionPeriodInDays"] = days
    if soft:
        security["softDeleteSettings"] = soft
    return {"securitySettings": security} if security else {}


def _spelled(state: str) -> str:
    """az says Enable where the API says Enabled."""
    return {"Enable": "Enabled", "Disable": "Disabled"}.get(state, state)


for _command in (create, list_vaults, show, usage, update, delete, rebuild, credentials, recovery_kit):
    vault.add_command(_command)
for _command in (show_properties, set_properties):
    backup_properties.add_command(_command)
