# SPDX-License-Identifier: Apache-2.0
"""What can be done with a policy: made, changed, deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Actions, Command, Plan
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.api import Document, Request
from keepstone.portal.places import Name, named
from keepstone.portal.policies import calendar, form, words
from keepstone.portal.rendering import at, link, octets
from keepstone.portal.speech import _, counted
from keepstone.portal.visit import Visit
from keepstone.vault.zones import windows_names

__all__ = ["actions", "create", "offered"]

actions = Actions()
_NAMED = 100  # points and items that a what-if names on a page
_AT_ONCE = 1000  # items up to which a what-if is drawn at once, and whenever the form changes


def _builder(visit: Visit) -> dict[str, Any]:
    """What the form shows. Where somebody else has changed the policy since this form was drawn, both are shown, and
    who sends it again has seen both."""
    name = named(visit)
    there = _there(visit, name)
    values = _values(visit, there)
    management = at(there, "properties.backupManagementType")
    kinds = ("V1", "V2") if management == "AzureIaasVM" else (management,) if management else tuple(form.KINDS)
    zones = windows_names()
    given = values["zone"][-1] if values["zone"] else "UTC"
    return {
        "identity": name.id,
        "policy": name.policy,
        "given_name": visit.text("name"),
        "values": values,
        "kinds": {kind: form.KINDS[kind] for kind in kinds},
        "zones": zones if given in zones else (given, *zones),
        "form": form,
        "etag": there["eTag"] if there is not None else "",
        "conflict": _conflict(visit, there),
        "marks": calendar.MARKS,
        "part": visit.part,
        "told": _told,
        "words": words,
    }


@actions(
    "policy-save", "Save the policy",
    "When points are made, and how long they are kept. A changed policy is true of the points that there are, too.",
    template="policy-save.html", shows=_builder,
)  # fmt: skip
def save(visit: Visit) -> Plan:
    """A new one in a vault, or a changed one."""
    name = named(visit)
    there = _there(visit, name)
    properties = form.properties(
        _values(visit, there), there["properties"] if there else None, visit.plane.env.utc().date()
    )
    if there is None:
        return _new(visit, name, properties)
    items = int(there["properties"]["protectedItemsCount"])
    asked = f"{name.id}/whatIf", {"properties": properties}, {"$top": str(_NAMED)}
    shown: dict[str, Any] = {"items": items}
    if items <= _AT_ONCE or visit.form or visit.text("look"):  # never is it saved without
        shown |= _foreseen(visit.client.send(Request("POST", *asked)).body["properties"])
    else:
        shown |= {"runs": _runs(visit, name, properties), "foreseen": None}
    document = {**{key: there[key] for key in ("id", "name", "type")}, "properties": properties}
    headers = {"If-Match": visit.text("etag") or there["eTag"]}
    return Plan(
        request=Request("PUT", name.id, {"properties": properties}, headers=headers),
        az=_az("set", name, name.policy, document),
        keepstone=[("policy", "set", *name.at, "-n", name.policy, "--policy", _text(document), "--yes")],
        then=link("/policy", id=name.id),
        notice=_("The policy is changed."),
        unsure=_unsure(shown["foreseen"]) if shown["foreseen"] else "",
        shown=shown,
    )


def _new(visit: Visit, vault: Name, properties: Document) -> Plan:
    given = visit.text("name").strip()
    shown = {"runs": _runs(visit, vault, properties), "foreseen": None, "items": 0}
    if "/" in given or (visit.form and not given):
        raise InvalidRequest(_("the policy needs a name of letters, digits and hyphens"), target="name")
    given = given or "NAME"
    path = f"{vault.vault_id}/backupPolicies/{given}"
    return Plan(
        request=Request("PUT", path, {"properties": properties}, headers={"If-None-Match": "*"}),
        az=_az("create", vault, given, {"properties": properties}),
        keepstone=[("policy", "create", *vault.at, "-n", given, "--policy", _text({"properties": properties}))],
        then=link("/policy", id=path),
        notice=_("The policy %(given)s is made.", given=given),
        shown=shown,
    )


@actions("policy-delete", "Delete the policy", "It must not have any items.", destroys=True)
def delete(visit: Visit) -> Plan:
    """It goes."""
    name = named(visit, "policy")
    there = visit.client.get(name.id)
    count = int(there["properties"]["protectedItemsCount"])
    command = "policy", "delete", *name.at, "-n", name.policy, "--yes"
    refused = counted(
        "It has %(number)s item: give it another policy, or stop its protection, first.",
        "It has %(number)s items: give them another policy, or stop their protection, first.",
        count,
    )
    return Plan(
        request=Request("DELETE", name.id),
        az=[("backup", *command)] if at(there, "properties.backupManagementType") != "MAB" else (),
        keepstone=[command],
        radius=[(_("The policy"), name.policy), (_("Its items"), count), (_("Can be undone"), _("no"))],
        refused=[refused] if count else (),
        then=link("/policies", vault=name.vault_id),
        notice=_("The policy %(policy)s is deleted.", policy=name.policy),
    )


def offered(visit: Visit, policy: Document) -> list[Offer]:
    """What he may do with a policy."""
    identity = policy["id"]
    known = {one.name: one for one in actions}
    found = []
    if visit.client.allows(Request("PUT", identity)):
        found.append(Offer(_("Edit"), link("/do/policy-save", id=identity), False))
    return found + offer(visit, known["policy-delete"], Request("DELETE", identity), identity)


def create(visit: Visit, vault: Document) -> bool:
    """Whether he may make a policy in this vault."""
    return visit.client.allows(Request("PUT", f"{vault['id']}/backupPolicies/new"))


def _there(visit: Visit, name: Name) -> Document | None:
    """The policy as it is now; None for a new one."""
    return visit.client.get(name.id) if name.policy else None


def _values(visit: Visit, there: Document | None) -> Mapping[str, list[str]]:
    """What was given; at first what the policy is."""
    filled = form.filled(there["properties"] if there is not None else None)
    if not visit.texts("frequency"):
        return filled
    return {key: visit.texts(key) for key in filled}


def _conflict(visit: Visit, there: Document | None) -> list[tuple[str, str, str]]:
    """What was given and what is there now, by what it is about; nothing while nobody else has changed it."""
    if there is None or visit.text("etag", there["eTag"]) == there["eTag"]:
        return []
    now = words.said(there["properties"])
    try:
        today = visit.plane.env.utc().date()
        mine = words.said(form.properties(_values(visit, there), there["properties"], today))
    except InvalidRequest as error:
        mine = {_("Cannot be read"): str(error)}
    return [(key, mine.get(key, "–"), now.get(key, "–")) for key in dict.fromkeys([*mine, *now])]


def _runs(visit: Visit, name: Name, properties: Document) -> Document:
    asked = Request("POST", f"{name.vault_id}/backupPolicyRuns", {"properties": properties})
    found: Document = visit.client.send(asked).body["properties"]
    return found


def _foreseen(found: Document) -> Document:
    """A what-if, drawn."""
    return {
        "runs": found["then"],
        "foreseen": found,
        "months": calendar.months(found["days"]),
        "years": calendar.years(found["days"], found["earlier"]),
    }


def _told(plan: Plan | None) -> str:
    """What a change comes to, in a sentence."""
    if plan is None:
        return ""
    found, gap = plan.shown["foreseen"], words.span(plan.shown["runs"]["longestGapInMinutes"])
    if not found:
        return _("Longest gap between runs: %(gap)s.", gap=gap)
    points = ", ".join(f"{found[outcome]} {_(outcome)}" for outcome in calendar.OUTCOMES)
    return _("Points: %(points)s. Longest gap between runs: %(gap)s.", points=points, gap=gap)


def _unsure(found: Document) -> str:
    """What goes; empty where nothing does."""
    said = []
    if found["lost"]:
        said.append(
            counted(
                "%(number)s recovery point is lost for ever, of up to %(size)s",
                "%(number)s recovery points are lost for ever, of up to %(size)s",
                found["lost"],
                size=octets(found["freedBytes"]),
            )
        )
    if found["shortened"]:
        said.append(
            counted(
                "%(number)s recovery point is kept for a shorter time",
                "%(number)s recovery points are kept for a shorter time",
                found["shortened"],
            )
        )
    return "; ".join(said)


def _az(verb: str, name: Name, policy: str, document: Document) -> list[Command]:
    """Its own command reads machines' and databases' policies, and schedules that it knows."""
    properties = document["properties"]
    management = properties["backupManagementType"]
    if management == "MAB" or at(properties, "schedulePolicy.schedulePolicyType") == "LogSchedulePolicy":
        return []
    more: tuple[str, ...] = ()
    if verb == "create":
        more = "--backup-management-type", management
        more += ("--workload-type", properties["workLoadType"]) if management == "AzureWorkload" else ()
    return [("backup", "policy", verb, *name.at, "-n", policy, "--policy", _text(document), *more)]


def _text(document: Document) -> str:
    return json.dumps(document, ensure_ascii=False)
