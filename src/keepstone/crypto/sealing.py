# SPDX-License-Identifier: Apache-2.0
"""Sealing of small objects (manifests' commits, markers, journals …).

    magic "KSO1" · epoch u32 little-endian · salt 32 · ciphertext · tag 16

    key              keyed(K_metadata, "object/v1" ‖ salt ‖ kind)
    cipher           AES-256-GCM, nonce 0
    associated data  bind(store id, kind, name, epoch u32)
    salt             keyed(K_metadata, "object-salt/v1" ‖ random 32 ‖ text)
    text             keyed(K_metadata, "object-text/v1" ‖ bind(associated data, plain text))

An object opens under its own kind and name only, so no two can be swapped. The salt depends on the text as well as on
chance: a cloned machine that repeats its random numbers still never seals two texts under one key. A reader takes the
salt as it stands.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto.binding import bind
from keepstone.crypto.hashing import Hashing
from keepstone.crypto.keys import KEY_SIZE, DomainKeys
from keepstone.errors import CorruptObject

__all__ = ["open_object", "seal_object"]

_MAGIC = b"KSO1"
_HEADER = struct.Struct("<4sI32s")
_NONCE = bytes(12)


def _key(keys: DomainKeys, hashing: Hashing, salt: bytes, kind: str) -> bytes:
    return hashing.keyed(keys.metadata, b"object/v1" + salt + kind.encode())


def _associated(keys: DomainKeys, kind: str, name: str, store_id: bytes) -> bytes:
    return bind(store_id, kind.encode(), name.encode(), keys.epoch.to_bytes(4, "little"))


def seal_object(
    keys: DomainKeys, hashing: Hashing, kind: str, name: str, store_id: bytes, data: bytes, random: bytes
) -> bytes:
    """The stored form of `data`, 56 bytes longer; `random` is 32 fresh bytes."""
    if len(random) != KEY_SIZE:
        raise ValueError(f"sealing takes {KEY_SIZE} random bytes, not {len(random)}")
    associated = _associated(keys, kind, name, store_id)
    text = hashing.keyed(keys.metadata, b"object-text/v1" + bind(associated, data))
    salt = hashing.keyed(keys.metadata, b"object-salt/v1" + random + text)
    sealed = AESGCM(_key(keys, hashing, salt, kind)).encrypt(_NONCE, data, associated)
    return _HEADER.pack(_MAGIC, keys.epoch, salt) + sealed


def open_object(keys: DomainKeys, hashing: Hashing, kind: str, name: str, store_id: bytes, sealed: bytes) -> bytes:
    """The inverse of `seal_object`; `CorruptObject` for anything but bytes sealed under this kind, name and store."""
    if len(sealed) < _HEADER.size:
        raise CorruptObject(f"{name} is too short for a sealed object; restore it from a copy")
    magic, epoch, salt = _HEADER.unpack_from(sealed)
    if magic != _MAGIC:
        raise CorruptObject(f"{name} does not begin like a sealed object; restore it from a copy")
    if epoch != keys.epoch:
        raise CorruptObject(f"{name} is sealed by keys of epoch {epoch}, not {keys.epoch}; restore it from a copy")
    try:
        return AESGCM(_key(keys, hashing, salt, kind)).decrypt(
            _NONCE, memoryview(sealed)[_HEADER.size :], _associated(keys, kind, name, store_id)
        )
    except InvalidTag:
        raise CorruptObject(
            f"{name} is not what was stored as {kind} under that name (damage, forgery, swap); restore it from a copy"
        ) from None
