# SPDX-License-Identifier: Apache-2.0
"""`keepstone az-setup`: a service principal, and the commands that make `az` a client of this service."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import click

from keepstone.cli.console import Console
from keepstone.cli.service.data import service_command

__all__ = ["az_setup"]


@service_command(name="az-setup")
@click.option(
    "--role", default="Owner", show_default=True, metavar="ROLE", help="The role that it gets, by its name or id."
)
@click.option("--scope", default="/", show_default=True, metavar="ID", help="The resource that it has the role for.")
def az_setup(console: Console, root: Path, *, role: str, scope: str) -> None:
    """Make a service principal, and show how `az` logs in as it.

    Each call makes another one. Its secret is shown this once.
    """
    from keepstone.control import people
    from keepstone.env import Env
    from keepstone.errors import Conflict
    from keepstone.identity import new_secret
    from keepstone.server import instance
    from keepstone.server.choices import installed

    installation = installed(Env(), root)
    last = instance.last(root)
    if last is None or not last.url:
        raise Conflict(f"the service in {root} has no address yet; start it with `keepstone up`, then do this again")
    plane = installation.plane()
    with closing(plane.database):
        known = people.role(role)
        _check(scope, plane.place.subscription)
        client, secret = str(plane.new_id()), new_secret(plane.env)
        with plane.change() as change:
            who = people.add(change, "app", client, "az-setup", secret)
            people.assign(change, scope, who.id, known.name)
    result = {
        "endpoint": last.url,
        "tenant": plane.place.tenant,
        "subscription": plane.place.subscription,
        "client_id": client,
        "client_secret": secret,
        "ca": str(installation.ca),
    }
    if instance.running(root) is None:
        console.say("the service does not run; start it with `keepstone up`")
    told = f"The principal is {known.name} at {scope}. Its secret is shown this once."
    console.result(result, [*_recipe(result), "", told])


def _check(scope: str, subscription: str) -> None:
    """`UsageError` for a scope that no resource of this service can have."""
    from keepstone.errors import UsageError
    from keepstone.vault import folded

    own = f"/subscriptions/{subscription}"
    if scope != "/" and folded(own) != folded(scope.rstrip("/")) and not folded(scope).startswith(folded(own) + "/"):
        raise UsageError(f"--scope {scope} is no resource of this service; they begin with {own}, and / is everything")


def _recipe(found: Mapping[str, str]) -> list[str]:
    """The commands, for a shell."""
    endpoint = shlex.quote(found["endpoint"])
    login = (
        f"az login --service-principal -u {found['client_id']} -p {found['client_secret']} --tenant {found['tenant']}"
    )
    return [
        "# Trust the service's own authority; for az this takes the place of all others",
        f"export REQUESTS_CA_BUNDLE={shlex.quote(found['ca'])}",
        "",
        "# A: as a cloud with Microsoft Entra ID",
        f"az cloud register -n Keepstone --endpoint-resource-manager {endpoint}",
        "az cloud set -n Keepstone",
        "az config set core.instance_discovery=false",
        login,
        "",
        "# B: as a cloud with AD FS, where instance_discovery is to stay as it is",
        f"az cloud register -n Keepstone --endpoint-resource-manager {endpoint} \\",
        f"   --endpoint-active-directory {shlex.quote(found['endpoint'] + '/adfs')}",
        "az cloud set -n Keepstone",
        login,
    ]
