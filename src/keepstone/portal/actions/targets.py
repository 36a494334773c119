# SPDX-License-Identifier: Apache-2.0
"""Where a point is restored to, as all kinds of restore ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keepstone.errors import InvalidRequest, KeepstoneError
from keepstone.portal.actions.action import Choice, Field, Plan
from keepstone.portal.api import Document, Request
from keepstone.portal.places import Name, named
from keepstone.portal.rendering import ago, at, link, moment_of, octets
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["Subject", "elsewhere", "files_plan", "machines", "over", "subject", "target_field"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The point that an action is about, and its item."""

    name: Name
    item: Document
    point: Document

    def place(self, visit: Visit, kind: str, *, in_place: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What of a request says where to, and the options of `keepstone restore` that say the same.
        `InvalidRequest`."""
        if in_place:
            if visit.text("container"):
                raise InvalidRequest(
                    _("another machine has no place of its own for it; choose another place"), target="to"
                )
            return {"objectType": kind, "recoveryType": "OriginalLocation"}, ("--in-place",)
        wanted, options = elsewhere(visit)
        return {"objectType": kind, "recoveryType": "AlternateLocation", **wanted}, options


def subject(visit: Visit) -> Subject:
    """`NotFound`."""
    name = named(visit, "point")
    return Subject(name, visit.client.get(name.item_id), visit.client.get(name.id))


def elsewhere(visit: Visit) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A path, and the machine that it is on, as requests and as options. `InvalidRequest`."""
    target, container = visit.text("target").strip(), visit.text("container")
    if not target:
        raise InvalidRequest(_("say where to: an absolute path"), target="target")
    wanted: dict[str, Any] = {"targetPath": target}
    options: tuple[str, ...] = "--target", target
    if container:
        wanted["targetInfo"] = {"containerId": container}
        options += "--target-container", container.rpartition("/")[2]
    return wanted, options


def target_field(what: str) -> Field:
    """A path of the machine that restores."""
    return Field(
        name="target", label=_("Path"), help=_("%(what)s, by its absolute path on the machine below", what=what)
    )


def machines(visit: Visit, about: Subject) -> Field:
    """Which machine restores."""
    own = at(about.item, "properties.computerName") or _("the service's own machine")
    choices = [Choice("", str(own))]
    try:
        path = f"{about.name.vault_id}/backupProtectionContainers"
        for one in visit.client.every(path, **{"$filter": "backupManagementType eq 'MAB'"}):
            if one["name"].casefold() != about.name.container.casefold():
                choices.append(Choice(one["id"], at(one, "properties.friendlyName") or one["name"]))
    except KeepstoneError:  # who may restore may not see all machines
        choices = choices[:1]
    return Field(name="container", label=_("On"), kind="choice", choices=choices)


def over(visit: Visit, about: Subject) -> list[tuple[str, object]]:
    """What a restore in place goes over: the place, and what is in no point yet."""
    now = visit.plane.env.utc()
    made = moment_of(at(about.point, "properties.recoveryPointTime"))
    newest = moment_of(at(about.item, "properties.lastRecoveryPoint"))
    found: list[tuple[str, object]] = [
        (_("Over"), at(about.item, "properties.sourcePath") or at(about.item, "properties.friendlyName")),
        (_("As it was"), f"{made:%Y-%m-%d %H:%M}, {ago(made, now)}" if made is not None else "–"),
        (_("At most"), octets(at(about.point, "properties.keepstone.logicalBytes"))),
    ]
    if newest is not None:
        when = f"{newest:%Y-%m-%d %H:%M}, {ago(newest, now)}"
        found.append((_("In no point"), _("what changed since the newest one, %(when)s", when=when)))
    return found


def files_plan(
    about: Subject,
    wanted: Document,
    options: Sequence[str],
    paths: Sequence[str],
    conflict: str,
    *,
    deleting: bool,
    radius: Sequence[tuple[str, object]],
) -> Plan:
    """The restore of files: the request `wanted`, of which `options` are what a command says, with what becomes of what
    is there."""
    told = [*options]
    if conflict:
        wanted = {**wanted, "conflict": conflict}
        told += ["--conflict", conflict]
    if deleting:
        wanted = {**wanted, "delete": True}
        told.append("--delete")
    readable = all(path.isprintable() for path in paths)  # others are not to be pasted into a shell
    ended = ("--",) if any(path.startswith("-") for path in paths) else ()
    command = ("restore", "files", *about.name.held, *told, "--yes", *ended, about.name.point, *paths)
    return Plan(
        request=Request("POST", f"{about.name.id}/restore", {"properties": wanted}),
        keepstone=[command] if readable else (),
        radius=radius,
        then=link("/point", id=about.name.id),
        notice=_("The restore begins."),
    )
