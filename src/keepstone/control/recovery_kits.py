# SPDX-License-Identifier: Apache-2.0
"""Recovery kits, and whether somebody keeps them away from this machine.

What is lost with a machine is lost with its keys as well, unless a vault's kit and the recovery key that opens it are
elsewhere. Nobody can see from here whether they are. So somebody who took both says so, and says how both files end:
whoever can read that has them before him. Until then the portal asks for it again and again.

The recovery key opens the kits of all vaults. Only who may do everything gets either, and the log says who did.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import every, first, vaults
from keepstone.control.plane import Change, Plane
from keepstone.crypto import recipient_of
from keepstone.errors import InvalidRequest, NotFound, StoreMissing, Unauthorized
from keepstone.files import read_file
from keepstone.identity import Assignment, Principal
from keepstone.identity.builtin import OWNER
from keepstone.vault import Vault

__all__ = ["KEY", "State", "confirm", "ending", "find", "key", "kit", "listing", "state"]

_log = logging.getLogger(__name__)
KEY = "recovery-key.txt"
"""Its file, in the folder of the installation and wherever it is kept."""
_SETTING = "recoveryKit"  # among those of a vault
_ENDING = 8  # characters


@dataclass(frozen=True, slots=True)
class State:
    """`confirmed`: when somebody said that the kit and its key are kept elsewhere, and `by` whom; None: nobody has."""

    vault: Vault
    confirmed: datetime | None
    by: str = ""


def state(vault: Vault) -> State:
    """Of a vault's kit."""
    kept = vault.settings.get(_SETTING)
    if not isinstance(kept, dict):
        return State(vault, None)
    return State(vault, datetime.fromisoformat(str(kept["confirmed"])), str(kept["by"]))


def listing(connection: sa.Connection) -> list[State]:
    """Of all vaults that live, by their names."""
    found = every(connection, Vault, vaults.c.deleted.is_(None), order=(vaults.c.key, vaults.c.id))
    return [state(vault) for vault in found]


def find(connection: sa.Connection, name: str) -> Vault:
    """The vault whose kit is called so. `NotFound`."""
    try:
        identity = UUID(name)
    except ValueError:
        identity = UUID(int=0)
    vault = first(connection, Vault, vaults.c.id == identity, vaults.c.deleted.is_(None))
    if vault is None:
        raise NotFound(
            f"there is no recovery kit '{name}'; `keepstone vault recovery-kit list` shows all that there are"
        )
    return vault


def kit(plane: Plane, who: Principal, held: Sequence[Assignment], name: str) -> tuple[Vault, bytes]:
    """A vault's kit, which the recovery key opens. `Unauthorized`, `NotFound`. One that is lost is made anew."""
    _check(who, held)
    with plane.look() as connection:
        vault = find(connection, name)
    try:
        data = plane.stores.kit(vault.id)
    except StoreMissing:
        plane.stores.renew_kit(vault.id, f"vault {vault.path}")
        data = plane.stores.kit(vault.id)
    _log.warning("'%s' took the recovery kit of vault '%s'", who.client, vault.name)
    return vault, data


def key(plane: Plane, who: Principal, held: Sequence[Assignment]) -> bytes:
    """The recovery key, an age identity. `Unauthorized`."""
    _check(who, held)
    data = _key(plane)
    _log.warning("'%s' took the recovery key, which opens the recovery kits of all vaults", who.client)
    return data


def confirm(
    change: Change, who: Principal, held: Sequence[Assignment], name: str, kit_ending: str, key_ending: str
) -> State:
    """Somebody has both files. `kit_ending`: how the last line of the kit ends, before its frame; `key_ending`: how the
    recipient ends that the first line of the recovery key names. `InvalidRequest` for what is not so, `Unauthorized`.
    """
    plane = change.plane
    _check(who, held)
    vault = find(change.connection, name)
    recipient = recipient_of(_key(plane).decode())
    for given, whole, what, target in (
        (kit_ending, ending(plane.stores.kit(vault.id)), "the last line of the recovery kit, above its frame,", "kit"),
        (key_ending, recipient, "the recipient in the first line of the recovery key", "key"),
    ):
        wanted = given.strip().rstrip(";")
        if len(wanted) < min(_ENDING, len(whole)) or not whole.endswith(wanted):
            raise InvalidRequest(
                f"{what} does not end with {given.strip()!r}; open the file that you keep, and take its last {_ENDING} "
                "characters",
                target=f"properties.{target}Ending",
            )
    kept = {"confirmed": change.now.isoformat(), "by": who.client, "recipient": recipient}
    confirmed = replace(vault, settings={**vault.settings, _SETTING: kept})
    change.save(confirmed)
    _log.warning("'%s' confirmed the recovery kit of vault '%s'", who.client, vault.name)
    return state(confirmed)


def ending(data: bytes) -> str:
    """The last line of an armoured kit, before the line that frames it."""
    lines = [line.strip() for line in data.decode("ascii", "replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("-----")), "")


def _check(who: Principal, held: Sequence[Assignment]) -> None:
    """An Owner of everything. Others who may give roles can become one, and the log shows that then."""
    if not any(one.role.id == OWNER.id and not one.scope.strip("/") for one in held):
        raise Unauthorized(
            f"'{who.client}' is no Owner of the whole service, and nobody else gets recovery kits and their key; ask "
            "one"
        )


def _key(plane: Plane) -> bytes:
    try:
        return read_file(plane.env.fs, plane.root / KEY)
    except OSError as error:
        raise NotFound(
            f"{plane.root / KEY} cannot be read ({error.strerror}); bring it back from where it is kept"
        ) from error
