# SPDX-License-Identifier: Apache-2.0
"""Secrets that somebody proves to know: only a slow hash of them is kept.

Argon2id as RFC 9106, section 4, recommends it where memory is dear: 64 MiB, 3 passes, 4 lanes. The hash carries its own
parameters (PHC string format), so they can rise and old hashes still verify.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from keepstone.env import Env

__all__ = ["hash_secret", "is_secret", "new_secret"]

_PASSES, _LANES, _MEMORY = 3, 4, 64 << 10  # KiB
_SALT = 16
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"  # none of 0 O 1 l I
_LENGTH = 32  # characters of log2(57) bits: 186


def new_secret(env: Env) -> str:
    """A secret that nobody has to invent."""
    chosen: list[str] = []
    while len(chosen) < _LENGTH:
        chosen += [_ALPHABET[byte] for byte in env.random(_LENGTH) if byte < len(_ALPHABET)]  # all equally likely
    return "".join(chosen[:_LENGTH])


def hash_secret(env: Env, secret: str) -> str:
    """What may be stored."""
    salt = env.random(_SALT)
    kdf = Argon2id(salt=salt, length=32, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY)
    return kdf.derive_phc_encoded(secret.encode())


def is_secret(secret: str, stored: str) -> bool:
    """Whether this is the secret; takes as long where it is not."""
    try:
        Argon2id.verify_phc_encoded(secret.encode(), stored)
    except InvalidKey:
        return False
    return True
