# SPDX-License-Identifier: Apache-2.0
"""Which items of this machine are sealed before they leave it, and the passphrase that opens their keys.

`agent.toml` alone decides, not the service: what is to be sealed is sealed, or it is not backed up. The keys of an item
are made here at its first backup and kept with it at the service, sealed. The passphrase never leaves this machine.

Invariants
* An item is sealed also where only something in it is to be: a folder above, and any device.
* Keys are opened before anything is read or sent, so a wrong passphrase costs nothing.
* A new passphrase gets the same keys: with the next backup of each item, while the previous one is still at hand.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import os
import re
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keepstone.agent import system
from keepstone.agent.configuration import Configuration, SealedSettings
from keepstone.crypto import Argon2Cost, Keyring, PassphraseProvider, create_keyring, hashing, open_keyring, rewrap
from keepstone.env import Env
from keepstone.errors import AccessDenied, CorruptObject, KeepstoneError, NotFound, UsageError, WrongKey
from keepstone.objects import failure
from keepstone.remote.sealed import store_id
from keepstone.remote.wire import Work

__all__ = ["SHORTEST", "ItemKeys", "is_sealed", "keys_for_backup", "keys_for_restore", "read_passphrase"]

SHORTEST = 16
"""Characters that a passphrase has at least: whoever has the sealed keys may try as many as he likes."""
_COST = Argon2Cost()
_PROFILE = "blake3"
_LONGEST = 4096  # bytes
_WILD = re.compile(r"[*?\[]")


class ItemKeys(NamedTuple):
    """The keys of an item, and `text`: the sealed object that its service keeps, base64."""

    keyring: Keyring
    text: str


def is_sealed(configuration: Configuration, path: str, real: Path) -> bool:
    """Whether an item is to be sealed: `path` as the service calls it, `real` where that leads."""
    sealed = configuration.sealed
    if sealed.passphrase_file is None:
        return False
    if not sealed.items or system.is_device(real):
        return True
    names = {path, *map(os.fspath, (real, *real.parents))}
    for pattern in sealed.items:
        if any(fnmatch.fnmatch(name, pattern) for name in names):
            return True
        fixed = _WILD.split(pattern, maxsplit=1)[0]
        begin = Path(os.path.realpath(fixed if fixed == pattern else os.path.dirname(fixed) or real.anchor))
        if begin.is_relative_to(real):
            return True
    return False


def keys_for_backup(env: Env, work: Work, configuration: Configuration, real: Path) -> ItemKeys | None:
    """The keys to seal a backup with, made where there are none yet; None where it is not to be sealed.

    `WrongKey` where the passphrase is not that of the item, or this machine is not told any though the item was sealed;
    `CorruptObject`, and what `read_passphrase` raises.
    """
    if not is_sealed(configuration, str(work.source["path"]), real):
        if work.keys:
            raise WrongKey(
                f"'{work.name}' was sealed until now, and [sealed] of this machine's agent.toml does not say so any "
                "more; put it back, or delete the item and protect it anew to have it unsealed"
            )
        return None
    present, *previous = _providers(env, configuration.sealed)
    if not work.keys:
        keyring, made = create_keyring(env, hashing(_PROFILE), store_id(work.item), [present])
        return ItemKeys(keyring, _text(made))
    keyring, number, opener = _open(work, configuration.sealed, [present, *previous])
    if number == 0 and opener is not present:
        return ItemKeys(keyring, _text(rewrap(env, keyring, [present])[1]))
    return ItemKeys(keyring, work.keys.split()[0])


def keys_for_restore(env: Env, work: Work, configuration: Configuration) -> Keyring:
    """The keys to open a sealed point with. Raises the same."""
    if configuration.sealed.passphrase_file is None:
        raise WrongKey(
            f"this point of '{work.name}' is sealed, and this machine's agent has no passphrase; name its file as "
            "passphrase_file in [sealed] of agent.toml"
        )
    if not work.keys:
        raise CorruptObject(f"the service has lost the sealed keys of '{work.name}', without which nobody reads it")
    return _open(work, configuration.sealed, _providers(env, configuration.sealed))[0]


def read_passphrase(env: Env, path: Path, environ: Mapping[str, str] | None = None) -> bytes:
    """The only line of this file, which nobody but this user may read; a credential of systemd is guarded by that.

    `NotFound`, `AccessDenied`, `UsageError`.
    """
    environ = os.environ if environ is None else environ
    try:
        fd = env.fs.open(path, os.O_RDONLY)
        try:
            mode = stat.S_IMODE(env.fs.fstat(fd).st_mode)
            data = env.fs.read(fd, _LONGEST + 1)
        finally:
            env.fs.close(fd)
    except OSError as error:
        raise failure(error, f"the passphrase's file {path}", missing=NotFound) from error
    given = environ.get("CREDENTIALS_DIRECTORY")
    others = 0o007 if given and path.is_relative_to(given) else 0o077
    if os.name == "posix" and mode & others:
        raise AccessDenied(
            f"the passphrase's file {path} can be read by others (mode {mode:04o}); choose another passphrase if they "
            f"may have, and run: chmod 600 {path}"
        )
    system.only_ours(path)
    line, _, rest = data.partition(b"\n")
    line = line.removesuffix(b"\r")
    if not line or rest.strip() or len(data) > _LONGEST:
        raise UsageError(f"{path} holds no passphrase, which is its only line; check it")
    try:
        text = unicodedata.normalize("NFC", line.decode())
    except UnicodeDecodeError:
        raise UsageError(f"the passphrase in {path} is not UTF-8; write it in UTF-8") from None
    if len(text) < SHORTEST:
        raise UsageError(
            f"the passphrase in {path} has {len(text)} characters; take {SHORTEST} or more, of words or letters that a "
            "machine has chosen"
        )
    return text.encode()


def _providers(env: Env, sealed: SealedSettings) -> list[PassphraseProvider]:
    """The passphrase, and the one until now where there is one."""
    files = [path for path in (sealed.passphrase_file, sealed.previous_file) if path is not None]
    return [PassphraseProvider(read_passphrase(env, Path(path)), cost=_COST) for path in files]


def _open(
    work: Work, sealed: SealedSettings, providers: list[PassphraseProvider]
) -> tuple[Keyring, int, PassphraseProvider]:
    """The keys, the number of the object that they are from, and what opened it. An earlier object counts where the
    newest does not open: whoever had this machine may have made that."""
    damage: KeepstoneError | None = None
    for number, text in enumerate(work.keys.split()):
        for provider in providers:
            try:
                kept = base64.b64decode(text, validate=True)
                return open_keyring(kept, store_id(work.item), [provider]), number, provider
            except WrongKey:
                continue
            except binascii.Error as error:
                damage = damage or CorruptObject(str(error))
            except KeepstoneError as error:
                damage = damage or error
    if damage is not None:
        raise CorruptObject(
            f"the sealed keys of '{work.name}', which its service keeps, are damaged ({damage}); a copy of the vault "
            "from before may have them"
        ) from damage
    raise WrongKey(
        f"the passphrase in {sealed.passphrase_file} is not the one that '{work.name}' is sealed by; put that one "
        "there. Nothing was read, written or sent"
    )


def _text(made: bytes) -> str:
    return base64.b64encode(made).decode()
