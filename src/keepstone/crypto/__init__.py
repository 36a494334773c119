# SPDX-License-Identifier: Apache-2.0
"""Keys, sealing, signatures, recovery kits: everything secret about a store, and nothing about what is in it."""

from __future__ import annotations

from keepstone.crypto.blockmac import BlockMac
from keepstone.crypto.frames import frame_key, open_frame, seal_frame
from keepstone.crypto.hashing import Blake3Hashing, Hashing, Sha256Hashing, hashing
from keepstone.crypto.keyfile import PlatformKeyProvider
from keepstone.crypto.keyring import Keyring, create_keyring, is_next, open_keyring, read_keyring, rewrap
from keepstone.crypto.keys import DomainKeys, VaultKey
from keepstone.crypto.kit import (
    Kit,
    check_recipients,
    generate_identity,
    generate_passphrase,
    kit_text,
    make_kit,
    open_kit,
    recipient_of,
)
from keepstone.crypto.passphrase import Argon2Cost, PassphraseProvider
from keepstone.crypto.providers import KeyProvider
from keepstone.crypto.sealing import open_object, seal_object
from keepstone.crypto.signing import public_key, sign, verify

__all__ = [
    "Argon2Cost",
    "Blake3Hashing",
    "BlockMac",
    "DomainKeys",
    "Hashing",
    "KeyProvider",
    "Keyring",
    "Kit",
    "PassphraseProvider",
    "PlatformKeyProvider",
    "Sha256Hashing",
    "VaultKey",
    "check_recipients",
    "create_keyring",
    "frame_key",
    "generate_identity",
    "generate_passphrase",
    "hashing",
    "is_next",
    "kit_text",
    "make_kit",
    "open_frame",
    "open_keyring",
    "open_kit",
    "open_object",
    "public_key",
    "read_keyring",
    "recipient_of",
    "rewrap",
    "seal_frame",
    "seal_object",
    "sign",
    "verify",
]
