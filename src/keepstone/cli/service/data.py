# SPDX-License-Identifier: Apache-2.0
"""How a command gets its service: the option that says where the data folder is."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from keepstone.cli.console import Console, pass_console

__all__ = ["service_command"]

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="The data folder of the service [also: KEEPSTONE_DATA; default: this user's].",
)
# The console has read these before anything was parsed, see `Console.of`; here they get their help.
_OUTPUT = (
    click.option("--json", is_flag=True, expose_value=False, help="Print the result as one JSON object."),
    click.option("--debug", is_flag=True, expose_value=False, help="Show where an error comes from."),
)


def service_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command on a service: called with the console, its data folder, and its own options."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(console: Console, *, data: Path | None, **given: Any) -> Any:
            return function(console, _folder(data), **given)

        shown: Any = run
        for option in reversed(_OUTPUT):
            shown = option(shown)
        command: click.Command = click.command(**attributes)(_DATA(pass_console(shown)))
        return command

    return decorate


def _folder(data: Path | None) -> Path:
    from keepstone.settings import Settings

    return Settings.load().service if data is None else data.absolute()
