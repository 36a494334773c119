# SPDX-License-Identifier: Apache-2.0
"""`keepstone vault recovery-kit …`: what opens the vaults on the day on which this service's machine is gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, moment
from keepstone.cli.client.session import client_command, vault_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["recovery_kit"]

Document = dict[str, Any]
_PROVIDER = "/providers/Keepstone.Recovery"
_FILE = click.Path(path_type=Path)
_COLUMNS = (
    Column("vault", lambda one: one["properties"]["vaultId"].split("/")[8]),
    Column("group", lambda one: one["properties"]["vaultId"].split("/")[4]),
    Column("confirmed", "properties.isConfirmed"),
    Column("at", "properties.confirmedTime", moment),
    Column("by", "properties.confirmedBy"),
)
_SAVED = (Column("file", "file"),)


@click.group(name="recovery-kit")
def recovery_kit() -> None:
    """What opens a vault when this service is gone: its kit, and the key that opens all kits. For Owners of all."""


@client_command(name="list")
def list_kits(session: Session) -> None:
    """List which kits somebody confirmed to keep elsewhere."""
    session.show(list(session.arm.every(f"{_PROVIDER}/recoveryKits")), _COLUMNS, "no vaults, and so no kits")


@vault_command(name="download")
@click.option(
    "--file", "-f", "file", required=True, type=_FILE, metavar="FILE", help="The file to make, for its owner alone."
)
def download(session: Session, vault: str, file: Path) -> None:
    """Take the recovery kit of a vault. It opens by the recovery key; keep the two apart, and both elsewhere."""
    _save(session, f"{_kit(session, vault)}/download", file)


@client_command(name="download-key")
@click.option(
    "--file", "-f", "file", required=True, type=_FILE, metavar="FILE", help="The file to make, for its owner alone."
)
def download_key(session: Session, file: Path) -> None:
    """Take the recovery key, which opens the recovery kits of all vaults."""
    _save(session, f"{_PROVIDER}/recoveryKey/download", file)


@vault_command(name="confirm")
@click.option("--kit", required=True, type=_FILE, metavar="FILE", help="The kit, as it is kept.")
@click.option("--key", required=True, type=_FILE, metavar="FILE", help="The recovery key, as it is kept.")
def confirm(session: Session, vault: str, kit: Path, key: Path) -> None:
    """Say that kit and key are kept away from the service: the key has to open the kit. Both stay where they are."""
    from keepstone.crypto import open_kit, recipient_of

    data, identity = _read(kit), _read(key).decode("utf-8", "replace")
    open_kit(data, identity=identity)
    lines = [line.strip() for line in data.decode("ascii", "replace").splitlines() if line.strip()]
    last = next(line for line in reversed(lines) if not line.startswith("-----"))
    body = {"properties": {"kitEnding": last[-8:], "keyEnding": recipient_of(identity)[-8:]}}
    session.show(session.arm.ask("POST", f"{_kit(session, vault)}/confirm", body).body, _COLUMNS)


def _kit(session: Session, vault: str) -> str:
    """The id of a vault's kit. `NotFound`."""
    from keepstone.errors import NotFound

    for one in session.arm.every(f"{_PROVIDER}/recoveryKits"):
        if one["properties"]["vaultId"].casefold() == vault.casefold():
            return str(one["id"])
    raise NotFound(f"there is no vault {vault}; `keepstone vault list` shows those that there are")


def _save(session: Session, address: str, file: Path) -> None:
    from keepstone.env import Env
    from keepstone.errors import AlreadyExists
    from keepstone.objects import write_private

    if file.exists():
        raise AlreadyExists(f"{file} is there already; choose another file")
    properties = session.arm.ask("POST", address).body["properties"]
    write_private(Env(), file, properties["content"].encode())
    session.show({"file": str(file)}, _SAVED)


def _read(file: Path) -> bytes:
    from keepstone.errors import NotFound
    from keepstone.objects import failure

    try:
        return file.read_bytes()
    except OSError as error:
        raise failure(error, str(file), missing=NotFound) from error


for _command in (list_kits, download, download_key, confirm):
    recovery_kit.add_command(_command)
