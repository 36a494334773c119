# SPDX-License-Identifier: Apache-2.0
"""What can be done with a job."""

from __future__ import annotations

from keepstone.portal.actions.action import Actions, Plan
from keepstone.portal.api import Request
from keepstone.portal.places import named
from keepstone.portal.rendering import link
from keepstone.portal.visit import Visit

__all__ = ["actions"]

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
        notice="Its end is asked for.",
    )
