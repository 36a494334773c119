# SPDX-License-Identifier: Apache-2.0
"""Who may read the private files of a service may do everything there, as root may with a socket of this machine: with
the key that tokens are signed by, he gives himself one.

Such a token speaks for the principal `local`, which is made when it is first needed, as an Owner of everything and
without a secret: nobody can log in as it. So what is done in this way stands under a name of its own in jobs and logs,
and its role can be taken away like anybody's.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.cli.client.tokens import Token

if TYPE_CHECKING:
    from keepstone.control.installation import Installation

__all__ = ["LOGIN", "local_token", "reset"]

LOGIN = "local"


def local_token(root: Path, url: str) -> Token:
    """A token for the service in `root`, which answers at `url`. `AccessDenied` for who may not read its key."""
    import sqlalchemy as sa

    from keepstone.catalogue import first, principals
    from keepstone.control import people
    from keepstone.errors import AlreadyExists
    from keepstone.identity import Principal
    from keepstone.identity.tokens import LIFETIME
    from keepstone.vault import Identity

    installation = _installation(root)
    plane = installation.plane()
    try:
        with plane.look() as connection:
            who = first(connection, Identity, principals.c.login == LOGIN)
        if who is None:
            try:
                with plane.change() as change:
                    who = people.add(change, "app", LOGIN, "Administrator of this machine")
                    people.assign(change, "/", who.id, "Owner")
            except (AlreadyExists, sa.exc.IntegrityError):  # another command was faster
                return local_token(root, url)
        principal = Principal(who.id, who.login, "app", who.name)
        end = int(time.time()) + LIFETIME
        tenant = plane.place.tenant
        value = installation.issuer(tenant).issue(principal, f"{url}/", f"{url}/{tenant}/v2.0")
    finally:
        plane.database.close()
    return Token(url=url, who=LOGIN, value=value, end=end)


def reset(root: Path, name: str) -> str:
    """Another password for a user of the service in `root`, which does not have to run. `NotFound`; `AccessDenied` for
    who may not read its key."""
    from keepstone.control import users

    plane = _installation(root).plane()
    try:
        made = users.set_password(plane, name)
    finally:
        plane.database.close()
    assert made is not None
    return made


def _installation(root: Path) -> Installation:
    from keepstone.env import Env
    from keepstone.errors import AccessDenied
    from keepstone.server.choices import installed

    try:
        installation = installed(Env(), root)
        (root / "issuer.key").open("rb").close()
    except PermissionError as error:
        raise AccessDenied(
            f"only who may read {error.filename} is the service's administrator without a password; log in with "
            "`keepstone login`"
        ) from error
    return installation
