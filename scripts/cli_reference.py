# SPDX-License-Identifier: Apache-2.0
"""The reference of the commands in docs/OPERATIONS.md, out of the commands themselves.

python scripts/cli_reference.py           write it
python scripts/cli_reference.py --check   end with 1 where the page says something else
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from marked import ROOT, settle

from keepstone.cli.program import keepstone

__all__ = ["main", "reference"]

PAGE = ROOT / "docs" / "OPERATIONS.md"
ALONE = "store init"  # makes what the others on a store open
# What commands have that belong together, and what they are.
FAMILIES = {
    "--endpoint URL": "Options of every command that asks a service",
    "--store DIR": f"Options of every command on a store, but `{ALONE}`",
    "--data DIR": "Options of every command on a service of this machine",
}

Row = tuple[str, str]  # how an option is written, what it does
Found = tuple[str, click.Command, click.Context]


def reference() -> str:
    """Every command. The options that all of a family have stand once, before the first of them."""
    families: dict[str, list[Found]] = {}
    for found in _commands(keepstone, click.Context(keepstone, info_name="keepstone")):
        families.setdefault(_family(found[1]), []).append(found)
    lines: list[str] = []
    for family, commands in families.items():
        shared = _shared([command for name, command, _ in commands if name != ALONE]) if family else []
        lines += ["", f"### {family}", "", *_table(shared)] if family else []
        for name, command, below in commands:
            own = [row for row in _options(command) if name == ALONE or row not in shared]
            lines += ["", f"### `keepstone {name}`", "", f"    {_usage(command, below)}", "", _help(command)]
            lines += ["", *_table(own)] if own else []
    return "\n".join(lines[1:])


def _family(command: click.Command) -> str:
    names = {name for name, _ in _options(command)}
    return next((heading for mark, heading in FAMILIES.items() if mark in names), "")


def _shared(commands: list[click.Command]) -> list[Row]:
    """The options that all of several commands have."""
    first, *others = [_options(command) for command in commands]
    return [row for row in first if all(row in rows for rows in others)]


def _commands(group: click.Group, context: click.Context) -> Iterator[Found]:
    """(name without the program's, command, its context), in the order of the help."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(command, below)
        else:
            yield below.command_path.removeprefix("keepstone "), command, below


def _usage(command: click.Command, context: click.Context) -> str:
    return f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"


def _help(command: click.Command) -> str:
    """What the command says of itself, a paragraph a line."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(command.help or "").split("\n\n"))


def _options(command: click.Command) -> list[Row]:
    with click.Context(command) as context:
        options = (parameter for parameter in command.params if isinstance(parameter, click.Option))
        records = (option.get_help_record(context) for option in options)
        return [record for record in records if record is not None]


def _table(rows: Iterable[Row]) -> list[str]:
    return ["| option | meaning |", "|---|---|", *(f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows)]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="another page than docs/OPERATIONS.md")
    given = parser.parse_args()
    return settle(given.page, "commands", reference(), check=given.check, again="python scripts/cli_reference.py")


if __name__ == "__main__":
    sys.exit(main())
