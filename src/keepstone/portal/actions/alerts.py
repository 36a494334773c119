# SPDX-License-Identifier: Apache-2.0
"""What people can say of an alert. Its own id leads nowhere once its vault is deleted, so it is asked for in the
subscription, which knows it still."""

from __future__ import annotations

from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Actions, Plan
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.api import Document, Request
from keepstone.portal.places import subscription
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["ALERTS", "actions", "offered", "path_of"]

actions = Actions()
ALERTS = "providers/Microsoft.AlertsManagement/alerts"


@actions(
    "acknowledge-alert", "Acknowledge",
    "Says that somebody looks after it. It ends when its cause is gone, or when it is closed.",
)  # fmt: skip
def acknowledge(visit: Visit) -> Plan:
    """Somebody looks after it."""
    return _plan(visit, "Acknowledged", "acknowledge", _("It is acknowledged."))


@actions(
    "close-alert", "Close", "Says that it is dealt with. Should it happen again, that is another alert.",
)  # fmt: skip
def close(visit: Visit) -> Plan:
    """It is dealt with."""
    return _plan(visit, "Closed", "close", _("It is closed."))


def path_of(visit: Visit) -> str:
    """Where the alert is asked for whose id was given. `InvalidRequest`."""
    identity = visit.needed("id")
    ahead, name = identity.rpartition("/")[::2]
    if not ahead.endswith(ALERTS) or not name:
        raise InvalidRequest(_("%(identity)s is no id of an alert", identity=repr(identity)), target="id")
    return f"{subscription(visit)}/{ALERTS}/{name}"


def offered(visit: Visit, alert: Document) -> list[Offer]:
    """What he may say of an alert as it is now."""
    known, state = {one.name: one for one in actions}, at(alert, "properties.essentials.alertState")
    request = Request("POST", f"{alert['id']}/changestate")
    found: list[Offer] = []
    if state == "New":
        found += offer(visit, known["acknowledge-alert"], request, alert["id"])
    if state != "Closed":
        found += offer(visit, known["close-alert"], request, alert["id"])
    return found


def _plan(visit: Visit, state: str, word: str, notice: str) -> Plan:
    path = path_of(visit)
    return Plan(
        request=Request("POST", f"{path}/changestate", query={"newState": state}),
        keepstone=[("alert", word, "-n", path.rpartition("/")[2])],
        then=link("/alert", id=visit.needed("id")),
        notice=notice,
    )
