# SPDX-License-Identifier: Apache-2.0
"""A store: recovery points in an object storage, opened with their keys.

This is the door to the package: everything that can be done with a store is a method here or something that a
method returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.crypto import KeyProvider, Keyring, Kit, create_keyring, hashing, rewrap
from keepstone.env import Env
from keepstone.errors import (
    KeepstoneError,
    ObjectExists,
    ObjectMissing,
    StoreExists,
    StoreMissing,
    UsageError,
    WrongKey,
)
from keepstone.objects import ObjectStorage
from keepstone.store.chain import Chain
from keepstone.store.chunking import DISK_CHUNK, FILE_CHUNKS
from keepstone.store.commits import SEALED, Commits, PointRecord
from keepstone.store.context import Context
from keepstone.store.descriptor import Descriptor, check_descriptor, decode_descriptor, encode_descriptor
from keepstone.store.frame import DEFAULT_LEVEL
from keepstone.store.index import ChunkIndex
from keepstone.store.journal import Journal
from keepstone.store.keys import last_number, newest_number, open_by_kit, open_keys
from keepstone.store.layout import DESCRIPTOR, KEYS, head_name, keys_name, names
from keepstone.store.memory import recall_damage
from keepstone.store.points import Point, Points, item_tag
from keepstone.store.reader import LocalReader
from keepstone.store.writer import LocalWriter

if TYPE_CHECKING:
    from keepstone.store.reclaim import Reclaimed
    from keepstone.store.statistics import Statistics
    from keepstone.store.usage import Usage
    from keepstone.store.verify import Verified

__all__ = ["DEFAULT_LEVEL", "Store"]

_DOCUMENTS = ("FORMAT.md", "rescue.py")


def _document(name: str) -> bytes:
    """A file that every store carries."""
    from importlib import resources

    return resources.files("keepstone.store").joinpath(name).read_bytes()


class Store:
    """An opened store. `cache`: folder of this machine for what can be rebuilt; None keeps nothing."""

    def __init__(
        self, env: Env, storage: ObjectStorage, descriptor: Descriptor, keyring: Keyring, cache: Path | None
    ) -> None:
        self.descriptor = descriptor
        self.keyring = keyring
        self.context = Context(
            env=env,
            storage=storage,
            store_id=keyring.store_id,
            keys=keyring.keys,
            verify_key=keyring.public_key,
            hashing=keyring.hashing,
        )
        self.cache = cache / descriptor.store if cache is not None else None
        self.damaged: frozenset[str] = recall_damage(env, self.cache)
        """Packs in which verify found damage; a new point does not refer to them."""
        self.commits = Commits(self.context)
        self.points = Points(self.context, self.commits, descriptor.soft_delete_days)
        self.journal = Journal(self.context)
        self.index = ChunkIndex(self.context, self.cache)

    @classmethod
    def init(
        cls,
        env: Env,
        storage: ObjectStorage,
        providers: Sequence[KeyProvider],
        *,
        cache: Path | None = None,
        hashing_name: str = "blake3",
        soft_delete_days: int = 14,
        store_id: bytes | None = None,
        ready: Callable[[Keyring], object] | None = None,
    ) -> Store:
        """Make a store. Its descriptor is written last, so that a store that has one is complete; `ready` is called
        just before, with what the recovery kit is made of. Where something fails, what was written goes again.

        `StoreExists` where there is one, or where something else lies.
        """
        present = storage.anything()
        if present is not None:
            raise StoreExists(f"there is something already ({present}); choose an empty place")
        profile = hashing(hashing_name)
        store_id = store_id or env.random(16)
        keyring, keys_object = create_keyring(env, profile, store_id, providers)
        documents = {name: _document(name) for name in _DOCUMENTS}
        descriptor = Descriptor(
            store=store_id.hex(),
            created=env.wall_time(),
            hashing=hashing_name,
            disk_chunk=DISK_CHUNK,
            file_chunks=FILE_CHUNKS,
            soft_delete_days=soft_delete_days,
            files={name: profile.digest(data).hex() for name, data in documents.items()},
        )
        try:
            storage.put(keys_name(1), keys_object)
        except ObjectExists as error:
            raise StoreExists("somebody else is making a store there right now; use that one") from error
        store = cls(env, storage, descriptor, keyring, cache)
        chain = Chain(store.context)
        try:
            for name, data in documents.items():
                storage.put(name, data)
            encoded = encode_descriptor(descriptor, keyring.keys, profile)
            chain.append("keys", keys_name(1), keys_object)
            chain.append("init", DESCRIPTOR, encoded)
            if ready is not None:
                ready(keyring)
            storage.put(DESCRIPTOR, encoded)
        except BaseException:
            with contextlib.suppress(KeepstoneError):  # else it is litter, and the next try says so
                storage.delete(DESCRIPTOR)  # durable before the keys go: no crash leaves a store without them
                storage.delete_many([head_name(2), head_name(1), *documents, keys_name(1)])
            raise
        storage.keep_reserve()
        return store

    @classmethod
    def open(
        cls, env: Env, storage: ObjectStorage, providers: Sequence[KeyProvider], *, cache: Path | None = None
    ) -> Store:
        """Open a store. `StoreMissing`, `UnsupportedFormat`, `WrongKey`, `ObjectMissing`, `CorruptObject`."""
        return cls._open(env, storage, cache, lambda store_id: open_keys(storage, store_id, providers))

    @classmethod
    def open_by_kit(cls, env: Env, storage: ObjectStorage, kit: Kit, *, cache: Path | None = None) -> Store:
        """Open a store with its recovery kit, also where its keys object is gone or damaged; a `rekey` mends that.

        `StoreMissing`, `UnsupportedFormat`, `CorruptObject`; `WrongKey` for the kit of another store.
        """
        return cls._open(env, storage, cache, lambda store_id: open_by_kit(storage, store_id, kit))

    @classmethod
    def _open(cls, env: Env, storage: ObjectStorage, cache: Path | None, keys: Callable[[bytes], Keyring]) -> Store:
        try:
            data = storage.read(DESCRIPTOR)
        except ObjectMissing as error:
            raise StoreMissing(
                "there is no Keepstone store at that place; make one with `keepstone store init`"
            ) from error
        place = "the store"
        descriptor = decode_descriptor(data, place)
        keyring = keys(descriptor.store_id)
        check_descriptor(data, descriptor, keyring.keys, keyring.hashing, place)
        return cls(env, storage, descriptor, keyring, cache)

    def rekey(self, providers: Sequence[KeyProvider]) -> None:
        """Rotate the root keys: from now on these providers (and the recovery kit) open the store, and no others.

        No data is rewritten. A crash leaves the store open to the old providers, or to both until `rekey` is repeated.
        Where the keys object was gone or damaged, there is a sound one again.
        """
        env, storage = self.context.env, self.context.storage
        if newest_number(storage) != self.keyring.sequence:
            raise UsageError("the keys were rotated by somebody else meanwhile; open the store again")
        last = max(self.keyring.sequence, last_number(self.context))
        keyring, keys_object = rewrap(env, replace(self.keyring, sequence=last), providers)
        storage.put(keys_name(keyring.sequence), keys_object)
        self.keyring = keyring
        Chain(self.context).append("keys", keys_name(self.keyring.sequence), keys_object)
        storage.delete_many([name for name in names(storage, KEYS) if name < keys_name(self.keyring.sequence)])

    def writer(
        self,
        item: str,
        kind: str,
        *,
        level: int = DEFAULT_LEVEL,
        check: bool = False,
        tags: Sequence[str] = (),
        lock_until: int = 0,
    ) -> LocalWriter:
        """Begin a recovery point of this item. What of the item's name is not Unicode is kept in escaped form.

        `UsageError` for a tag that is not Unicode.
        """
        for tag in tags:
            try:
                tag.encode()
            except UnicodeEncodeError:
                raise UsageError(f"the tag {tag!a} is not UTF-8; choose another one") from None
        item = item.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return LocalWriter(
            self.context,
            item=item,
            tag=item_tag(self.context, item),
            kind=kind,
            level=level,
            index=self.index,
            cache=self.cache,
            damaged=self.damaged,
            check=check,
            tags=tuple(tags),
            lock_until=lock_until,
        )

    def reader(self, point: Point, *, sealed: bool = False) -> LocalReader:
        """Read a recovery point. `WrongKey` for one that its machine has sealed, unless it is wanted as it is kept."""
        if point.record.kind.startswith(SEALED) and not sealed:
            raise WrongKey(
                f"recovery point {point.short} of {point.record.item} is sealed by a passphrase that this store does "
                "not know; restore it through its vault, to a machine whose agent has that passphrase"
            )
        return LocalReader(self.context, point.record)

    def reclaim(self, *, dry_run: bool = False, compact_below: float | None = None) -> Reclaimed:
        """Give back the space of what no point needs; see `reclaim.py`."""
        from keepstone.store.reclaim import COMPACT_BELOW, reclaim

        below = COMPACT_BELOW if compact_below is None else compact_below
        return reclaim(self.context, self.points, level=DEFAULT_LEVEL, compact_below=below, dry_run=dry_run)

    def verify(self, *, deep: bool = False, tick: Callable[[int, int], None] | None = None) -> Verified:
        """Whether everything is there, and with `deep` whether every byte is right; see `verify.py`."""
        from keepstone.store.verify import verify

        return verify(self, deep=deep, tick=tick)

    def stat(self) -> Statistics:
        """How much there is."""
        from keepstone.store.statistics import statistics

        return statistics(self)

    def usage(
        self,
        group: Callable[[PointRecord], str] = lambda record: record.item,
        family: Callable[[str], str | None] = lambda _: None,
        tick: Callable[[int, int], None] = lambda _done, _expected: None,
    ) -> Usage:
        """How much of it each group of points needs, by default those of an item; see `usage.py`."""
        from keepstone.store.usage import usage

        return usage(self, group, family, tick)

    def rebuild_index(self) -> int:
        """Throw the cached chunk index away and read it out of the packs again; the number of chunks in it."""
        self.index.clear()
        segments, _ = self.index.refresh()
        return sum(map(len, segments))
