# SPDX-License-Identifier: Apache-2.0
"""What a path names has to be there before anything is said about what is beneath it."""

from __future__ import annotations

import sqlalchemy as sa

from keepstone.arm.cloud import known_subscription
from keepstone.arm.table import Call
from keepstone.arm.vaults import find
from keepstone.control import containers, groups, items, points

__all__ = ["check_named"]


def check_named(call: Call, connection: sa.Connection) -> None:
    """`NotFound` where the subscription, the group, the vault, the container, the item or the point of the path is not
    there."""
    names = call.names
    if "vault" not in names:
        subscription = known_subscription(call)
        if "group" in names:
            groups.find(connection, subscription, names["group"])
        return
    vault = find(call, connection)
    if "item" in names:
        _, item = items.find(connection, vault, names["container"], names["item"])
        if "point" in names:
            points.find(connection, item, names["point"])
    elif "container" in names:
        containers.find(connection, vault, names["container"])
