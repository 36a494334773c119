# SPDX-License-Identifier: Apache-2.0
"""What the agent's commands have in common: where its things are."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from keepstone.cli.console import Console, pass_console

__all__ = ["agent_command"]

_HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    envvar="KEEPSTONE_HOME",
    help="The folder that all of the agent's things are in [also: KEEPSTONE_HOME; default: the system's folders].",
)
# The console has read these before anything was parsed, see `Console.of`; here they get their help.
_OUTPUT = (
    click.option("--json", is_flag=True, expose_value=False, help="Print the result as one JSON object."),
    click.option("--debug", is_flag=True, expose_value=False, help="Show where an error comes from."),
)


def agent_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of the agent: called with the console, its folders, and its own options."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(console: Console, *, home: Path | None, **given: Any) -> Any:
            import os

            from keepstone.agent import system

            environ = dict(os.environ)
            if home is not None:
                environ["KEEPSTONE_HOME"] = str(home.absolute())
            return function(console, system.folders(environ), **given)

        shown: Any = run
        for option in reversed(_OUTPUT):
            shown = option(shown)
        command: click.Command = click.command(**attributes)(_HOME(pass_console(shown)))
        return command

    return decorate
