# SPDX-License-Identifier: Apache-2.0
"""Resource groups. Source: Microsoft.Resources, ResourceGroups 2024-11-01."""

from __future__ import annotations

from typing import Any

from keepstone.arm.answers import accepted, page
from keepstone.arm.cloud import known_subscription
from keepstone.arm.table import GROUP, SUBSCRIPTION, Answer, Call, Table
from keepstone.control import groups, operations, people
from keepstone.errors import GroupNotFound
from keepstone.vault import Group

__all__ = ["table"]

table = Table()
_READ = "Microsoft.Resources/subscriptions/resourceGroups/read"
_WRITE = "Microsoft.Resources/subscriptions/resourceGroups/write"
_DELETE = "Microsoft.Resources/subscriptions/resourceGroups/delete"


@table("GET", f"{SUBSCRIPTION}/resourceGroups", "resource_groups.list", action=_READ, filtered=True, az=("group list",))
def listing(call: Call) -> Answer:
    """The groups that the client may see."""
    subscription = known_subscription(call)
    with call.plane.look() as connection:
        found = groups.listing(connection, subscription)
    assert call.who is not None
    return page([_document(group) for group in found if people.may(call.held, call.who.id, _READ, group.path)])


@table("GET", GROUP, "resource_groups.get", action=_READ, az=("group show",))
def get(call: Call) -> Answer:
    """`GroupNotFound`."""
    with call.plane.look() as connection:
        return Answer(body=_document(groups.find(connection, known_subscription(call), call.names["group"])))


@table("HEAD", GROUP, "resource_groups.check_existence", action=_READ, az=("group exists",))
def exists(call: Call) -> Answer:
    """204 or 404, neither with a body."""
    try:
        get(call)
    except GroupNotFound:
        return Answer(status=404)
    return Answer(status=204)


@table("PUT", GROUP, "resource_groups.create_or_update", action=_WRITE, az=("group create",))
def put(call: Call) -> Answer:
    """201 for a new one."""
    subscription = known_subscription(call)
    with call.plane.change() as change:
        group, new = groups.put(change, subscription, call.names["group"], call.text("location"), call.tags())
    return Answer(status=201 if new else 200, body=_document(group))


@table("PATCH", GROUP, "resource_groups.update", action=_WRITE, az=("group update",))
def patch(call: Call) -> Answer:
    """New tags."""
    subscription = known_subscription(call)
    with call.plane.change() as change:
        group = groups.find(change.connection, subscription, call.names["group"])
        tags = call.tags() if call.document().get("tags") is not None else group.tags
        group, _ = groups.put(change, subscription, group.name, group.location, tags)
    return Answer(body=_document(group))


@table("DELETE", GROUP, "resource_groups.begin_delete", action=_DELETE, az=("group delete",))
def delete(call: Call) -> Answer:
    """Over when it is answered; its address says so at once."""
    subscription = known_subscription(call)
    with call.plane.change() as change:
        groups.delete(change, groups.find(change.connection, subscription, call.names["group"]))
        operation = operations.record(change, None)
    return accepted(call, location=f"/subscriptions/{subscription}/operationresults/{operation.id}")


@table(
    "GET",
    f"{SUBSCRIPTION}/operationresults/{{operation}}",
    "resources.operation_result",
    action="*/read",
    filtered=True,
)
def result(call: Call) -> Answer:
    """200: it is done."""
    with call.plane.look() as connection:
        operations.find(connection, call.names["operation"], None)
    return Answer(status=200)


def _document(group: Group) -> dict[str, Any]:
    return {
        "id": group.path,
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.tags,
        "properties": {"provisioningState": "Succeeded"},
    }
