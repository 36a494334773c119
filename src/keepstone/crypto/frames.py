# SPDX-License-Identifier: Apache-2.0
"""Sealing of frames: AES-256-GCM, one key per frame, nonce zero.

    key = keyed(K_encryption, "frame/v1" ‖ pack id 32 ‖ position u32 little-endian ‖ digest 32)

`digest` stands for exactly the bytes that are sealed: see `store.frame`. A key therefore seals one text only, even on a
cloned machine that repeats its random numbers, and the zero nonce is safe. This is the hot path: nothing is allocated
but the key.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto.hashing import Buffer, Hashing
from keepstone.crypto.keys import DomainKeys
from keepstone.errors import CorruptObject

__all__ = ["frame_key", "open_frame", "seal_frame"]

_NONCE = bytes(12)


def frame_key(hashing: Hashing, keys: DomainKeys, pack_id: bytes, position: int, digest: bytes) -> bytes:
    """The key of the frame at this position of a pack. `pack_id` and `digest` are 32 bytes each."""
    return hashing.keyed(keys.encryption, b"".join((b"frame/v1", pack_id, position.to_bytes(4, "little"), digest)))


def seal_frame(key: bytes, data: Buffer, aad: bytes, into: memoryview) -> None:
    """Encrypt `data` into `into`, which is 16 bytes longer than it; `aad` is authenticated with it.

    Never call it twice with one key and different data. `ValueError` where the lengths do not fit.
    """
    AESGCM(key).encrypt_into(_NONCE, data, aad, into)


def open_frame(key: bytes, data: Buffer, aad: bytes, into: memoryview) -> None:
    """The inverse; `into` is 16 bytes shorter than `data`.

    `CorruptObject` where `data`, `aad` or the key is not what was sealed; `into` is then all zero, and the caller adds
    the name of the pack. `ValueError` where the lengths do not fit.
    """
    try:
        AESGCM(key).decrypt_into(_NONCE, data, aad, into)
    except InvalidTag:
        into[:] = bytes(len(into))  # the cipher has left the text there that nobody vouches for
        raise CorruptObject("the sealed bytes fail their authentication") from None
