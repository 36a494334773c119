# SPDX-License-Identifier: Apache-2.0
"""`keepstone alert …`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from keepstone.cli.client.output import Column, at, count, moment
from keepstone.cli.client.session import client_command, vault_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["alert"]

Document = dict[str, Any]
_STATES = ("New", "Acknowledged", "Closed")
_CONDITIONS = ("Fired", "Resolved")
_SEVERITIES = ("Sev0", "Sev1", "Sev2", "Sev3", "Sev4")
_RANGES = ("1h", "1d", "7d", "30d")
_ALERTS = "providers/Microsoft.AlertsManagement/alerts"
_VERSION = "2019-03-01"
_GROUP = click.option(
    "--resource-group", "-g", "group", envvar="KEEPSTONE_GROUP", metavar="NAME",
    help="Only those of this group [also: KEEPSTONE_GROUP].",
)  # fmt: skip
_VAULT = click.option(
    "--vault-name", "-v", "vault", envvar="KEEPSTONE_VAULT", metavar="NAME",
    help="Only those of this vault [also: KEEPSTONE_VAULT].",
)  # fmt: skip
_NAME = click.option("--name", "-n", required=True, metavar="ID", help="The alert: its id, or the beginning of it.")
_TARGET = click.option("--name", "-n", required=True, metavar="NAME", help="The target.")
_ESSENTIALS, _CONTEXT = "properties.essentials", "properties.context"


def _vault(document: Any) -> Any:
    """The vault that it is of; nothing where it is of the service."""
    return (
        at(document, f"{_ESSENTIALS}.targetResourceName")
        if at(document, f"{_ESSENTIALS}.targetResourceGroup")
        else None
    )


_COLUMNS = (
    Column("alert", f"{_ESSENTIALS}.sourceCreatedId"),
    Column("severity", f"{_ESSENTIALS}.severity"),
    Column("what", "name"),
    Column("vault", _vault),
    Column("of", f"{_CONTEXT}.entityFriendlyName"),
    Column("condition", f"{_ESSENTIALS}.monitorCondition"),
    Column("state", f"{_ESSENTIALS}.alertState"),
    Column("times", f"{_CONTEXT}.occurrences", count),
    Column("last", f"{_CONTEXT}.lastOccurrence", moment),
    Column("first", f"{_ESSENTIALS}.startDateTime", moment),
    Column("resolved", f"{_ESSENTIALS}.monitorConditionResolvedDateTime", moment),
    Column("happened", f"{_ESSENTIALS}.description"),
    Column("what to do", f"{_CONTEXT}.recommendation"),
    Column("job", f"{_CONTEXT}.jobId"),
    Column("changed by", f"{_ESSENTIALS}.lastModifiedUserName"),
)
_LISTED = _COLUMNS[:9]
_TARGETS = (
    Column("target", "name"),
    Column("address", "properties.address"),
    Column("last told", "properties.lastDeliveryTime", moment),
    Column("waiting", "properties.waiting", count),
    Column("failures", "properties.failures", count),
    Column("tried again", "properties.nextAttemptTime", moment),
    Column("error", "properties.lastError"),
)


@click.group()
def alert() -> None:
    """Alerts of a vault: what people have to know, and whom to tell."""


@client_command(name="list")
@_GROUP
@_VAULT
@click.option("--state", type=click.Choice(_STATES, case_sensitive=False), help="Only those that people left so.")
@click.option("--condition", type=click.Choice(_CONDITIONS, case_sensitive=False), help="Only those that are still so.")
@click.option("--severity", type=click.Choice(_SEVERITIES, case_sensitive=False), help="Only these; Sev0 is the worst.")
@click.option(
    "--time-range", "within", type=click.Choice(_RANGES), default="30d", show_default=True,
    help="Only those that changed within this time.",
)  # fmt: skip
def list_alerts(
    session: Session,
    group: str | None,
    vault: str | None,
    state: str | None,
    condition: str | None,
    severity: str | None,
    within: str,
) -> None:
    """List the alerts that you may see, the newest first: of all vaults and of the service, or of one vault."""
    from keepstone.cli.client.finding import group_path, vault_path

    scope = session.subscription
    if vault is not None:
        scope = vault_path(session, group, vault)
    elif group is not None:
        scope = group_path(session, group)
    found = _all(session, scope, alertState=state, monitorCondition=condition, severity=severity, timeRange=within)
    session.show(found, _LISTED, "no alerts")


@client_command(name="show")
@_NAME
def show(session: Session, name: str) -> None:
    """Show what is known of an alert, and what to do."""
    session.show(_find(session, name), _COLUMNS)


@client_command(name="acknowledge")
@_NAME
def acknowledge(session: Session, name: str) -> None:
    """Say that somebody looks after it. It ends when its cause is gone, or when it is closed."""
    _change(session, name, "Acknowledged")


@client_command(name="close")
@_NAME
def close(session: Session, name: str) -> None:
    """Say that it is dealt with. Should it happen again, that is another alert."""
    _change(session, name, "Closed")


@alert.group(name="target")
def target() -> None:
    """Whom to tell of a vault's alerts: mail, chat, webhooks and whatever else has an address.

    Addresses are those of apprise, such as mailto://user:password@example.com, jsons://example.com/hook or
    ntfys://example.com/topic; https://github.com/caronc/apprise/wiki lists them all.
    """


@vault_command(name="add")
@_TARGET
@click.option(
    "--url-file", metavar="FILE", help="Read the address from the first line of FILE; - is the standard input."
)
@click.option(
    "--url-command", metavar="COMMAND",
    help="Read it from what COMMAND prints [also: KEEPSTONE_ALERT_URL, or a prompt].",
)  # fmt: skip
def add(session: Session, vault: str, name: str, url_file: str | None, url_command: str | None) -> None:
    """Tell a target of this vault's alerts from now on; one that there is gets another address.

    The address is never an argument, because it often holds a secret. The service keeps it sealed, and shows the host
    at most.
    """
    from keepstone.cli.client.finding import named

    body = {"properties": {"url": _given(url_file, url_command)}}
    session.show(session.arm.ask("PUT", named(vault, "notificationTargets", name), body).body, _TARGETS)


@vault_command(name="list")
def list_targets(session: Session, vault: str) -> None:
    """List the targets of a vault, and how well they can be told."""
    found = list(session.arm.every(f"{vault}/notificationTargets"))
    session.show(found, _TARGETS, "nobody is told; add somebody with `keepstone alert target add`")


@vault_command(name="remove")
@_TARGET
@yes_option
def remove(session: Session, vault: str, name: str, yes: bool) -> None:
    """Tell a target nothing more."""
    from keepstone.cli.client.finding import named

    path = named(vault, "notificationTargets", name)
    there = session.arm.get(path)["name"]
    session.console.confirm(f"Tell {there} nothing more?", yes)
    session.arm.ask("DELETE", path)
    session.tell(f"target {there} is removed")


@vault_command(name="test")
@_TARGET
def test(session: Session, vault: str, name: str) -> None:
    """Send a message to a target now. Exit code 1 where it does not arrive."""
    from keepstone.cli.client.finding import named
    from keepstone.errors import KeepstoneError

    path = named(vault, "notificationTargets", name)
    said = session.arm.ask("POST", f"{path}/test").body
    if not said["delivered"]:
        raise KeepstoneError(
            f"target {name} could not be told: {said['error']}; check its address, and who answers there"
        )
    session.tell(f"target {name} was told")


def _given(file: str | None, command: str | None) -> str:
    """The address, from wherever it comes. `UsageError`."""
    from keepstone.cli.secret import Secret
    from keepstone.errors import UsageError

    secret = Secret(what="address", file=file, command=command, variable="KEEPSTONE_ALERT_URL", option="--url")
    if file != "-" and (secret.given or sys.stdin.isatty()):
        return os.fsdecode(secret.read())
    if file is None:
        raise UsageError("the address is needed; give it by --url-file, --url-command or KEEPSTONE_ALERT_URL")
    line, _, rest = sys.stdin.read().partition("\n")
    if command is not None or not line.strip() or rest.strip():
        raise UsageError("the standard input has to hold the address, in one line, and nothing else may give it")
    return line.strip()


def _all(session: Session, scope: str, **wanted: str | None) -> list[Document]:
    """The alerts of the subscription, a group or a vault."""
    asked = {key: value for key, value in wanted.items() if value is not None}
    query = urlencode({"api-version": _VERSION, "includeContext": "true", "pageCount": "250", **asked})
    return list(session.arm.every(f"{scope}/{_ALERTS}?{query}"))


def _find(session: Session, name: str) -> Document:
    """An alert by its id, or by the beginning of it. `NotFound`, `UsageError`."""
    from keepstone.cli.client.finding import named
    from keepstone.errors import NotFound, UsageError

    try:
        return session.arm.get(named(f"{session.subscription}/{_ALERTS.rpartition('/')[0]}", "alerts", name))
    except NotFound:
        known = _all(session, session.subscription, timeRange="30d")
        begun = [one for one in known if at(one, f"{_ESSENTIALS}.sourceCreatedId").startswith(name.casefold())]
        if not begun:
            raise
    if len(begun) > 1:
        raise UsageError(f"{len(begun)} alerts begin with {name}; give more of the id")
    return begun[0]


def _change(session: Session, name: str, state: str) -> None:
    query = urlencode({"api-version": _VERSION, "newState": state})
    # not at its own id, which leads nowhere once its vault is deleted
    path = f"{session.subscription}/{_ALERTS}/{at(_find(session, name), f'{_ESSENTIALS}.sourceCreatedId')}"
    session.show(session.arm.ask("POST", f"{path}/changestate?{query}").body, _COLUMNS)


for _command in (list_alerts, show, acknowledge, close):
    alert.add_command(_command)
for _command in (add, list_targets, remove, test):
    target.add_command(_command)
