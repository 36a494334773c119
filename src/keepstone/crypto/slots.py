# SPDX-License-Identifier: Apache-2.0
"""The vault key, wrapped by a root key.

    check    HMAC-SHA256(root, bind("keepstone/slot/check/v1", context, salt))
    key      HMAC-SHA256(root, bind("keepstone/slot/wrap/v1", context, salt))
    wrapped  AES-256-GCM(key, nonce 0, vault key, associated data = context), 48 bytes

`context` binds the slot to its place (see `keyring`), `salt` is 32 random bytes, never used twice. HMAC-SHA256 serves
in both hash profiles, so that no field of the object decides how the object is read.

Why the check value: AES-GCM does not commit to its key, so one forged ciphertext could be made to open under many
passphrases, and each try of the owner would tell a forger which half of them is right (partitioning oracle). The check
commits to a single root key, and it is compared before anything is decrypted. It also tells a wrong key from damage.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto.binding import bind
from keepstone.crypto.keys import VaultKey
from keepstone.errors import CorruptObject

__all__ = ["open_slot", "seal_slot", "slot_check", "slot_fits"]

_NONCE = bytes(12)  # safe: each key seals one text


def _derive(root: bytes, label: bytes, context: bytes, salt: bytes) -> bytes:
    return hmac.digest(root, bind(label, context, salt), "sha256")


def slot_check(root: bytes, context: bytes, salt: bytes) -> bytes:
    """The value that says whether `root` is the key of a slot, 32 bytes."""
    return _derive(root, b"keepstone/slot/check/v1", context, salt)


def slot_fits(root: bytes, context: bytes, salt: bytes, check: bytes) -> bool:
    """Whether `root` is the key of the slot with this check value; takes the same time either way."""
    return hmac.compare_digest(slot_check(root, context, salt), check)


def seal_slot(root: bytes, vault_key: VaultKey, context: bytes, salt: bytes) -> bytes:
    """The wrapped vault key."""
    key = _derive(root, b"keepstone/slot/wrap/v1", context, salt)
    return AESGCM(key).encrypt(_NONCE, vault_key.secret, context)


def open_slot(root: bytes, wrapped: bytes, context: bytes, salt: bytes) -> VaultKey:
    """The inverse of `seal_slot`, after `slot_fits` said yes; `CorruptObject` where the slot is damaged."""
    key = _derive(root, b"keepstone/slot/wrap/v1", context, salt)
    try:
        return VaultKey(AESGCM(key).decrypt(_NONCE, wrapped, context))
    except InvalidTag:
        raise CorruptObject("a slot is damaged: its key fits, the wrapped vault key fails") from None
