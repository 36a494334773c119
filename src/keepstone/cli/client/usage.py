# SPDX-License-Identifier: Apache-2.0
"""`keepstone vault usage`: which item costs what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at, count, moment, octets
from keepstone.cli.client.session import client_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["usage"]

Document = dict[str, Any]
_BYTES = (
    Column("points", "properties.recoveryPointCount", count),
    Column("logical", "properties.logicalBytes", octets),
    Column("needed", "properties.referencedBytes", octets),
    Column("alone", "properties.uniqueBytes", octets),
    Column("shared", "properties.sharedBytes", octets),
)


def _policy(document: Any) -> Any:
    is_deleted = at(document, "properties.isScheduledForDeferredDelete")
    return "soft-deleted" if is_deleted else at(document, "properties.policyName")


_COLUMNS = {
    "item": (Column("item", "properties.friendlyName"), Column("policy", _policy), *_BYTES),
    "policy": (Column("policy", "name"), Column("items", "properties.protectedItemsCount", count), *_BYTES),
    "vault": (
        Column("points", "vault.recoveryPointCount", count),
        Column("logical", "vault.logicalBytes", octets),
        Column("stored", "vault.storedBytes", octets),
        Column("needed", "vault.referencedBytes", octets),
        Column("shared by items", "vault.sharedBytes", octets),
        Column("needed by nothing", "vault.deadBytes", octets),
        Column("of packs", "vault.overheadBytes", octets),
        Column("counted", "countedAt", moment),
    ),
}


@client_command(name="usage")
@click.option(
    "--name", "-n", "--vault-name", "-v", "name", envvar="KEEPSTONE_VAULT", metavar="NAME",
    help="The vault [also: KEEPSTONE_VAULT; default: the only one].",
)  # fmt: skip
@click.option(
    "--resource-group", "-g", "group", envvar="KEEPSTONE_GROUP", metavar="NAME",
    help="Its group [also: KEEPSTONE_GROUP; default: where the vault is].",
)  # fmt: skip
@click.option(
    "--by", type=click.Choice(tuple(_COLUMNS)), default="item", help="What to count together [default: item]."
)
@click.option("--no-wait", is_flag=True, help="Show what was counted last, however old it is.")
def usage(session: Session, name: str | None, group: str | None, by: str, no_wait: bool) -> int:
    """Show how many bytes of the vault's store its items or policies need, and how many of these alone."""
    from keepstone.cli.client.finding import vault_path
    from keepstone.cli.client.waiting import follow

    path = vault_path(session, group, name)
    address = f"{path}/usages/byItem"
    body = session.arm.get(address)
    job = at(body, "properties.jobId")
    if job is not None and not no_wait:
        ended = follow(session, session.arm.get(f"{path}/backupJobs/{job}"))
        body = session.arm.get(address)  # it says why, where the job failed and there is no earlier count
        if at(ended, "properties.status") in ("Failed", "Cancelled"):
            session.console.warn(f"it was not counted anew; see `keepstone job show -n {job}`")
    found = at(body, "properties") or {}
    if "countedAt" not in found:
        session.tell(f"it is being counted, by job {at(body, 'properties.jobId')}; ask again when that is over")
    elif by == "vault":
        session.show(found, _COLUMNS[by])
    else:
        shown = found["policies"] if by == "policy" else _items(session, body)
        session.show(shown, _COLUMNS[by], "no recovery points; make some with `keepstone protection backup-now`")
    for sentence in found.get("damage") or ():
        session.console.warn(f"{sentence}; it was left out")
    return session.console.ending()


def _items(session: Session, page: Document) -> list[Document]:
    """Those of this page and of the others."""
    found = list(page["value"])
    while page.get("nextLink"):
        page = session.arm.get(page["nextLink"])
        found += page["value"]
    return found
