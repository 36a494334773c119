# SPDX-License-Identifier: Apache-2.0
"""`keepstone drill …`: starting points to see whether they do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, moment, octets
from keepstone.cli.client.session import item_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["drill"]

Document = dict[str, Any]
_COLUMNS = (
    Column("drill", "name"),
    Column("point", "properties.recoveryPoint"),
    Column("began", "properties.began", moment),
    Column("reached", "properties.level"),
    Column("seconds to recover", "properties.secondsToRecover"),
    Column("read", "properties.read", octets),
    Column("why", "properties.reason"),
)


@click.group()
def drill() -> None:
    """Restore drills: a point starts where it reaches nobody, and what came of it is kept."""


@item_command(name="run")
@click.argument("point", default="latest")
@click.option("--no-wait", is_flag=True, help="Do not wait for the end of the job.")
def run(session: Session, vault: str, item: Document, point: str, no_wait: bool) -> int | None:
    """Start POINT, or the newest one, and say how far it came. Exit code 4 where it did not come up."""
    from keepstone.cli.client.finding import find_point
    from keepstone.cli.client.waiting import ended

    found = find_point(session, item, point)
    return ended(session, vault, session.arm.ask("POST", f"{found['id']}/drill"), wait=not no_wait)


@item_command(name="list")
def list_drills(session: Session, vault: str, item: Document) -> None:
    """List the drills of an item, the newest first."""
    found = list(session.arm.every(f"{item['id']}/drills"))
    session.show(found, _COLUMNS, "no drills; `keepstone drill run` makes one, and a policy may ask for them")


@item_command(name="screenshot")
@click.argument("name", metavar="DRILL")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def screenshot(session: Session, vault: str, item: Document, name: str, target: Path) -> None:
    """Write the picture of a drill's screen, a PNG, into the new FILE. DRILL is its name, or `latest`."""
    from keepstone.cli.client.saving import save
    from keepstone.cli.progress import metered
    from keepstone.errors import NotFound

    found = list(session.arm.every(f"{item['id']}/drills"))
    chosen = [one for one in found if one["name"] == name] or (found[:1] if name == "latest" else [])
    if not chosen:
        raise NotFound(f"there is no drill {name!r}; `keepstone drill list` shows those that there are")
    address = f"{chosen[0]['id']}/screenshot"
    with metered(session.console, "picture") as meter:
        save(lambda begin: session.arm.content(address, {}, begin), None, target, address, meter)
    session.tell(f"the picture is in {target}")


for _command in (run, list_drills, screenshot):
    drill.add_command(_command)
