# SPDX-License-Identifier: Apache-2.0
"""`keepstone vault rebuild`: a vault out of its store alone."""

from __future__ import annotations

from pathlib import Path

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, secret_options
from keepstone.cli.secret import Secret
from keepstone.cli.service.data import service_command

__all__ = ["rebuild"]

_FILE = click.Path(path_type=Path, dir_okay=False, readable=False)
_OURS = {"log", "run", "tls", "vaults"}  # what may be there before anything was made


@service_command(name="rebuild")
@click.option("--from", "place", type=click.Path(path_type=Path, readable=False), required=True, metavar="STORE",
              help="The folder of the vault's store, which moves into the data folder.")  # fmt: skip
@click.option("--kit", type=_FILE, required=True, metavar="FILE", help="Its recovery kit.")
@click.option("--kit-identity", "identity", type=_FILE, metavar="FILE",
              help="age identity that opens the kit [default: recovery-key.txt of the data folder, where it is there; "
              "else the kit has a passphrase].")  # fmt: skip
@secret_options
def rebuild(
    console: Console,
    root: Path,
    *,
    place: Path,
    kit: Path,
    identity: Path | None,
    passphrase_file: str | None,
    passphrase_command: str | None,
) -> int:
    """Make a vault anew out of its store, where the database that knew it is lost.

    In a data folder that has no vaults yet, everybody who could log in can do so again, and the service keeps its
    tenant and subscription. The store gets a new key and a new recovery kit; earlier kits stay good. Not in a store are
    the jobs and alerts of the past, and who is told of alerts. The service must not run.
    """
    from keepstone.control.installation import Installation
    from keepstone.control.rebuild import rebuild
    from keepstone.env import Env
    from keepstone.server import instance
    from keepstone.server.choices import Choices

    choices = Choices.of(root)
    if choices is None:
        _check_empty(root)
    secret, own = Secret(file=passphrase_file, command=passphrase_command), root / "recovery-key.txt"
    if identity is None and not secret.given and own.exists():
        identity = own
    opening = Opening(place=place, secret=secret, key_file=None, kit=kit, identity=identity)
    opened = opening.opened_kit()
    hold = instance.take(root)
    try:
        made = rebuild(Installation(Env(), root, choices.database if choices else None), place, opened)
    finally:
        hold.release()
    for warning in made.warnings:
        console.warn(warning)
    result = {
        "vault": made.vault.path,
        "data": str(root),
        "tenant": made.place.tenant,
        "subscription": made.place.subscription,
        "items": made.items,
        "points": made.points,
        "journal_entry": made.entry,
    }
    lines = [
        f"vault {made.vault.name} is back, with {made.items} items and {made.points} recovery points",
        f"it is as entry {made.entry} of its journal left it; say again who is told of its alerts",
        "start the service with `keepstone up`",
    ]
    console.result(result, lines)
    return console.ending()


def _check_empty(root: Path) -> None:
    """`UsageError` where a new service would lie among other things."""
    from keepstone.errors import UsageError

    found = {path.name for path in root.iterdir()} if root.is_dir() else set()
    if found - _OURS and "issuer.key" not in found:
        raise UsageError(f"{root} holds other things ({min(found - _OURS)} …); choose an empty folder as --data")
