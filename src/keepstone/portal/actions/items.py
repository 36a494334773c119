# SPDX-License-Identifier: Apache-2.0
"""What can be done with a protected item."""

from __future__ import annotations

from typing import Any

from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Actions, Choice, Field, Plan
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.actions.radius import radius_of
from keepstone.portal.api import Document, Request
from keepstone.portal.places import Name, named
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["actions", "offered"]

actions = Actions()
_MACHINE = ("--backup-management-type", "AzureIaasVM", "--workload-type", "VM")
_KEPT = ("protectedItemType", "sourceResourceId")


def _until(visit: Visit) -> list[Field]:
    return [
        Field(
            name="until", label=_("Keep the point until"), kind="date", help=_("As long as the policy says, if empty")
        )
    ]


@actions(
    "backup-now", "Back up now", "Makes a recovery point now, whenever the policy would make the next one.",
    fields=_until,
)  # fmt: skip
def backup_now(visit: Visit) -> Plan:
    """A backup."""
    name, item = _item(visit)
    machine = _is_machine(item)
    properties = {"objectType": "IaasVMBackupRequest" if machine else "AzureWorkloadBackupRequest"}
    until = visit.text("until").strip()
    kept: tuple[str, ...] = ()
    if until:
        properties["recoveryPointExpiryTimeInUTC"] = f"{until}T23:59:59Z"
        kept = "--retain-until", until
    day = ("--retain-until", "-".join(reversed(until.split("-")))) if until else ()  # az writes 31-12-2026
    return Plan(
        request=Request("POST", f"{name.item_id}/backup", {"properties": properties}),
        az=[("backup", "protection", "backup-now", *name.held, *_MACHINE, *day)] if machine else (),
        keepstone=[("protection", "backup-now", *name.held, *kept)],
        then=_page(name),
        notice=_("The backup begins."),
    )


def _ways(visit: Visit) -> list[Field]:
    return [
        Field(
            name="keep",
            label=_("Its points"),
            kind="choice",
            choices=(
                Choice("ever", _("stay for ever")),
                Choice("policy", _("go when the policy says so")),
            ),
            default="ever",
        )
    ]


@actions("stop", "Stop protection", "Makes no new points, and keeps those that there are.", fields=_ways)
def stop(visit: Visit) -> Plan:
    """No new points."""
    name, item = _item(visit)
    suspending = visit.text("keep", "ever") == "policy"
    state = "BackupsSuspended" if suspending else "ProtectionStopped"
    as_policy = ("--retain-recovery-points-as-per-policy",) if suspending else ()
    return Plan(
        request=_put(name, item, protectionState=state, policyId=""),
        az=[("backup", "protection", "disable", *name.held, *_MACHINE, *as_policy, "--yes")]
        if _is_machine(item)
        else (),
        keepstone=[("protection", "disable", *name.held, *as_policy, "--yes")],
        radius=radius_of(visit, name.item_id, retain="policy" if suspending else "ever").lines,
        then=_page(name),
        notice=_("Its protection is stopped."),
    )


@actions(
    "delete-data", "Stop protection and delete its points",
    "Makes no new points, and deletes all that there are.", destroys=True,
)  # fmt: skip
def delete_data(visit: Visit) -> Plan:
    """Its points go."""
    name, item = _item(visit)
    flags = ("--delete-backup-data", "true", "--yes")
    radius = radius_of(visit, name.item_id)
    return Plan(
        request=Request("DELETE", name.item_id),
        az=[("backup", "protection", "disable", *name.held, *_MACHINE, *flags)] if _is_machine(item) else (),
        keepstone=[("protection", "disable", *name.held, *flags)],
        radius=radius.lines,
        refused=radius.refused,
        then=_page(name),
        notice=_("Its points are deleted."),
    )


