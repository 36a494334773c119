# SPDX-License-Identifier: Apache-2.0
"""Recovery kits and the key that opens them. Keepstone's own: Azure keeps the keys of its vaults to itself.

They are the whole service's, so these operations need a role at `/`. Whoever has a kit and the key can read everything
in a vault: so the actions are those of Microsoft.Authorization, as with users, and only Owners get an answer.
"""

from __future__ import annotations

from typing import Any

from keepstone.arm.answers import moment, page
from keepstone.arm.table import Answer, Call, Table
from keepstone.control import recovery_kits
from keepstone.control.recovery_kits import State
from keepstone.errors import InvalidRequest

__all__ = ["table"]

table = Table()
_PROVIDER = "/providers/Keepstone.Recovery"
_KITS = f"{_PROVIDER}/recoveryKits"
_KIT = f"{_KITS}/{{kit}}"
_READ, _WRITE = "Microsoft.Authorization/recoveryKits/read", "Microsoft.Authorization/recoveryKits/write"


@table("GET", _KITS, "keepstone.recovery_kits_list", action=_READ)
def listing(call: Call) -> Answer:
    """Of all vaults: whether somebody confirmed that he has it. Nothing that opens anything."""
    with call.plane.look() as connection:
        return page([_document(one) for one in recovery_kits.listing(connection)])


@table("POST", f"{_KIT}/download", "keepstone.recovery_kits_download", action=_WRITE)
def download(call: Call) -> Answer:
    """The kit of a vault, an age file."""
    assert call.who is not None
    vault, data = recovery_kits.kit(call.plane, call.who, call.held, call.names["kit"])
    return _file(f"{vault.group_name}-{vault.name}-recovery-kit.age", data)


@table("POST", f"{_KIT}/confirm", "keepstone.recovery_kits_confirm", action=_WRITE)
def confirm(call: Call) -> Answer:
    """`kitEnding` and `keyEnding`: how both files end that are kept elsewhere."""
    sent = call.part("properties")
    kit, key = (_text(sent, name) for name in ("kitEnding", "keyEnding"))
    assert call.who is not None
    with call.plane.change() as change:
        done = recovery_kits.confirm(change, call.who, call.held, call.names["kit"], kit, key)
    return Answer(body=_document(done))


@table("POST", f"{_PROVIDER}/recoveryKey/download", "keepstone.recovery_key_download", action=_WRITE)
def download_key(call: Call) -> Answer:
    """The key that opens the kits of all vaults, an age identity."""
    assert call.who is not None
    return _file(recovery_kits.KEY, recovery_kits.key(call.plane, call.who, call.held))


def _text(sent: dict[str, Any], name: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"properties.{name} is missing", target=f"properties.{name}")
    return value


def _file(name: str, data: bytes) -> Answer:
    return Answer(body={"properties": {"fileName": name, "content": data.decode("ascii")}})


def _document(one: State) -> dict[str, Any]:
    return {
        "id": f"{_KITS}/{one.vault.id}",
        "name": str(one.vault.id),
        "type": "Keepstone.Recovery/recoveryKits",
        "properties": {
            "vaultId": one.vault.path,
            "isConfirmed": one.confirmed is not None,
            "confirmedTime": moment(one.confirmed),
            "confirmedBy": one.by or None,
        },
    }
