# SPDX-License-Identifier: Apache-2.0
"""`keepstone store key`: what opens the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepstone.cli.console import Console
from keepstone.cli.keyfiles import key_file, next_key_file, place_for_kit
from keepstone.cli.kit import Sealing, recipient_option
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.secret import Secret
from keepstone.objects import replace_private

if TYPE_CHECKING:
    from keepstone.crypto import KeyProvider
    from keepstone.store import Store

__all__ = ["key"]


@click.group()
def key() -> None:
    """Change what opens the store, or make a recovery kit."""


@store_command(name="rotate")
@click.option("--new-passphrase-file", metavar="FILE", help="Read the new passphrase from the first line of FILE.")
@click.option("--new-passphrase-command", metavar="COMMAND",
              help="Read it from what COMMAND prints [also: KEEPSTONE_NEW_PASSPHRASE].")  # fmt: skip
@click.option("--new-passphrase", "ask", is_flag=True, help="Ask for a new passphrase.")
@click.option("--new-key-file", "new_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Make a new key file here.")  # fmt: skip
def rotate(
    console: Console,
    opening: Opening,
    new_passphrase_file: str | None,
    new_passphrase_command: str | None,
    ask: bool,
    new_file: Path | None,
) -> None:
    """Replace whatever opens the store: by a new passphrase, a new key file, or both.

    Without more: by a new key file of this user on this machine. No data is rewritten. The recovery kit stays good;
    everything else that opened the store does so no longer. With --kit it works also where the store's own keys, its
    folder `keys`, are gone or damaged, and writes them anew.
    """
    from keepstone.crypto import PassphraseProvider, PlatformKeyProvider

    secret = Secret(
        what="new passphrase",
        file=new_passphrase_file,
        command=new_passphrase_command,
        variable="KEEPSTONE_NEW_PASSPHRASE",
        option="--new-passphrase",
    )
    store = opening.store()
    env, settings = store.context.env, opening.settings()
    store_id = store.descriptor.store
    usual = key_file(settings, store_id)
    providers: list[KeyProvider] = []
    if ask or secret.given:
        providers.append(PassphraseProvider(secret.read(new=True)))
    made = new_file
    if new_file is None and not providers:
        made = next_key_file(settings, store_id)
        _finish_rotation(opening, store, usual, made)
    if made is not None:
        providers.insert(0, PlatformKeyProvider.create(env, made))
    store.rekey(providers)
    if made is not None and made != new_file:
        replace_private(env, made, usual)
        made = usual
    opens = [provider.kind for provider in providers]
    console.result(
        {"store": store_id, "opens_by": opens, "key_file": str(made) if made else None},
        [
            f"store {store_id} now opens with {' or '.join(_WORDS[kind] for kind in opens)}, and its recovery kit",
            *([f"the key file is {made}"] if made else []),
        ],
    )


_WORDS = {"platform": "its key file", "passphrase": "its passphrase"}


def _finish_rotation(opening: Opening, store: Store, usual: Path, following: Path) -> None:
    """Bring a rotation to its end that was interrupted between the store and the key file."""
    from keepstone.crypto import PlatformKeyProvider
    from keepstone.errors import KeepstoneError
    from keepstone.store import Store

    if not following.exists():
        return
    env = store.context.env
    try:
        Store.open(env, store.context.storage, [PlatformKeyProvider(following, fs=env.fs)])
    except KeepstoneError:
        following.unlink()
    else:
        replace_private(env, following, usual)


@store_command(name="kit")
@click.option("--out", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where to write the kit [default: among this user's].")  # fmt: skip
@recipient_option
def kit(console: Console, opening: Opening, path: Path | None, recipients: tuple[str, ...]) -> None:
    """Make another recovery kit. Earlier ones stay good."""
    sealing = Sealing.checked(recipients)
    store = opening.store()
    path = place_for_kit(opening.settings(), store.descriptor.store, path, opening.place)
    written = sealing.write(store.context.env, store.keyring, path, str(opening.place.absolute()))
    console.result({"store": store.descriptor.store, "kit": written.facts()})
    written.tell(console)


key.add_command(rotate)
key.add_command(kit)
