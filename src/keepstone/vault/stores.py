# SPDX-License-Identifier: Apache-2.0
"""The stores of a server's vaults: one each, in folders beneath one root.

    vaults/<vault>/       the store
    keys/<vault>.key      what opens it on this machine
    kits/<vault>.age      its recovery kit, sealed to the installation's recovery key

A store is opened once a process and shared by its threads.
"""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from keepstone.crypto import Keyring, Kit, PlatformKeyProvider, make_kit
from keepstone.env import Env
from keepstone.errors import Conflict, StorageError, StoreMissing, UsageError
from keepstone.files import exists, read_file, remove_file
from keepstone.objects import FolderStorage, replace_private, write_private
from keepstone.store import Store

__all__ = ["Stores"]


class Stores:
    """`recipients`: the age recipients that recovery kits are sealed to."""

    def __init__(self, env: Env, root: Path, recipients: Sequence[str] = ()) -> None:
        self._env = env
        self._root = root
        self._recipients = tuple(recipients)
        self._open: dict[UUID, Store] = {}
        self._lock = threading.Lock()

    def place(self, vault: UUID) -> Path:
        """The folder of a vault's store."""
        return self._root / "vaults" / vault.hex

    def create(self, vault: UUID, name: str) -> Store:
        """Make the store of a new vault, with its key and its recovery kit. `name`: what the kit calls it."""
        provider = PlatformKeyProvider.create(self._env, self._key(vault))

        def write_kit(keyring: Keyring) -> None:
            write_private(self._env, self._kit(vault), make_kit(self._env, keyring, name, recipients=self._recipients))

        storage = FolderStorage(self._env, self.place(vault), create=True)
        store = Store.init(
            self._env, storage, [provider], store_id=vault.bytes, cache=self._cache, ready=write_kit, soft_delete_days=0
        )
        with self._lock:
            self._open[vault] = store
        return store

    def adopt(self, vault: UUID, name: str, place: Path, kit: Kit) -> None:
        """Take over the store in the folder `place`: it moves to where this vault's belongs, and gets a new key and a
        new kit. Nothing else opens it from then on, but for kits that were made before.

        `Conflict` where something else is there, `UsageError` where it would have to be copied. One that was
        interrupted is done again.
        """
        own = self.place(vault)
        if place.resolve() != own.resolve():
            self._move(place, own)
        store = Store.open_by_kit(self._env, FolderStorage(self._env, own), kit, cache=self._cache)
        key, made = self._key(vault), self._key(vault).with_suffix(".new")
        remove_file(self._env.fs, made)
        store.rekey([PlatformKeyProvider.create(self._env, made)])
        replace_private(self._env, made, key)
        with self._lock:
            self._open[vault] = store
        self.renew_kit(vault, name)

    def open(self, vault: UUID) -> Store:
        """The store of a vault. Raises what `Store.open` raises."""
        with self._lock:
            store = self._open.get(vault)
            if store is None:
                storage = FolderStorage(self._env, self.place(vault))
                provider = PlatformKeyProvider(self._key(vault), fs=self._env.fs)
                store = self._open[vault] = Store.open(self._env, storage, [provider], cache=self._cache)
            return store

    def kit(self, vault: UUID) -> bytes:
        """The recovery kit of a vault. `StoreMissing` where it is gone; one that is made anew is as good."""
        try:
            return read_file(self._env.fs, self._kit(vault))
        except OSError as error:
            raise StoreMissing(f"{self._kit(vault)} cannot be read: {error.strerror}") from error

    def renew_kit(self, vault: UUID, name: str) -> None:
        """Another recovery kit in the place of the one that there is; that one stays good."""
        made = self._kit(vault).with_suffix(".new")
        remove_file(self._env.fs, made)
        keyring = self.open(vault).keyring
        write_private(self._env, made, make_kit(self._env, keyring, name, recipients=self._recipients))
        replace_private(self._env, made, self._kit(vault))

    @property
    def recipients(self) -> tuple[str, ...]:
        """The age recipients that recovery kits are sealed to."""
        return self._recipients

    def remove(self, vault: UUID) -> None:
        """Destroy a vault's key and then its store: what may be left of a store without its key opens to nobody."""
        with self._lock:
            self._open.pop(vault, None)
        for path in (self._key(vault), self._kit(vault)):
            remove_file(self._env.fs, path)
        shutil.rmtree(self.place(vault), ignore_errors=True)

    def _move(self, place: Path, own: Path) -> None:
        """Give the folder of a store its name here."""
        if exists(self._env.fs, own):
            raise Conflict(f"there is another store in {own}; move it away first, or rebuild from that one")
        try:
            replace_private(self._env, place.resolve(), own)
        except StorageError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EXDEV:
                raise UsageError(
                    f"{place} is on another file system than {own.parent}, and a store is not copied unasked; move it "
                    f"to {own} yourself, and rebuild from there"
                ) from error
            raise

    @property
    def _cache(self) -> Path:
        return self._root / "cache"

    def _kit(self, vault: UUID) -> Path:
        return self._root / "kits" / f"{vault.hex}.age"

    def _key(self, vault: UUID) -> Path:
        return self._root / "keys" / f"{vault.hex}.key"