@actions("undelete", "Take the deletion back", "Brings the item and its points back; its protection is stopped then.")
def undelete(visit: Visit) -> Plan:
    """Its points come back."""
    name, item = _item(visit)
    return Plan(
        request=_put(name, item, protectionState="ProtectionStopped", policyId="", isRehydrate=True),
        az=[("backup", "protection", "undelete", *name.held, *_MACHINE)] if _is_machine(item) else (),
        keepstone=[("protection", "undelete", *name.held)],
        then=_page(name),
        notice=_("Its deletion is taken back."),
    )


def _policies(visit: Visit) -> list[Field]:
    name, item = _item(visit)
    kind = at(item, "properties.backupManagementType")
    found = visit.client.every(f"{name.vault_id}/backupPolicies", **{"$filter": f"backupManagementType eq '{kind}'"})
    choices = [Choice(one["name"], one["name"]) for one in found]
    chosen = at(item, "properties.policyName") or (choices[0].value if choices else "")
    return [Field(name="policy", label=_("Policy"), kind="choice", choices=choices, default=chosen, required=True)]


@actions(
    "resume", "Protect by a policy", "Makes points as a policy says, from now on: another one, or again.",
    fields=_policies,
)  # fmt: skip
def resume(visit: Visit) -> Plan:
    """Another policy, or protection again."""
    name, item = _item(visit)
    policy = visit.text("policy") or at(item, "properties.policyName")
    if not policy:
        raise InvalidRequest(_("choose a policy"), target="policy")
    return Plan(
        request=_put(name, item, policyId=f"{name.vault_id}/backupPolicies/{policy}"),
        az=[("backup", "protection", "resume", *name.held, *_MACHINE, "-p", policy)] if _is_machine(item) else (),
        keepstone=[("protection", "resume", *name.held, "-p", policy)],
        then=_page(name),
        notice=_("It is protected by %(policy)s.", policy=policy),
    )


@actions(
    "release-snapshots", "Let its snapshots go",
    "Frees what its hypervisor keeps of it; the points stay in the vault.",
)  # fmt: skip
def release_snapshots(visit: Visit) -> Plan:
    """The snapshots of a machine go."""
    name = named(visit, "item")
    return Plan(
        request=Request("POST", f"{name.item_id}/releaseSnapshots"),
        keepstone=[("item", "release-snapshots", *name.held)],
        then=_page(name),
        notice=_("Its snapshots go."),
    )


def offered(visit: Visit, item: Document, *, snapshots: bool = False) -> list[Offer]:
    """What he may do with an item as it is now. `snapshots`: its hypervisor has some."""
    identity = item["id"]
    put, post = Request("PUT", identity), Request("POST", f"{identity}/backup")
    known = {one.name: one for one in actions}
    if at(item, "properties.isScheduledForDeferredDelete"):
        return offer(visit, known["undelete"], put, identity)
    protected = at(item, "properties.protectionState") in ("Protected", "IRPending")
    found: list[Offer] = []
    if protected:
        found += offer(visit, known["backup-now"], post, identity)
        found += offer(visit, known["stop"], put, identity)
    found += offer(visit, known["resume"], put, identity)
    if snapshots:
        found += offer(visit, known["release-snapshots"], Request("POST", f"{identity}/releaseSnapshots"), identity)
    return found + offer(visit, known["delete-data"], Request("DELETE", identity), identity)


def _item(visit: Visit) -> tuple[Name, Document]:
    name = named(visit, "item")
    return name, visit.client.get(name.item_id)


def _is_machine(item: Document) -> bool:
    return bool(at(item, "properties.backupManagementType") == "AzureIaasVM")


def _put(name: Name, item: Document, **properties: Any) -> Request:
    known = {key: at(item, f"properties.{key}") for key in _KEPT}
    kept = {key: value for key, value in known.items() if value is not None}
    return Request("PUT", name.item_id, {"properties": kept | properties})


def _page(name: Name) -> str:
    return link("/item", id=name.item_id)
