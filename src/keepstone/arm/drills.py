# SPDX-License-Identifier: Apache-2.0
"""Restore drills. Keepstone's own: Azure has none for single items. Who may restore may ask for one."""

from __future__ import annotations

from typing import Any

from keepstone.arm.answers import moment, page
from keepstone.arm.items import path as item_path
from keepstone.arm.lro import ITEM, POINT, taken_on
from keepstone.arm.points import found_point
from keepstone.arm.table import Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import drills, items, operations

__all__ = ["document", "table"]

table = Table()
_ITEMS = "Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems"
_READ = f"{_ITEMS}/recoveryPoints/read"


@table("POST", f"{POINT}/drill", "keepstone.drill", action=f"{_ITEMS}/recoveryPoints/restore/action")
def drill(call: Call) -> Answer:
    """A job starts the point, and keeps what came of it."""
    with call.plane.change() as change:
        vault, held, item, point = found_point(call, change.connection)
        job = drills.ask(change, vault, held, item, point, call.correlation)
        operation = operations.record(change, vault.id, job=job)
    return taken_on(call, operation, item_path(vault, held, item))


@table("GET", f"{ITEM}/drills", "keepstone.drills", action=_READ)
def listing(call: Call) -> Answer:
    """Those of an item, the newest first."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        held, item = items.find(connection, vault, call.names["container"], call.names["item"])
        found = drills.listing(connection, item)
        pictured = drills.pictured(connection, [one.id for one in found])
    base = item_path(vault, held, item)
    return page([document(base, one, pictured=one.id in pictured) for one in found])


@table("GET", f"{ITEM}/drills/{{drill}}/screenshot", "keepstone.drill_screenshot", action=_READ)
def screenshot(call: Call) -> Answer:
    """The picture of its screen, PNG. `NotFound`."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        _, item = items.find(connection, vault, call.names["container"], call.names["item"])
        picture = drills.screenshot(connection, drills.find(connection, item, call.names["drill"]))
    return Answer(body=picture, headers={"content-type": "image/png"})


def document(base: str, drill: drills.Drill, *, pictured: bool) -> dict[str, Any]:
    """A drill as clients see it. `base`: the id of its item; `pictured`: whether there is a picture of its screen."""
    return {
        "id": f"{base}/drills/{drill.id}",
        "name": str(drill.id),
        "type": f"{_ITEMS}/drills",
        "properties": {
            "recoveryPoint": drill.point,
            "began": moment(drill.began),
            "level": drill.level,
            "secondsToRecover": drill.seconds,
            **{key: drill.outcome.get(key) for key in ("reason", "total", "read", "size", "accel", "memory")},
            "shutDown": drill.outcome.get("shut_down"),
            "fileSystems": drill.outcome.get("file_systems"),
            "console": drill.outcome.get("console"),
            "hasScreenshot": pictured,
        },
    }
