# SPDX-License-Identifier: Apache-2.0
"""The service itself. Keepstone's own: Azure has no machine of yours to speak of. It needs a role at `/`."""

from __future__ import annotations

from keepstone.arm.answers import moment
from keepstone.arm.table import Answer, Call, Table
from keepstone.control import installed

__all__ = ["table"]

table = Table()
_PATH = "/providers/Keepstone.Service/installation"


@table("GET", _PATH, "keepstone.installation_get", action="Microsoft.Authorization/installation/read")
def get(call: Call) -> Answer:
    """Where its data lies and how much room there is, its certificate, its release. No secret is among it."""
    found = installed.look(call.plane)
    properties = {
        "dataFolder": found.folder,
        "freeBytes": found.free,
        "sizeBytes": found.size,
        "database": found.database,
        "location": call.plane.place.location,
        "release": found.release,
        "keysIn": f"{found.folder}/keys",
        "demoFolder": found.demo or None,
        "certificateBegins": moment(found.begins),
        "certificateEnds": moment(found.ends),
    }
    return Answer(
        body={
            "id": _PATH,
            "name": "installation",
            "type": "Keepstone.Service/installation",
            "properties": {key: value for key, value in properties.items() if value is not None},
        }
    )
