# SPDX-License-Identifier: Apache-2.0
"""`keepstone store init`: a new store, what opens it, and its recovery kit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepstone.cli.console import Console, pass_console
from keepstone.cli.keyfiles import key_file, place_for_kit
from keepstone.cli.kit import Sealing, WrittenKit, recipient_option
from keepstone.cli.opening import output_options, place_option, secret_options
from keepstone.cli.secret import Secret

if TYPE_CHECKING:
    from keepstone.crypto import KeyProvider
    from keepstone.env import Env

__all__ = ["init"]


@click.command()
@place_option
@secret_options
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase that opens the store.")
@click.option(
    "--key-file",
    "key_path",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    metavar="FILE",
    help="Key file that opens the store: made where it does not exist [default: one among this user's, unless there "
    "is a passphrase].",
)
@click.option("--kit", "kit_path", type=click.Path(path_type=Path, dir_okay=False, readable=False),
              metavar="FILE", help="Where to write the recovery kit [default: among this user's].")  # fmt: skip
@recipient_option
@click.option("--hashing", type=click.Choice(["blake3", "hmac-sha256"]), default="blake3", show_default=True,
              help="How chunks are identified; hmac-sha256 where only FIPS algorithms are allowed.")  # fmt: skip
@click.option("--soft-delete-days", type=click.IntRange(0, 3650), default=14, show_default=True,
              help="How long a deleted recovery point can be taken back.")  # fmt: skip
@output_options
@pass_console
def init(
    console: Console,
    place: Path,
    passphrase_file: str | None,
    passphrase_command: str | None,
    ask: bool,
    key_path: Path | None,
    kit_path: Path | None,
    recipients: tuple[str, ...],
    hashing: str,
    soft_delete_days: int,
) -> None:
    """Make a store in DIR, which is created or must be empty.

    Without more it opens with a key file of this user on this machine. The recovery kit opens it when that is lost.
    """
    from keepstone.crypto import PassphraseProvider
    from keepstone.env import Env
    from keepstone.errors import StoreExists
    from keepstone.objects import FolderStorage
    from keepstone.settings import Settings
    from keepstone.store import Store

    env, settings = Env(), Settings.load()
    store_id = env.random(16)
    secret = Secret(file=passphrase_file, command=passphrase_command)
    sealing = Sealing.checked(recipients)
    if os.path.lexists(place) and not place.is_dir():
        raise StoreExists(f"{place} is there already and is no folder; choose an empty folder, or another name")
    kit_place = place_for_kit(settings, store_id.hex(), kit_path, place)
    providers: list[KeyProvider] = []
    if ask or secret.given:
        providers.append(PassphraseProvider(secret.read(new=True)))
    if not providers or key_path is not None:
        key_path = key_path or key_file(settings, store_id.hex())
    with _key_file(env, key_path) as platform, _folder(place), _folder(kit_place.parent), _kits() as kits:
        providers = [*platform, *providers]
        try:
            Store.init(
                env,
                FolderStorage(env, place, create=True),
                providers,
                hashing_name=hashing,
                soft_delete_days=soft_delete_days,
                store_id=store_id,
                ready=lambda keyring: kits.append(sealing.write(env, keyring, kit_place, str(place.absolute()))),
            )
        except StoreExists as error:
            raise StoreExists(f"{place}: {error}") from error
    (kit,) = kits
    opens = [provider.kind for provider in providers]
    console.result(
        {
            "store": store_id.hex(),
            "place": str(place.absolute()),
            "opens_by": opens,
            "key_file": str(key_path) if key_path else None,
            "hashing": hashing,
            "soft_delete_days": soft_delete_days,
            "kit": kit.facts(),
        },
        [
            f"store {store_id.hex()} is ready in {place}",
            *([f"it opens with the key file {key_path}; without it, with the recovery kit"] if key_path else []),
            *(["it opens with its passphrase; without it, with the recovery kit"] if "passphrase" in opens else []),
        ],
    )
    kit.tell(console)


@contextlib.contextmanager
def _key_file(env: Env, path: Path | None) -> Iterator[list[KeyProvider]]:
    """The provider of the key file, if one is wanted; a file that is made here goes again where the block fails."""
    from keepstone.crypto import PlatformKeyProvider

    if path is None:
        yield []
    elif path.exists():
        yield [PlatformKeyProvider(path, fs=env.fs)]
    else:
        provider = PlatformKeyProvider.create(env, path)
        try:
            yield [provider]
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _kits() -> Iterator[list[WrittenKit]]:
    """The kits that the block writes. Where it fails they go again: they open nothing."""
    kits: list[WrittenKit] = []
    try:
        yield kits
    except BaseException:
        for kit in kits:
            kit.path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _folder(place: Path) -> Iterator[None]:
    """Where the block fails, the folder that it made goes again with all its empty folders."""
    there = place.exists()
    try:
        yield
    except BaseException:
        if not there:
            for folder, _, _ in os.walk(place, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        raise
