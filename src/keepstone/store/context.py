# SPDX-License-Identifier: Apache-2.0
"""What every part of an opened store shares: the world, the storage, and the keys."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from keepstone.crypto import DomainKeys, Hashing, open_object, seal_object
from keepstone.env import Env
from keepstone.objects import ObjectStorage

__all__ = ["Context"]

_FRAME_AAD = struct.Struct("<64sI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """An opened store's surroundings. `store_id` is 16 random bytes; `verify_key` checks the signatures of heads."""

    env: Env
    storage: ObjectStorage
    store_id: bytes
    keys: DomainKeys
    verify_key: bytes
    hashing: Hashing

    def put_sealed(self, kind: str, name: str, data: bytes) -> bytes:
        """Seal and store a small object, durable on return; the stored bytes. `ObjectExists` where the name is
        taken."""
        sealed = self.seal(kind, name, data)
        self.storage.put(name, sealed)
        return sealed

    def seal(self, kind: str, name: str, data: bytes) -> bytes:
        """The stored form of a small object: bound to its kind and name."""
        return seal_object(self.keys, self.hashing, kind, name, self.store_id, data, self.env.random(32))

    def open(self, kind: str, name: str, sealed: bytes) -> bytes:
        """The inverse of `seal`; `CorruptObject` for anything but the bytes that were sealed under this kind and
        name."""
        return open_object(self.keys, self.hashing, kind, name, self.store_id, sealed)

    def read_sealed(self, kind: str, name: str) -> bytes:
        """Read and open a small object."""
        return self.open(kind, name, self.storage.read(name))

    @staticmethod
    def frame_aad(header: bytes, position: int) -> bytes:
        """What a frame is bound to: its pack's header (store, epoch, kind, pack) and its position there."""
        return _FRAME_AAD.pack(header, position)
