# SPDX-License-Identifier: Apache-2.0
"""A machine whose service is not to read what it keeps, and everything that this service gets."""

from __future__ import annotations

from dataclasses import replace

from keepstone.control.sessions.session import WriteSession
from keepstone.crypto import Argon2Cost, Keyring, PassphraseProvider, create_keyring, hashing
from keepstone.env import Env
from keepstone.objects import MemoryStorage
from keepstone.remote.nodes import NodeCache
from keepstone.remote.sealed import Sealed, store_id
from keepstone.remote.veil import Plain
from keepstone.remote.wire import Begun, Opened, decode, encode
from keepstone.store import SEALED, Point, Store

from .far import Direct, DirectPoint, Far

__all__ = ["SealedFar", "keys_of", "sealed_store"]


def opener(passphrase: bytes = b"correct horse battery") -> PassphraseProvider:
    """A passphrase that costs nothing to try."""
    return PassphraseProvider(passphrase, cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)


def keys_of(env: Env, item: str, *, profile: str = "blake3") -> tuple[Keyring, bytes]:
    """New keys for an item, and the object that the service keeps."""
    return create_keyring(env, hashing(profile), store_id(item), [opener()])


def sealed_store(env: Env) -> tuple[Store, MemoryStorage]:
    """A store in memory, and what is in it."""
    storage = MemoryStorage(env)
    return Store.init(env, storage, [opener(b"the store's own")]), storage


class SealedFar(Far):
    """`Far` for a sealed item."""

    def __init__(
        self,
        env: Env,
        store: Store,
        item: str = "tree",
        cache: NodeCache | None = None,
        *,
        keyring: Keyring | None = None,
    ) -> None:
        super().__init__(env, store, item, cache)
        self.keyring = keyring or keys_of(env, item)[0]
        self.kind = "files"

    def session(self, kind: str = "files") -> Direct:
        self.kind = kind
        writer = self.store.writer(self.item, SEALED + kind)
        session = WriteSession(self.env.random(16).hex(), self.store, self.item, writer, self.env.pool(), kind)
        self.direct = Direct(session)
        self.begun = decode(encode(session.begun()), Begun)
        return self.direct

    def veil(self, named: Begun | Opened) -> Sealed:
        return Sealed(self.keyring, self.item, self.kind, Plain(hashing(named.hashing), named.id_key))

    def far(self, commit: str) -> DirectPoint:
        point: Point = self.point(commit)
        self.kind = point.record.kind.removeprefix(SEALED)
        return DirectPoint(self.store, self.store.reader(point, sealed=True), self.item)

    def with_keys(self, keyring: Keyring) -> SealedFar:
        """The same item on a machine that has these keys."""
        return SealedFar(self.env, self.store, self.item, keyring=replace(keyring))
