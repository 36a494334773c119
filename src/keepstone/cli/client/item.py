# SPDX-License-Identifier: Apache-2.0
"""`keepstone item …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at, count, moment
from keepstone.cli.client.session import container_option, item_command, vault_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["item"]

Document = dict[str, Any]
_POLICY = click.option("--policy-name", "-p", "policy", required=True, metavar="NAME", help="The policy.")


def _state(document: Any) -> str:
    """What becomes of it, in a word."""
    if at(document, "properties.isScheduledForDeferredDelete"):
        return f"SoftDeleted, {at(document, 'properties.deferredDeleteTimeRemaining').partition('.')[0]} days left"
    return str(at(document, "properties.protectionState"))


_COLUMNS = (
    Column("item", "properties.friendlyName"),
    Column("type", "properties.workloadType"),
    Column("container", "properties.containerName"),
    Column("state", _state),
    Column("health", "properties.protectionStatus"),
    Column("policy", "properties.policyName"),
    Column("last backup", "properties.lastBackupStatus"),
    Column("newest point", "properties.lastRecoveryPoint", moment),
    Column("points", "properties.extendedInfo.recoveryPointCount", count),
)
_DETAILS = (
    *_COLUMNS,
    Column("oldest point", "properties.extendedInfo.oldestRecoveryPoint", moment),
    Column("excluded", "properties.exclude"),
    Column("included", "properties.include"),
    Column("name", "name"),
)


@click.group()
def item() -> None:
    """Protected items: folders, files and disk images under a policy."""


@vault_command(name="list")
@container_option
@click.option("--policy-name", "-p", "policy", metavar="NAME", help="Only those that have this policy.")
@click.option("--backup-management-type", "management", metavar="TYPE", help="Only those of MAB, AzureIaasVM.")
@click.option("--workload-type", "workload", metavar="TYPE", help="Only those of FileFolder, VM.")
def list_items(
    session: Session,
    vault: str,
    container: str | None,
    policy: str | None,
    management: str | None,
    workload: str | None,
) -> None:
    """List the items of a vault."""
    where = {
        "containerName": container,
        "policyName": policy,
        "backupManagementType": management,
        "itemType": workload,
    }
    found = list(session.arm.every(f"{vault}/backupProtectedItems", where))
    session.show(found, _COLUMNS, "no items; protect a folder with `keepstone protection enable`")


@item_command(name="show")
def show(session: Session, vault: str, item: Document) -> None:
    """Show what is known of an item."""
    session.show(session.arm.get(item["id"]), _DETAILS)


@item_command(name="set-policy")
@_POLICY
def set_policy(session: Session, vault: str, item: Document, policy: str) -> int:
    """Give an item another policy."""
    from keepstone.cli.client.finding import policy_id
    from keepstone.cli.client.waiting import ended

    properties = {
        "protectedItemType": at(item, "properties.protectedItemType"),
        "sourceResourceId": at(item, "properties.sourceResourceId"),
        "policyId": policy_id(vault, policy),
    }
    return ended(session, vault, session.arm.ask("PUT", item["id"], {"properties": properties}), wait=True)


@item_command(name="release-snapshots")
@click.option("--no-wait", is_flag=True, help="Do not wait for the end of the job.")
def release_snapshots(session: Session, vault: str, item: Document, no_wait: bool) -> int | None:
    """Let the snapshots go that a virtual machine keeps of its points; the points stay in the vault. The next backup
    keeps one again, if the policy says so."""
    from keepstone.cli.client.waiting import ended

    return ended(session, vault, session.arm.ask("POST", f"{item['id']}/releaseSnapshots"), wait=not no_wait)


for _command in (list_items, show, set_policy, release_snapshots):
    item.add_command(_command)
