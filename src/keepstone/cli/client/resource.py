# SPDX-License-Identifier: Apache-2.0
"""Resources that stand around a vault, as commands name them: by a group and a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["GROUP", "all_of", "forget", "path_of"]

GROUP = click.option("--resource-group", "-g", "group", required=True, metavar="NAME", help="The resource group.")


def path_of(session: Session, group: str, kind: str, name: str) -> str:
    """The id of one. `kind`: its type, with the namespace."""
    from keepstone.cli.client.finding import group_path

    return f"{group_path(session, group)}/providers/{kind}/{name}"


def all_of(session: Session, group: str, kind: str) -> list[dict[str, Any]]:
    """Those of a type that are in a group."""
    from keepstone.cli.client.finding import group_path

    return list(session.arm.every(f"{group_path(session, group)}/providers/{kind}"))


def forget(session: Session, path: str, what: str, yes: bool) -> None:
    """Remove one, when people have agreed; what is behind it stays. `what` it is, for people."""
    session.console.confirm(f"Forget {what}?", yes)
    session.arm.finish(session.arm.ask("DELETE", path))
    session.tell(f"{what} is forgotten")
