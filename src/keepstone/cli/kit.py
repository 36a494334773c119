# SPDX-License-Identifier: Apache-2.0
"""Making a recovery kit and telling its passphrase, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.render import text

if TYPE_CHECKING:
    from keepstone.crypto import Keyring
    from keepstone.env import Env

__all__ = ["Sealing", "WrittenKit", "recipient_option"]


recipient_option = click.option(
    "--kit-recipient",
    "recipients",
    multiple=True,
    metavar="AGE1…",
    help="Seal the kit to this age recipient, instead of under a passphrase that is made up and shown once.",
)


@dataclass(frozen=True, slots=True)
class WrittenKit:
    """A kit on disk. `passphrase` is empty where it is sealed to recipients."""

    path: Path
    passphrase: str
    recipients: tuple[str, ...]

    def __repr__(self) -> str:
        return f"WrittenKit({str(self.path)!r})"

    def facts(self) -> dict[str, Any]:
        """For the result; the only place, beside `tell`, where the passphrase appears."""
        sealed: dict[str, Any] = {"passphrase": self.passphrase} if self.passphrase else {"recipients": self.recipients}
        return {"file": str(self.path), **sealed}

    def tell(self, console: Console) -> None:
        """Tell people, also those who want little to be said: nobody can ask again."""
        if console.json:
            return
        lines = [f"The recovery kit is in {self.path}."]
        if self.passphrase:
            lines += [f"Its passphrase is  {self.passphrase}", "It is shown only this once."]
        lines += [
            "Keep the kit and what opens it elsewhere, away from the store and from the machines that are backed up:",
            "without it nobody can open the store when its key, or the folder `keys` in the store, is lost.",
        ]
        click.echo("\n".join(lines), err=True)


@dataclass(frozen=True, slots=True)
class Sealing:
    """How a kit will be sealed: to age recipients, or under a passphrase that is made up."""

    recipients: tuple[str, ...]

    @classmethod
    def checked(cls, recipients: tuple[str, ...]) -> Sealing:
        """Fails with `UsageError` before anything is made, if a recipient is none."""
        if recipients:
            from keepstone.crypto import check_recipients

            check_recipients(recipients)
        return cls(recipients)

    def write(self, env: Env, keyring: Keyring, path: Path, place: str) -> WrittenKit:
        """Write the kit of an opened store."""
        from keepstone.crypto import generate_passphrase, make_kit
        from keepstone.objects import write_private

        passphrase = "" if self.recipients else generate_passphrase(env)
        description = f"store {keyring.store_id.hex()} in {text(place)}"
        kit = make_kit(env, keyring, description, passphrase=passphrase or None, recipients=self.recipients)
        write_private(env, path, kit)
        return WrittenKit(path, passphrase, self.recipients)
