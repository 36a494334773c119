# SPDX-License-Identifier: Apache-2.0
"""What a command works with: the service, whom it speaks for, and where its result goes; and the options that say so.

Each command is made by one of three: `client_command` for any, `vault_command` for one on a vault, `item_command` for
one on a protected item. They find what the options name, before the command is called with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import FORMS, Column, Output
from keepstone.cli.console import Console, pass_console
from keepstone.cli.opening import output_options

if TYPE_CHECKING:
    from keepstone.cli.client.credentials import Credentials
    from keepstone.cli.client.http import Arm
    from keepstone.cli.client.place import Place

__all__ = ["Session", "client_command", "container_option", "item_command", "vault_command", "yes_option"]

Document = dict[str, Any]
_FILE = click.Path(path_type=Path, readable=False)


class Session:
    """One run of a command. Nothing is connected before something is asked for."""

    def __init__(self, console: Console, output: Output, data: Path | None, endpoint: str | None, ca: Path | None):
        self.console = console
        self.output = output
        self._given = data, endpoint, ca

    @cached_property
    def place(self) -> Place:
        """The service."""
        from keepstone.cli.client.place import Place

        return Place.find(*self._given)

    @property
    def folder(self) -> Path | None:
        """Its data folder, whether it runs or not; None where it is only known by its address."""
        from keepstone.cli.client.place import Place

        return Place.folder(*self._given[:2])

    @cached_property
    def credentials(self) -> Credentials:
        """Whom this user speaks for there."""
        from keepstone.cli.client.credentials import Credentials
        from keepstone.cli.client.http import Wire
        from keepstone.cli.client.tokens import Tokens
        from keepstone.settings import Settings

        wire = Wire(self.place.url, self.place.ca, near=self.place.root is not None)
        return Credentials(self.place, wire, Tokens(Settings.load().cache / "tokens"))

    @cached_property
    def arm(self) -> Arm:
        """Its API."""
        from keepstone.cli.client.http import Arm

        return Arm(self.credentials.wire, self.credentials.bearer)

    @cached_property
    def subscription(self) -> str:
        """The id of the subscription. `Unauthorized` for somebody who may do nothing in it."""
        from keepstone.errors import Unauthorized

        found = next(self.arm.every("/subscriptions"), None)
        if found is None:
            raise Unauthorized(f"you have no role at {self.place.url}; ask an Owner there for one")
        return str(found["id"])

    @cached_property
    def location(self) -> str:
        """The region of the service: it has one."""
        return str(next(self.arm.every(f"{self.subscription}/locations"))["name"])

    def show(self, value: Any, columns: Sequence[Column], none: str = "") -> None:
        """The result: a document or a list of them. `none`: what people are told where the list is empty."""
        for line in self.output.lines(value, columns):
            self.console.line(line)
        if value == [] and self.output.form == "table":
            self.console.say(none)

    def tell(self, line: str) -> None:
        """A sentence for people beside a result that they see as a table."""
        if self.output.form == "table" and self.output.query is None:
            self.console.say(line)

    def path(self, text: str) -> str:
        """A path of the service's machine as it has to be told: where that is this one, it may be a relative one."""
        import os

        return os.path.abspath(text) if self.place.root is not None else text

    def close(self) -> None:
        """Let go of the connection."""
        if "credentials" in self.__dict__:
            self.credentials.wire.close()


_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _options(*options: _Decorator) -> _Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _told(context: click.Context, parameter: click.Parameter, form: str | None) -> str | None:
    """A failure is told as JSON where the result would be."""
    console = context.find_object(Console)
    if form == "json" and console is not None:
        console.json = True
    return form


_place_options = _options(
    click.option(
        "--data", type=_FILE, metavar="DIR", help="Data folder of a service of this machine [also: KEEPSTONE_DATA]."
    ),
    click.option("--endpoint", metavar="URL", help="Address of a service of any machine [also: KEEPSTONE_ENDPOINT]."),
    click.option("--ca", type=_FILE, metavar="FILE", help="What its certificate comes from [also: KEEPSTONE_CA]."),
)
_shape_options = _options(
    click.option(
        "--output",
        "-o",
        "form",
        type=click.Choice(FORMS),
        is_eager=True,
        callback=_told,
        help="How to print the result [default: table].",
    ),
    click.option("--query", metavar="JMESPATH", help="Print only what this chooses of the result."),
    output_options,
)
_vault_options = _options(
    click.option(
        "--resource-group",
        "-g",
        "group",
        envvar="KEEPSTONE_GROUP",
        metavar="NAME",
        help="The vault's group [also: KEEPSTONE_GROUP; default: where the vault is].",
    ),
    click.option(
        "--vault-name",
        "-v",
        "vault",
        envvar="KEEPSTONE_VAULT",
        metavar="NAME",
        help="The vault [also: KEEPSTONE_VAULT; default: the only one].",
    ),
)
container_option = click.option(
    "--container-name", "-c", "container", metavar="NAME", help="The machine or whatever else holds the item."
)
_item_options = _options(
    container_option,
    click.option(
        "--item-name", "-i", "item", required=True, metavar="NAME", help="The item: its path, its machine, or its name."
    ),
    click.option("--backup-management-type", "management", metavar="TYPE", help="Among items: of MAB, AzureIaasVM."),
    click.option("--workload-type", "workload", metavar="TYPE", help="Among items: of FileFolder, VM."),
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def client_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command: called with the session and its own options."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(
            console: Console,
            *,
            data: Path | None,
            endpoint: str | None,
            ca: Path | None,
            form: str | None,
            query: str | None,
            **given: Any,
        ) -> Any:
            output = Output(form or ("json" if console.json else "table"), query)
            session = Session(console, output, data, endpoint, ca)
            try:
                return function(session, **given)
            finally:
                session.close()

        shown = _options(_place_options, _shape_options)(pass_console(run))
        command: click.Command = click.command(**attributes)(shown)
        return command

    return decorate


def vault_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command on a vault: called with the session, the vault's id, and its own options."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(session: Session, *, group: str | None, vault: str | None, **given: Any) -> Any:
            from keepstone.cli.client.finding import vault_path

            return function(session, vault_path(session, group, vault), **given)

        return client_command(**attributes)(_vault_options(run))

    return decorate


def item_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command on a protected item: called with the session, the vault's id, the item's document, and its own
    options."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(
            session: Session,
            vault: str,
            *,
            container: str | None,
            item: str,
            management: str | None,
            workload: str | None,
            **given: Any,
        ) -> Any:
            from keepstone.cli.client.finding import find_item

            found = find_item(session, vault, item, container, management=management, workload=workload)
            return function(session, vault, found, **given)

        return vault_command(**attributes)(_item_options(run))

    return decorate
