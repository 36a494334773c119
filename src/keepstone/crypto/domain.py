# SPDX-License-Identifier: Apache-2.0
"""The domain keys, wrapped by the vault key: the same bytes in each keys object of a store and in its recovery kits.

    key              HMAC-SHA256(vault key, bind("keepstone/domain/wrap/v1", store id, epoch u32 little-endian, salt))
    associated data  bind("keepstone/domain/v1", store id, epoch u32 little-endian)
    wrapped          AES-256-GCM(key, nonce 0, the five secrets in the order of `DomainKeys`), 176 bytes

HMAC-SHA256 in both hash profiles, as in `slots`.
"""

from __future__ import annotations

import hmac
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto.binding import bind
from keepstone.crypto.keys import DomainKeys, VaultKey
from keepstone.crypto.providers import Bytes32
from keepstone.crypto.signing import public_key
from keepstone.errors import CorruptObject

__all__ = ["Domain", "open_domain", "seal_domain"]

_NONCE = bytes(12)  # safe: each key seals one text


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`epoch` of these keys, from 1; `public_key`: Ed25519, for the signatures of heads."""

    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
    public_key: Bytes32
    salt: Bytes32
    wrapped: Annotated[bytes, msgspec.Meta(min_length=DomainKeys.SIZE + 16, max_length=DomainKeys.SIZE + 16)]


def seal_domain(keys: DomainKeys, vault_key: VaultKey, store_id: bytes, salt: bytes) -> Domain:
    """The wrapped keys; `salt` is 32 fresh random bytes."""
    key, associated = _derive(vault_key, store_id, keys.epoch, salt)
    wrapped = AESGCM(key).encrypt(_NONCE, keys.to_bytes(), associated)
    return Domain(epoch=keys.epoch, public_key=public_key(keys.signing_seed), salt=salt, wrapped=wrapped)


def open_domain(domain: Domain, vault_key: VaultKey, store_id: bytes) -> DomainKeys:
    """The inverse; `CorruptObject` for another vault key's or store's, and for damage: the caller adds where it is."""
    key, associated = _derive(vault_key, store_id, domain.epoch, domain.salt)
    try:
        secrets = AESGCM(key).decrypt(_NONCE, domain.wrapped, associated)
    except InvalidTag:
        raise CorruptObject("its domain keys fail their authentication") from None
    keys = DomainKeys.from_bytes(domain.epoch, secrets)
    if public_key(keys.signing_seed) != domain.public_key:
        raise CorruptObject("its public key is not that of its domain keys")
    return keys


def _derive(vault_key: VaultKey, store_id: bytes, epoch: int, salt: bytes) -> tuple[bytes, bytes]:
    number = epoch.to_bytes(4, "little")
    key = hmac.digest(vault_key.secret, bind(b"keepstone/domain/wrap/v1", store_id, number, salt), "sha256")
    return key, bind(b"keepstone/domain/v1", store_id, number)
