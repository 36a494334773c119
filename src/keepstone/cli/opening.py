# SPDX-License-Identifier: Apache-2.0
"""How a command gets its store: the options that say where it is and what opens it, and the opening itself.

What opens a store, in this order: the recovery kit, if one is given; the key file, if one is given; the passphrase,
if it is given by file, command or environment; this machine's key file for the store; the passphrase, asked for at
the terminal, if the store has one. The kit alone does without the store's keys object.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from keepstone.cli.console import Console, pass_console
from keepstone.cli.keyfiles import key_files
from keepstone.cli.secret import Secret

if TYPE_CHECKING:
    from keepstone.crypto import KeyProvider, Kit, PassphraseProvider, VaultKey
    from keepstone.env import Env
    from keepstone.objects import FolderStorage
    from keepstone.settings import Settings
    from keepstone.store import Store

__all__ = ["Opening", "output_options", "place_option", "secret_options", "store_command"]


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of a store."""

    place: Path
    secret: Secret
    key_file: Path | None
    kit: Path | None
    identity: Path | None

    def __post_init__(self) -> None:
        """`UsageError` where one of the options would count for nothing."""
        from keepstone.errors import UsageError

        passphrase = self.secret.file is not None or self.secret.command is not None
        if self.identity is not None and self.kit is None:
            raise UsageError("--kit-identity opens a recovery kit; name it by --kit")
        if self.kit is not None and self.key_file is not None:
            raise UsageError("--kit and --key-file both open the store; give one of them")
        if passphrase and (self.key_file is not None or self.identity is not None):
            other = "--key-file" if self.key_file is not None else "--kit-identity"
            raise UsageError(f"{other} and a passphrase both open it; give one of them")

    def settings(self) -> Settings:
        """This machine's."""
        from keepstone.settings import Settings

        return Settings.load()

    def env(self) -> Env:
        """The world."""
        from keepstone.env import Env

        return Env()

    def store(self) -> Store:
        """The opened store. `StoreMissing`, `WrongKey`, and what else `Store.open` and `Store.open_by_kit` raise."""
        from keepstone.cli.process import tune

        tune()
        from keepstone.objects import FolderStorage
        from keepstone.store import Store

        env, cache = self.env(), self.settings().cache
        storage = FolderStorage(env, self.place)
        if self.kit is not None:
            return Store.open_by_kit(env, storage, self.opened_kit(), cache=cache)
        return Store.open(env, storage, self._providers(env, storage), cache=cache)

    def _providers(self, env: Env, storage: FolderStorage) -> list[KeyProvider]:
        from keepstone.crypto import PassphraseProvider, PlatformKeyProvider

        if self.key_file is not None:
            return [PlatformKeyProvider(self.key_file, fs=env.fs)]
        if self.secret.given:
            return [PassphraseProvider(self.secret.read())]
        files = key_files(self.settings(), self._store_id(storage))
        return [*(PlatformKeyProvider(path, fs=env.fs) for path in files), _Asked(self.secret)]

    def _store_id(self, storage: FolderStorage) -> str:
        from keepstone.errors import ObjectMissing, StoreMissing
        from keepstone.store.descriptor import decode_descriptor
        from keepstone.store.layout import DESCRIPTOR

        try:
            return decode_descriptor(storage.read(DESCRIPTOR), str(self.place)).store
        except ObjectMissing as error:
            raise StoreMissing(
                f"there is no Keepstone store in {self.place}; check the path, or make one with `keepstone store init`"
            ) from error

    def opened_kit(self) -> Kit:
        """The recovery kit, which is given. `WrongKey`, `CorruptObject`, and what else `open_kit` raises."""
        from keepstone.errors import CorruptObject, UnsupportedFormat, WrongKey

        assert self.kit is not None
        try:
            return self._read_kit(self.kit)
        except (CorruptObject, UnsupportedFormat, WrongKey) as error:
            raise type(error)(f"{self.kit}: {error}") from error

    def _read_kit(self, path: Path) -> Kit:
        from keepstone.crypto import open_kit
        from keepstone.errors import SourceMissing
        from keepstone.objects import failure

        try:
            data = path.read_bytes()
            if self.identity is not None:
                return open_kit(data, identity=self.identity.read_text())
        except OSError as error:
            raise failure(error, str(error.filename), missing=SourceMissing) from error
        secret = replace(self.secret, what="passphrase of the recovery kit")
        return open_kit(data, passphrase=os.fsdecode(secret.read()))


class _Asked:
    """A passphrase that is asked for when the store turns out to have one."""

    kind = "passphrase"

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._provider: PassphraseProvider | None = None

    def wrap(self, vault_key: VaultKey, context: bytes, salt: bytes) -> dict[str, str | int]:
        return self._known().wrap(vault_key, context, salt)

    def unwrap(self, slot: Mapping[str, str | int], context: bytes) -> VaultKey:
        return self._known().unwrap(slot, context)

    def _known(self) -> PassphraseProvider:
        from keepstone.crypto import PassphraseProvider

        if self._provider is None:
            self._provider = PassphraseProvider(self._secret.read())
        return self._provider


_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
# Whether a file may be read shows when it is opened: click's own look would call that a wrong use.
_FILE = click.Path(path_type=Path, dir_okay=False, readable=False)


def _options(*options: _Decorator) -> _Decorator:
    """These options as one decorator, in this order in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


place_option = click.option(
    "--store",
    "place",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    metavar="DIR",
    envvar="KEEPSTONE_STORE",
    help="Where the store is [also: KEEPSTONE_STORE].",
)
secret_options = _options(
    click.option("--passphrase-file", metavar="FILE", help="Read the passphrase from the first line of FILE."),
    click.option(
        "--passphrase-command",
        metavar="COMMAND",
        help="Read the passphrase from what COMMAND prints [also: KEEPSTONE_PASSPHRASE, or a prompt].",
    ),
)
_opening_options = _options(
    click.option("--key-file", type=_FILE, metavar="FILE", help="Open the store with FILE, not with this user's key."),
    click.option("--kit", type=_FILE, metavar="FILE", help="Open the store with its recovery kit."),
    click.option(
        "--kit-identity",
        "identity",
        type=_FILE,
        metavar="FILE",
        help="age identity that opens the kit; without it the passphrase is the kit's.",
    ),
)
# The console has read these before anything was parsed, see `Console.of`; here they get their help.
output_options = _options(
    click.option("--json", is_flag=True, expose_value=False, help="Print the result as one JSON object."),
    click.option(
        "--json-progress",
        is_flag=True,
        expose_value=False,
        help="The same, after one JSON object a line for what happens meanwhile.",
    ),
    click.option(
        "--quiet", "-q", is_flag=True, expose_value=False, help="Say nothing but the result, warnings and errors."
    ),
    click.option("--debug", is_flag=True, expose_value=False, help="Show where an error comes from."),
)


def store_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command on a store: called with the console, the `Opening`, and its own options."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def run(
            console: Console,
            *,
            place: Path,
            passphrase_file: str | None,
            passphrase_command: str | None,
            key_file: Path | None,
            kit: Path | None,
            identity: Path | None,
            **given: Any,
        ) -> Any:
            secret = Secret(file=passphrase_file, command=passphrase_command)
            opening = Opening(place=place, secret=secret, key_file=key_file, kit=kit, identity=identity)
            return function(console, opening, **given)

        shown = _options(place_option, secret_options, _opening_options, output_options)
        command: click.Command = click.command(**attributes)(shown(pass_console(run)))
        return command

    return decorate
