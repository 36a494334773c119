# SPDX-License-Identifier: Apache-2.0
"""`keepstone user …`: people who log in with a name and a password.

No password is ever an argument. One that the service makes up is shown once; another one comes from a file, a command,
the environment, or whoever is at the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at
from keepstone.cli.client.session import client_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["user"]

Document = Mapping[str, Any]
_PROVIDER = "/providers/Keepstone.Identity"
_NAME = click.option("--name", "-n", required=True, metavar="NAME", help="What the user logs in with.")


def _roles(document: Document) -> str:
    given = at(document, "properties.roles") or []
    return ", ".join(f"{one['roleName']} at {one['scope']}" for one in given) or "none"


_COLUMNS = (
    Column("name", "name"),
    Column("display name", "properties.displayName"),
    Column("roles", _roles),
    Column("object id", "properties.principalId"),
    Column("password", "properties.password"),
)


def _password_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--password-command",
            metavar="COMMAND",
            help="Read it from what COMMAND prints [also: KEEPSTONE_NEW_PASSWORD].",
        )
        file = click.option(
            "--password-file", metavar="FILE", help=f"Read {what} from the first line of FILE; - is the standard input."
        )
        return file(command(function))

    return decorate


@click.group()
def user() -> None:
    """People who log in with a name and a password."""


@client_command(name="create")
@_NAME
@click.option("--display-name", metavar="TEXT", help="What people call them [default: the name].")
@click.option("--role", metavar="ROLE", help="A role that they get, such as Owner [default: none].")
@click.option("--scope", default="/", show_default=True, metavar="ID", help="The resource that they have it for.")
@_password_options("the password")
def create(
    session: Session,
    name: str,
    display_name: str | None,
    role: str | None,
    scope: str,
    password_file: str | None,
    password_command: str | None,
) -> None:
    """Make a user. Without a password the service makes one up, which is shown this once."""
    from keepstone.errors import AlreadyExists, NotFound

    path = _path(name)
    try:
        session.arm.get(path)
    except NotFound:
        pass
    else:
        raise AlreadyExists(f"there is a user '{name}' already; choose another name")
    sent = {"displayName": display_name, "password": _given(password_file, password_command, asks=False)}
    if role is not None:
        sent |= {"roleName": role, "roleScope": scope}
    properties = {key: value for key, value in sent.items() if value is not None}
    _show(session, session.arm.ask("PUT", path, {"properties": properties}).body)


@client_command(name="list")
def list_users(session: Session) -> None:
    """List the users."""
    session.show(
        list(session.arm.every(f"{_PROVIDER}/users")), _COLUMNS[:-1], "no users; make one with `keepstone user create`"
    )


@client_command(name="show")
@_NAME
def show(session: Session, name: str) -> None:
    """Show a user, and what they may do."""
    session.show(session.arm.get(_path(name)), _COLUMNS[:-1])


@client_command(name="update")
@_NAME
@click.option("--display-name", required=True, metavar="TEXT", help="What people call them from now on.")
def update(session: Session, name: str, display_name: str) -> None:
    """Change what people call a user."""
    path = _path(name)
    session.arm.get(path)
    body = {"properties": {"displayName": display_name}}
    session.show(session.arm.ask("PUT", path, body).body, _COLUMNS[:-1])


@client_command(name="delete")
@_NAME
@yes_option
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete a user and the roles that they have. The last Owner stays."""
    path = _path(name)
    there = session.arm.get(path)["name"]
    session.console.confirm(f"Delete user {there} and the roles that they have?", yes)
    session.arm.ask("DELETE", path)
    session.tell(f"user {there} is deleted")


@client_command(name="set-password")
@click.option("--name", "-n", metavar="NAME", help="Somebody else [default: yourself].")
@_password_options("the new password")
@click.option("--current-file", metavar="FILE", help="Your own: read the one until now from the first line of FILE.")
@click.option(
    "--current-command", metavar="COMMAND",
    help="Read it from what COMMAND prints [also: KEEPSTONE_PASSWORD, or a prompt].",
)  # fmt: skip
def set_password(
    session: Session,
    name: str | None,
    password_file: str | None,
    password_command: str | None,
    current_file: str | None,
    current_command: str | None,
) -> None:
    """Change your own password, which needs the one until now and no role; or somebody else's.

    Who is logged in stays it until the login is over, within an hour.
    """
    from keepstone.cli.secret import Secret
    from keepstone.errors import UsageError

    if name is not None:
        if current_file is not None or current_command is not None:
            raise UsageError("the password until now is asked for your own only; leave --name or --current-… out")
        body = {"password": _given(password_file, password_command, asks=True)}
        session.arm.ask("POST", f"{_path(name)}/password", body)
        session.tell(f"{name} has another password")
        return
    until_now = Secret(
        what="password until now",
        file=current_file,
        command=current_command,
        variable="KEEPSTONE_PASSWORD",
        option="--current",
    )
    body = {"currentPassword": _text(until_now.read()), "password": _given(password_file, password_command, asks=True)}
    changed = session.arm.ask("POST", f"{_PROVIDER}/ownPassword", body).body
    session.tell(f"{changed['name']} has another password")


@client_command(name="reset-password")
@_NAME
def reset_password(session: Session, name: str) -> None:
    """Give a user a password that the service makes up. It is shown this once.

    On the service's own machine, whoever may read the files of its data folder needs no login for this, and the service
    does not have to run: so a password that nobody knows any more is no loss.
    """
    root = session.folder
    if root is None:
        _show(session, session.arm.ask("POST", f"{_path(name)}/password").body)
        return
    from keepstone.cli.client.local import reset

    made = reset(root, name)
    _show(session, {"name": name.casefold(), "properties": {"password": made}})


def _path(name: str) -> str:
    from keepstone.cli.client.finding import named

    return named(_PROVIDER, "users", name)


def _given(file: str | None, command: str | None, *, asks: bool) -> str | None:
    """A new password, from wherever it comes; None where nobody gives one."""
    from keepstone.cli.secret import Secret

    secret = Secret(
        what="new password", file=file, command=command, variable="KEEPSTONE_NEW_PASSWORD", option="--password"
    )
    return _text(secret.read(new=True)) if asks or secret.given else None


def _text(secret: bytes) -> str:
    from keepstone.errors import UsageError

    try:
        return secret.decode()
    except UnicodeDecodeError as error:
        raise UsageError("the password is no text in UTF-8; choose another one") from error


def _show(session: Session, document: Document) -> None:
    """A user, with a password that was made up."""
    made = at(document, "properties.password") is not None
    columns = [column for column in _COLUMNS if made or column.title != "password"]
    session.show(document, columns)
    if made:
        session.tell("The password is shown this once: hand it on in a way that nobody else sees.")


for _command in (create, list_users, show, update, delete, set_password, reset_password):
    user.add_command(_command)
