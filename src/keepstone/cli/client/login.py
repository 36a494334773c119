# SPDX-License-Identifier: Apache-2.0
"""`keepstone login` and `logout`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from keepstone.cli.client.output import Column
from keepstone.cli.client.session import client_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["login", "logout"]

_COLUMNS = (
    Column("logged in as", "user"),
    Column("service", "endpoint"),
    Column("subscription", "subscription"),
    Column("until", "until"),
)


@client_command(name="login")
@click.option("--username", "-u", metavar="NAME", help="Who you are [default: asked for].")
@click.option("--client-id", metavar="ID", help="A service principal, not a user [also: KEEPSTONE_CLIENT_ID].")
@click.option("--secret-file", metavar="FILE", help="Read the password or secret from the first line of FILE.")
@click.option(
    "--secret-command", metavar="COMMAND",
    help="Read it from what COMMAND prints [also: KEEPSTONE_PASSWORD, KEEPSTONE_CLIENT_SECRET, or a prompt].",
)  # fmt: skip
def login(
    session: Session,
    username: str | None,
    client_id: str | None,
    secret_file: str | None,
    secret_command: str | None,
) -> None:
    """Log in at a service, for an hour. Other commands speak for you then.

    On the service's own machine, whoever may read the files of its data folder needs no login: he is its administrator
    `local`.
    """
    from keepstone.cli.client.credentials import granted
    from keepstone.cli.render import when
    from keepstone.cli.secret import Secret
    from keepstone.errors import UsageError

    if username is not None and client_id is not None:
        raise UsageError("--username and --client-id both say who you are; give one of them")
    credentials = session.credentials
    client = client_id or (os.environ.get("KEEPSTONE_CLIENT_ID") if username is None else None)
    name = client or username or click.prompt("User name", err=True)
    what, variable = ("client secret", "KEEPSTONE_CLIENT_SECRET") if client else ("password", "KEEPSTONE_PASSWORD")
    secret = Secret(what=what, file=secret_file, command=secret_command, variable=variable, option="--secret")
    token = granted(credentials.wire, name, os.fsdecode(secret.read()), user=client is None)
    credentials.tokens.keep(credentials.login, token)
    found = {
        "user": name,
        "endpoint": credentials.place.url,
        "subscription": session.subscription.rpartition("/")[2],
        "until": when(token.end * 10**9),
    }
    session.show(found, _COLUMNS)


@client_command(name="logout")
def logout(session: Session) -> None:
    """Forget the login at a service."""
    credentials = session.credentials
    there = credentials.tokens.get(credentials.login)
    credentials.tokens.drop(credentials.login)
    session.tell(f"{there.who} is logged out" if there is not None else "nobody was logged in")
