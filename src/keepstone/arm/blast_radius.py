# SPDX-License-Identifier: Apache-2.0
"""What a deletion would take with it. Keepstone's own: Azure says what is refused when it is asked for.

Who may see a thing may ask what its deletion would take.
"""

from __future__ import annotations

from typing import Any

from keepstone.arm import containers as machines
from keepstone.arm.answers import moment
from keepstone.arm.cloud import known_subscription
from keepstone.arm.items import path as item_path
from keepstone.arm.lro import CONTAINER, ITEM
from keepstone.arm.table import GROUP, VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import agents, containers, groups, items, policies, radius
from keepstone.control.radius import Radius
from keepstone.errors import InvalidRequest

__all__ = ["table"]

table = Table()
_VAULTS = "Microsoft.RecoveryServices/Vaults"
_CONTAINERS = f"{_VAULTS}/backupFabrics/protectionContainers"
_RETAIN = ("", "ever", "policy")


@table("GET", f"{ITEM}/blastRadius", "keepstone.blast_radius_of_item", action=f"{_CONTAINERS}/protectedItems/read")
def of_item(call: Call) -> Answer:
    """Of stopping its protection and deleting its points; with `retain=ever` or `retain=policy`, of stopping alone."""
    retain = call.query.get("retain", "")
    if retain not in _RETAIN:
        raise InvalidRequest(f"retain is {retain!r}; leave it out, or say ever or policy", target="retain")
    with call.plane.look() as connection:
        vault = find(call, connection)
        held, item = items.find(connection, vault, call.names["container"], call.names["item"])
        now = call.plane.env.utc()
        found = radius.of_item(connection, vault, held, item, now, retain=retain)
    return _answer(item_path(vault, held, item), found)


@table("GET", f"{VAULT}/blastRadius", "keepstone.blast_radius_of_vault", action=f"{_VAULTS}/read")
def of_vault(call: Call) -> Answer:
    """Of deleting it."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = radius.of_vault(connection, vault, call.plane.env.utc())
    return _answer(vault.path, found)


@table("GET", f"{GROUP}/blastRadius", "keepstone.blast_radius_of_group",
       action="Microsoft.Resources/subscriptions/resourceGroups/read")  # fmt: skip
def of_group(call: Call) -> Answer:
    """Of deleting it with what is in it."""
    with call.plane.look() as connection:
        group = groups.find(connection, known_subscription(call), call.names["group"])
        found = radius.of_group(connection, group)
    return _answer(group.path, found)


@table("GET", f"{CONTAINER}/blastRadius", "keepstone.blast_radius_of_container", action=f"{_CONTAINERS}/read")
def of_container(call: Call) -> Answer:
    """Of unregistering it."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        held = containers.find(connection, vault, call.names["container"])
        has_agent = agents.machine_of(connection, held) is not None
        found = radius.of_container(connection, vault, held, agent=has_agent)
    return _answer(machines.path(vault, held), found)


@table("GET", f"{VAULT}/backupPolicies/{{policy}}/blastRadius", "keepstone.blast_radius_of_policy",
       action=f"{_VAULTS}/backupPolicies/read")  # fmt: skip
def of_policy(call: Call) -> Answer:
    """Of deleting it."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        policy = policies.find(connection, vault, call.names["policy"])
        found = radius.of_policy(connection, vault, policy)
    return _answer(f"{vault.path}/backupPolicies/{policy.name}", found)


def _answer(path: str, found: Radius) -> Answer:
    properties: dict[str, Any] = {
        "would": found.would,
        "what": found.what,
        "items": found.items,
        "points": found.points,
        "oldest": moment(found.oldest),
        "newest": moment(found.newest),
        "bytes": found.bytes,
        "underRpo": None if found.late is None else list(found.late),
        "undo": found.undo,
        "refused": list(found.refused),
        "lines": [{"label": label, "text": text} for label, text in found.lines],
    }
    shown = {key: value for key, value in properties.items() if value is not None}
    return Answer(body={"id": f"{path}/blastRadius", "name": "blastRadius", "properties": shown})
