# SPDX-License-Identifier: Apache-2.0
"""What can be done with a job."""

from __future__ import annotations

from keepstone.portal.actions.action import Actions, Plan
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.api import Document, Request
from keepstone.portal.places import named
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["actions", "offered"]

actions = Actions()


@actions("cancel-job", "Cancel the job", "Asks for its end; it comes between two of its steps, and makes no point.")
def cancel(visit: Visit) -> Plan:
    """Its end."""
    name = named(visit, "job")
    return Plan(
        request=Request("POST", f"{name.id}/cancel"),
        az=[("backup", "job", "stop", *name.at, "-n", name.job)],
        keepstone=[("job", "stop", *name.at, "-n", name.job)],
        then=link("/job", id=name.id),
        notice=_("Its end is asked for."),
    )


@actions(
    "retry-job", "Do it once more",
    "A new job does what this one was asked for, as far as that can still be done.",
)  # fmt: skip
def retry(visit: Visit) -> Plan:
    """The same again."""
    name = named(visit, "job")
    about = visit.client.get(name.id)["properties"]
    asked = at(about, "keepstone.asked") or {}
    return Plan(
        request=Request("POST", f"{name.id}/retry"),
        keepstone=[("job", "retry", *name.at, "-n", name.job)],
        radius=[(about["operation"], about["entityFriendlyName"]), *asked.items()],
        then=link("/jobs"),
        notice=_("It is asked for once more."),
    )


def offered(visit: Visit, job: Document) -> list[Offer]:
    """What he may do with a job as it is now."""
    known = {one.name: one for one in actions}
    identity, found = job["id"], []
    if at(job, "properties.status") == "InProgress":
        found += offer(visit, known["cancel-job"], Request("POST", f"{identity}/cancel"), identity)
    if at(job, "properties.keepstone.retriable"):
        found += offer(visit, known["retry-job"], Request("POST", f"{identity}/retry"), identity)
    return found
