# SPDX-License-Identifier: Apache-2.0
"""The keys object: how a store carries its own keys. This page is the authority on its format.

One JSON text in UTF-8, indented by two blanks, at most 64 KiB, readable by eye; bytes are base64 unless it says hex.

    format       "keepstone keys"
    version      1
    store_id     hex
    sequence     from 1; every rotation of root keys makes the next object, and the highest one counts
    hashing      profile of the store: "blake3" or "hmac-sha256"
    domain       the domain's keys:
      epoch        of these keys, from 1
      public_key   Ed25519, for the signatures of heads
      salt         32
      wrapped      AES-256-GCM of the five secrets (order of `DomainKeys`), 176
    slots        up to 16, one per way to open the store. Each has `kind`, `salt` 32, `check` 32 (`slots`), and
      passphrase   iterations, memory_kib, lanes (Argon2id), wrapped 48      see `providers`
      platform     key_id (which key file), wrapped 48                       see `providers`
      kit          nothing more: the recovery kit holds the vault key        see `kit`
      others       are left alone
    mac          hex, on the line before the last two
    checksum     hex, on the last line but one

    slot context     bind("keepstone/keys/v1", store id, sequence u64 little-endian)
    domain key       HMAC-SHA256(vault key, bind("keepstone/domain/wrap/v1", store id, epoch u32 little-endian, salt));
                     nonce 0, associated data = bind("keepstone/domain/v1", store id, epoch)
    mac key          HMAC-SHA256(vault key, bind("keepstone/keys/mac/v1", store id))
    mac              HMAC-SHA256(mac key, every byte before its line)
    checksum         SHA-256(every byte before its line)

Invariants
* The checksum is compared first, so any damaged byte is `CorruptObject` and never taken for a wrong passphrase, and a
  scrub needs no key. The MAC is compared as soon as a slot has given the vault key, so nothing is forged without it.
* HMAC-SHA256 in both profiles: no field of the object decides how the object itself is read.
* A rotation copies `domain` byte for byte: no data is rewritten, and a recovery kit stays good. Objects of lower
  sequence still open by the old root keys; whoever means to shut those out deletes them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto.binding import bind
from keepstone.crypto.hashing import Hashing
from keepstone.crypto.hashing import hashing as hashing_named
from keepstone.crypto.keys import KEY_SIZE, DomainKeys, VaultKey
from keepstone.crypto.kit import KitProvider
from keepstone.crypto.providers import Bytes32, KeyProvider
from keepstone.crypto.signing import public_key
from keepstone.env import Env
from keepstone.errors import CorruptObject, UnsupportedFormat, UsageError, WrongKey

__all__ = ["Keyring", "create_keyring", "open_keyring", "rewrap"]

_FORMAT = "keepstone keys"
_VERSION = 1
_MAX_SIZE = 64 * 1024
_MAX_SLOTS = 16  # each passphrase slot may cost seconds and gigabytes to try
_NONCE = bytes(12)  # safe: each key seals one text
_MAC_LINE = b'  "mac": "%b",\n'
_CHECKSUM_LINE = b'  "checksum": "%b"\n}\n'
_HEX = 64
_MAC_SIZE = len(_MAC_LINE) - 2 + _HEX
_CHECKSUM_SIZE = len(_CHECKSUM_LINE) - 2 + _HEX


class _Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
    public_key: Bytes32
    salt: Bytes32
    wrapped: Annotated[bytes, msgspec.Meta(min_length=DomainKeys.SIZE + 16, max_length=DomainKeys.SIZE + 16)]


class _Version(msgspec.Struct, frozen=True):
    format: str
    version: int


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: str = _FORMAT
    version: int = _VERSION
    store_id: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$")]
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    hashing: str
    domain: _Domain
    slots: Annotated[list[dict[str, str | int]], msgspec.Meta(max_length=_MAX_SLOTS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """An opened keys object; `sequence` counts them from 1. `public_key` verifies what `keys.signing_seed` signs.

    `wrapped` is the object's `domain`, for the next one.
    """

    store_id: bytes
    sequence: int
    hashing: Hashing
    vault_key: VaultKey
    keys: DomainKeys
    public_key: bytes
    wrapped: _Domain = field(repr=False)


def create_keyring(
    env: Env, hashing: Hashing, store_id: bytes, providers: Sequence[KeyProvider]
) -> tuple[Keyring, bytes]:
    """New keys for a new store, and the keys object that each of `providers` opens; `UsageError` without any."""
    vault_key = VaultKey(env.random(KEY_SIZE))
    keys = DomainKeys.from_bytes(1, env.random(DomainKeys.SIZE))
    salt = env.random(KEY_SIZE)
    key, associated = _domain_key(vault_key, store_id, keys.epoch, salt)
    domain = _Domain(
        epoch=keys.epoch,
        public_key=public_key(keys.signing_seed),
        salt=salt,
        wrapped=AESGCM(key).encrypt(_NONCE, keys.to_bytes(), associated),
    )
    keyring = Keyring(
        store_id=store_id,
        sequence=1,
        hashing=hashing,
        vault_key=vault_key,
        keys=keys,
        public_key=domain.public_key,
        wrapped=domain,
    )
    return keyring, _encode(env, keyring, providers)


def rewrap(env: Env, keyring: Keyring, providers: Sequence[KeyProvider]) -> tuple[Keyring, bytes]:
    """The next keys object, opened by `providers` and the recovery kit and by nothing else; the keys inside stay."""
    following = replace(keyring, sequence=keyring.sequence + 1)
    return following, _encode(env, following, providers)


def open_keyring(keys_object: bytes, store_id: bytes, providers: Sequence[KeyProvider]) -> Keyring:
    """The keys, by the first of `providers` that fits.

    `WrongKey` where none fits, `CorruptObject` where the object is damaged, forged or another store's,
    `UnsupportedFormat` where it is newer; and what a provider raises when its key cannot be read.
    """
    signed, mac_line = _split(keys_object, store_id)
    body = _decode(signed, store_id)
    vault_key = _unwrap(body, store_id, providers)
    if not hmac.compare_digest(_mac_line(signed, vault_key, store_id), mac_line):
        raise _corrupt(store_id, "its authentication code does not fit")
    key, associated = _domain_key(vault_key, store_id, body.domain.epoch, body.domain.salt)
    try:
        secrets = AESGCM(key).decrypt(_NONCE, body.domain.wrapped, associated)
    except InvalidTag:
        raise _corrupt(store_id, "its domain keys fail their authentication") from None
    return Keyring(
        store_id=store_id,
        sequence=body.sequence,
        hashing=hashing_named(body.hashing),
        vault_key=vault_key,
        keys=DomainKeys.from_bytes(body.domain.epoch, secrets),
        public_key=body.domain.public_key,
        wrapped=body.domain,
    )


def _encode(env: Env, keyring: Keyring, providers: Sequence[KeyProvider]) -> bytes:
    if not 0 < len(providers) < _MAX_SLOTS:
        raise UsageError(f"a store takes 1 to {_MAX_SLOTS - 1} keys to be opened by, not {len(providers)}")
    context = _context(keyring.store_id, keyring.sequence)
    openers: list[KeyProvider] = [*providers, KitProvider(keyring.vault_key)]
    body = _Body(
        store_id=keyring.store_id.hex(),
        sequence=keyring.sequence,
        hashing=keyring.hashing.name,
        domain=keyring.wrapped,
        slots=[opener.wrap(keyring.vault_key, context, env.random(KEY_SIZE)) for opener in openers],
    )
    signed = msgspec.json.format(msgspec.json.encode(body), indent=2).removesuffix(b"\n}") + b",\n"
    checked = signed + _mac_line(signed, keyring.vault_key, keyring.store_id)
    return checked + _checksum_line(checked)


def _split(keys_object: bytes, store_id: bytes) -> tuple[bytes, bytes]:
    if len(keys_object) > _MAX_SIZE:
        raise _corrupt(store_id, f"it is longer than {_MAX_SIZE} bytes")
    checked = keys_object[:-_CHECKSUM_SIZE]
    if _checksum_line(checked) != keys_object[-_CHECKSUM_SIZE:]:
        raise _corrupt(store_id, "its checksum does not fit")
    return checked[:-_MAC_SIZE], checked[-_MAC_SIZE:]


def _decode(signed: bytes, store_id: bytes) -> _Body:
    text = signed.removesuffix(b",\n") + b"\n}"
    try:
        version = msgspec.json.decode(text, type=_Version)
        if version.format == _FORMAT and version.version > _VERSION:
            raise UnsupportedFormat(
                f"the keys of store {store_id.hex()} have version {version.version}; upgrade Keepstone"
            )
        body = msgspec.json.decode(text, type=_Body)
    except (ValueError, RecursionError) as error:
        raise _corrupt(store_id, f"it is no keys object ({str(error)!r})") from None
    if (body.format, body.version) != (_FORMAT, _VERSION):
        raise _corrupt(store_id, "it is no keys object")
    if body.store_id != store_id.hex():
        raise _corrupt(store_id, f"it belongs to store {body.store_id}")
    return body


def _unwrap(body: _Body, store_id: bytes, providers: Sequence[KeyProvider]) -> VaultKey:
    context = _context(store_id, body.sequence)
    refusals: dict[str, None] = {}
    for provider in providers:
        slots = [slot for slot in body.slots if slot.get("kind") == provider.kind]
        if not slots:
            refusals[f"it has no {provider.kind} key"] = None
        for slot in slots:
            try:
                return provider.unwrap(slot, context)
            except WrongKey as refusal:
                refusals[str(refusal)] = None
    kinds = sorted({repr(slot.get("kind")) for slot in body.slots})
    reasons = "; ".join(refusals) or "no key was given"
    raise WrongKey(f"store {store_id.hex()} does not open: {reasons}. It opens by: {', '.join(kinds)}")


def _context(store_id: bytes, sequence: int) -> bytes:
    return bind(b"keepstone/keys/v1", store_id, sequence.to_bytes(8, "little"))


def _domain_key(vault_key: VaultKey, store_id: bytes, epoch: int, salt: bytes) -> tuple[bytes, bytes]:
    number = epoch.to_bytes(4, "little")
    key = hmac.digest(vault_key.secret, bind(b"keepstone/domain/wrap/v1", store_id, number, salt), "sha256")
    return key, bind(b"keepstone/domain/v1", store_id, number)


def _mac_line(signed: bytes, vault_key: VaultKey, store_id: bytes) -> bytes:
    key = hmac.digest(vault_key.secret, bind(b"keepstone/keys/mac/v1", store_id), "sha256")
    return _MAC_LINE % hmac.digest(key, signed, "sha256").hex().encode()


def _checksum_line(checked: bytes) -> bytes:
    return _CHECKSUM_LINE % hashlib.sha256(checked).hexdigest().encode()


def _corrupt(store_id: bytes, why: str) -> CorruptObject:
    return CorruptObject(f"the keys of store {store_id.hex()} are damaged or forged: {why}; restore keys/ from a copy")
