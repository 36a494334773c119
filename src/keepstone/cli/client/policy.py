# SPDX-License-Identifier: Apache-2.0
"""`keepstone policy …`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at, count, moment, octets
from keepstone.cli.client.session import vault_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["policy"]

Document = dict[str, Any]
_NAME = click.option("--name", "-n", "--policy-name", "-p", "name", required=True, metavar="NAME", help="The policy.")
_POLICY = click.option(
    "--policy", "text", required=True, metavar="@FILE|JSON|-",
    help="The policy as `policy show -o json` has it: in a file, as it is, or from the standard input.",
)  # fmt: skip
_MANAGEMENT = click.option(
    "--backup-management-type", "management", metavar="TYPE", help="What it is for: MAB (files), AzureIaasVM."
)
_RULES = ("daily", "weekly", "monthly", "yearly")


def _schedule(document: Any) -> str:
    """When it backs up, in a few words."""
    found = [at(part, "schedulePolicy") or {} for part in _parts(document)]
    return ", ".join(
        str(one.get("scheduleRunFrequency") or f"every {one.get('scheduleFrequencyInMins')} min") for one in found
    )


def _retention(document: Any) -> str:
    """For how long it keeps points, in a few words."""
    said = []
    for part in _parts(document):
        kept = at(part, "retentionPolicy") or {}
        durations = [at(kept, f"{rule}Schedule.retentionDuration") for rule in _RULES]
        durations.append(at(kept, "retentionDuration"))
        said.append(" + ".join(f"{one['count']} {one['durationType']}".lower() for one in durations if one))
    return ", ".join(said)


def _parts(document: Any) -> list[Any]:
    return list(at(document, "properties.subProtectionPolicy") or [at(document, "properties")])


_COLUMNS = (
    Column("name", "name"),
    Column("for", "properties.backupManagementType"),
    Column("workload", "properties.workLoadType"),
    Column("items", "properties.protectedItemsCount", count),
    Column("backs up", _schedule),
    Column("keeps", _retention),
    Column("time zone", "properties.timeZone"),
)
_CHANGES = (
    Column("item", "item"),
    Column("point", "name"),
    Column("made", "recoveryPointTime", moment),
    Column("would", "change"),
    Column("now until", "until", moment),
    Column("then until", "untilThen", moment),
    Column("bytes at most", "storedBytes", octets),
)
_RUNS = (
    Column("policy", "policy"),
    Column("there", "localTime"),
    Column("time zone", "zone"),
    Column("utc", "time", moment),
)


@click.group()
def policy() -> None:
    """Policies of a vault: when items are backed up, and how long their points are kept."""


@vault_command(name="list")
@_MANAGEMENT
@click.option("--workload-type", "workload", metavar="TYPE", help="Only those for this workload.")
def list_policies(session: Session, vault: str, management: str | None, workload: str | None) -> None:
    """List the policies of a vault."""
    where = {"backupManagementType": management, "workloadType": workload}
    session.show(list(session.arm.every(f"{vault}/backupPolicies", where)), _COLUMNS, "no policies")


@vault_command(name="show")
@_NAME
def show(session: Session, vault: str, name: str) -> None:
    """Show a policy; -o json shows all of it, as `policy set` takes it."""
    session.show(session.arm.get(_path(vault, name)), _COLUMNS)


@vault_command(name="create")
@_NAME
@_POLICY
@_MANAGEMENT
def create(session: Session, vault: str, name: str, text: str, management: str | None) -> None:
    """Make a policy."""
    from keepstone.errors import AlreadyExists, NotFound

    properties, path = _properties(text), _path(vault, name)
    if management is not None:
        properties["backupManagementType"] = management
    try:
        session.arm.get(path)
    except NotFound:
        session.show(session.arm.ask("PUT", path, {"properties": properties}).body, _COLUMNS)
    else:
        raise AlreadyExists(f"there is a policy {name}; change it with `keepstone policy set`")


@vault_command(name="set")
@_NAME
@_POLICY
@yes_option
@click.option("--dry-run", is_flag=True, help="Only say which points would go or end earlier: as `policy what-if`.")
def set_policy(session: Session, vault: str, name: str, text: str, yes: bool, dry_run: bool) -> None:
    """Change a policy. Its items have the new one at once, their old points too; asks first where some would go."""
    properties, path = _properties(text), _path(vault, name)
    found = _foreseen(session, path, properties)
    if dry_run:
        _tell(session, found)
        return
    lost, shortened = at(found, "properties.lost"), at(found, "properties.shortened")
    if lost or shortened:
        session.console.confirm(
            f"Of its recovery points {lost} would go and {shortened} end earlier; `keepstone policy what-if` shows "
            f"which. Change policy {name}?",
            yes,
        )
    session.show(session.arm.ask("PUT", path, {"properties": properties}).body, _COLUMNS)


@vault_command(name="what-if")
@_NAME
@_POLICY
def what_if(session: Session, vault: str, name: str, text: str) -> None:
    """Show the recovery points that would go, or end earlier, if the policy were this one. Nothing is changed."""
    _tell(session, _foreseen(session, _path(vault, name), _properties(text)))


@vault_command(name="runs")
@click.option("--name", "-n", "--policy-name", "-p", "name", metavar="NAME", help="Only of this policy.")
def runs(session: Session, vault: str, name: str | None) -> None:
    """Show when policies run next, in their time zones and in UTC."""
    found = list(session.arm.every(f"{vault}/backupPolicyRuns", {"policyName": name}))
    if session.output.form == "json" or session.output.query is not None:
        session.show(found, ())
        return
    rows = [
        {"policy": one["name"], "zone": at(one, "properties.timeZone"), **run}
        for one in found
        for run in at(one, "properties.nextRuns")
    ]
    session.show(rows, _RUNS, "no policies")


@vault_command(name="delete")
@_NAME
@yes_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def delete(session: Session, vault: str, name: str, yes: bool, dry_run: bool) -> None:
    """Delete a policy that no item has."""
    from keepstone.cli.client.radius import confirm, reach
    from keepstone.cli.client.radius import show as tell

    path = _path(vault, name)
    there = session.arm.get(path)
    if dry_run:
        tell(session, reach(session, path))
        return
    confirm(session, f"Delete policy {there['name']}?", path, yes)
    session.arm.finish(session.arm.ask("DELETE", path))
    session.tell(f"policy {there['name']} is deleted")


def _path(vault: str, name: str) -> str:
    from keepstone.cli.client.finding import named

    return named(vault, "backupPolicies", name)


def _properties(text: str) -> Document:
    """The properties of a policy that was given. `UsageError`."""
    import msgspec

    from keepstone.errors import UsageError

    if text == "-":
        data, source = sys.stdin.read(), "the standard input"
    elif text.startswith("@"):
        source = text[1:]
        try:
            with open(source, encoding="utf-8") as file:
                data = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--policy {text}: {error}; name a file with the policy as JSON") from error
    else:
        data, source = text, "--policy"
    try:
        document = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UsageError(f"{source} holds no JSON ({error}); `keepstone policy show -o json` shows a policy") from error
    properties = document.get("properties", document) if isinstance(document, dict) else None
    if not isinstance(properties, dict):
        raise UsageError(f"{source} holds no policy, which is an object; `keepstone policy show -o json` shows one")
    return dict(properties)


def _foreseen(session: Session, path: str, properties: Document) -> Document:
    return dict(session.arm.ask("POST", f"{path}/whatIf", {"properties": properties}).body)


def _tell(session: Session, found: Document) -> None:
    """What a changed policy would do: the points that it concerns for people, everything for programs."""
    if session.output.form == "json" or session.output.query is not None:
        session.show(found, ())
        return
    rows = [
        {"item": item["friendlyName"], **point} for item in at(found, "properties.items") for point in item["points"]
    ]
    rows = [row for row in rows if row["change"] in ("lost", "shortened")]
    session.show(rows, _CHANGES, "no point would go or end earlier")
    unnamed = at(found, "properties.unnamedPoints")
    if unnamed:
        session.tell(f"{unnamed:,} more points are not named here")
    said = {key: at(found, f"properties.{key}") for key in ("kept", "lost", "shortened", "lengthened")}
    session.tell(
        f"of its points {said['lost']:,} would go, {said['shortened']:,} end earlier and {said['lengthened']:,} later; "
        f"{said['kept']:,} stay as they are; up to {octets(at(found, 'properties.freedBytes'))} come free"
    )
    now, then = (at(found, f"properties.{key}.longestGapInMinutes") for key in ("now", "then"))
    session.tell(
        f"the longest gap between runs would be {then:,} minutes, and is {now:,}; the newest point of "
        f"{at(found, 'properties.then.lateItems'):,} of {at(found, 'properties.itemsCount'):,} items is older than that"
    )


for _command in (list_policies, show, create, set_policy, what_if, runs, delete):
    policy.add_command(_command)
