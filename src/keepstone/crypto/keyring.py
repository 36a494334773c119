# SPDX-License-Identifier: Apache-2.0
"""The keys object: how a store carries its own keys. This page is the authority on its format.

One JSON text in UTF-8, indented by two blanks, at most 64 KiB, readable by eye; bytes are base64 unless it says hex.

    format       "keepstone keys"
    version      1
    store_id     hex
    sequence     from 1 to 99,999,999; every rotation of root keys makes the next object, and the highest one counts
    hashing      profile of the store: "blake3" or "hmac-sha256"
    domain       the domain's keys: epoch, public_key 32, salt 32, wrapped 176                       see `domain`
    slots        up to 16, one per way to open the store. Each has `kind`, `salt` 32, `check` 32 (`slots`), and
      passphrase   iterations, memory_kib, lanes (Argon2id), wrapped 48      see `providers`
      platform     key_id (which key file), wrapped 48                       see `providers`
      others       are left alone
    mac          hex, on the line before the last two
    checksum     hex, on the last line but one

    slot context     bind("keepstone/keys/v1", store id, sequence u64 little-endian)
    mac key          HMAC-SHA256(vault key, bind("keepstone/keys/mac/v1", store id))
    mac              HMAC-SHA256(mac key, every byte before its line)
    checksum         SHA-256(every byte before its line)

Invariants
* The checksum is compared first, so any damaged byte is `CorruptObject` and never taken for a wrong passphrase, and a
  scrub needs no key. The MAC is compared as soon as a slot has given the vault key, so nothing is forged without it.
* HMAC-SHA256 in both profiles: no field of the object decides how the object itself is read.
* A rotation copies `domain` byte for byte: no data is rewritten, and a recovery kit, which holds the vault key and the
  same `domain`, stays good and replaces the whole object (`kit`). Objects of lower sequence still open by the old root
  keys; whoever means to shut those out deletes them.
* What is wrong with an object is said here, which object it is and what to do about it by the caller, who knows.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import msgspec

from keepstone.crypto.binding import bind
from keepstone.crypto.domain import Domain, open_domain, seal_domain
from keepstone.crypto.hashing import Hashing
from keepstone.crypto.hashing import hashing as hashing_named
from keepstone.crypto.keys import KEY_SIZE, DomainKeys, VaultKey
from keepstone.crypto.providers import KeyProvider
from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import CorruptObject, UnsupportedFormat, UsageError, WrongKey

__all__ = ["Keyring", "create_keyring", "is_next", "open_keyring", "read_keyring", "rewrap"]

_FORMAT = "keepstone keys"
_VERSION = 1
_MAX_SIZE = 64 * 1024
_MAX_SLOTS = 16  # each passphrase slot may cost seconds and gigabytes to try
_MAX_SEQUENCE = 99_999_999  # the names of the objects have 8 digits
_MAC_LINE = b'  "mac": "%b",\n'
_CHECKSUM_LINE = b'  "checksum": "%b"\n}\n'
_HEX = 64
_MAC_SIZE = len(_MAC_LINE) - 2 + _HEX
_CHECKSUM_SIZE = len(_CHECKSUM_LINE) - 2 + _HEX


class _Version(msgspec.Struct, frozen=True):
    format: str
    version: int


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: str = _FORMAT
    version: int = _VERSION
    store_id: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$")]
    sequence: Annotated[int, msgspec.Meta(ge=1, le=_MAX_SEQUENCE)]
    hashing: str
    domain: Domain
    slots: Annotated[list[dict[str, str | int]], msgspec.Meta(max_length=_MAX_SLOTS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys of a store, out of a keys object or a recovery kit. `sequence` is that of the object; 0: there is none.

    `public_key` verifies what `keys.signing_seed` signs. `domain` is what the next object and the next kit carry.
    """

    store_id: bytes
    sequence: int
    hashing: Hashing
    vault_key: VaultKey
    keys: DomainKeys
    domain: Domain = field(repr=False)

    @property
    def public_key(self) -> bytes:
        return self.domain.public_key


def create_keyring(
    env: Env, hashing: Hashing, store_id: bytes, providers: Sequence[KeyProvider]
) -> tuple[Keyring, bytes]:
    """New keys for a new store, and the keys object that each of `providers` opens; `UsageError` without any."""
    vault_key = VaultKey(env.random(KEY_SIZE))
    keys = DomainKeys.from_bytes(1, env.random(DomainKeys.SIZE))
    keyring = Keyring(
        store_id=store_id,
        sequence=1,
        hashing=hashing,
        vault_key=vault_key,
        keys=keys,
        domain=seal_domain(keys, vault_key, store_id, env.random(KEY_SIZE)),
    )
    return keyring, _encode(env, keyring, providers)


def rewrap(env: Env, keyring: Keyring, providers: Sequence[KeyProvider]) -> tuple[Keyring, bytes]:
    """The next keys object, opened by `providers` and by nothing else; the keys inside stay. `UsageError`."""
    if keyring.sequence >= _MAX_SEQUENCE:
        raise UsageError(f"keys object {keyring.sequence} is the last that there can be; remove it where it is none")
    following = replace(keyring, sequence=keyring.sequence + 1)
    return following, _encode(env, following, providers)


def open_keyring(keys_object: bytes, store_id: bytes, providers: Sequence[KeyProvider]) -> Keyring:
    """The keys, by the first of `providers` that fits.

    `WrongKey` where none fits, `CorruptObject` where the object is damaged, forged or another store's,
    `UnsupportedFormat` where it is newer; and what a provider raises when its key cannot be read.
    """
    signed, mac_line = _split(keys_object)
    body = _decode(signed, store_id)
    return _open(signed, mac_line, body, store_id, _unwrap(body, store_id, providers))


def is_next(keys_object: bytes, before: bytes) -> bool:
    """Whether an object has the same keys in it as the one before it, as far as that is seen without any of them: as
    `rewrap` makes it. What its slots open by is not seen. False where one of them is none."""
    try:
        new, old = (_decode(_split(one)[0], None) for one in (keys_object, before))
    except (CorruptObject, UnsupportedFormat):
        return False
    same = (new.store_id, new.hashing, new.domain) == (old.store_id, old.hashing, old.domain)
    return same and new.sequence == old.sequence + 1


def read_keyring(keys_object: bytes, store_id: bytes, vault_key: VaultKey) -> Keyring:
    """The same for who has the vault key already, from a recovery kit or because the store is open."""
    signed, mac_line = _split(keys_object)
    return _open(signed, mac_line, _decode(signed, store_id), store_id, vault_key)


def _open(signed: bytes, mac_line: bytes, body: _Body, store_id: bytes, vault_key: VaultKey) -> Keyring:
    if not hmac.compare_digest(_mac_line(signed, vault_key, store_id), mac_line):
        raise CorruptObject("its authentication code does not fit")
    return Keyring(
        store_id=store_id,
        sequence=body.sequence,
        hashing=hashing_named(body.hashing),
        vault_key=vault_key,
        keys=open_domain(body.domain, vault_key, store_id),
        domain=body.domain,
    )


def _encode(env: Env, keyring: Keyring, providers: Sequence[KeyProvider]) -> bytes:
    if not 0 < len(providers) <= _MAX_SLOTS:
        raise UsageError(f"a store takes 1 to {_MAX_SLOTS} keys to be opened by, not {len(providers)}")
    context = _context(keyring.store_id, keyring.sequence)
    body = _Body(
        store_id=keyring.store_id.hex(),
        sequence=keyring.sequence,
        hashing=keyring.hashing.name,
        domain=keyring.domain,
        slots=[opener.wrap(keyring.vault_key, context, env.random(KEY_SIZE)) for opener in providers],
    )
    signed = msgspec.json.format(msgspec.json.encode(body), indent=2).removesuffix(b"\n}") + b",\n"
    checked = signed + _mac_line(signed, keyring.vault_key, keyring.store_id)
    return checked + _checksum_line(checked)


def _split(keys_object: bytes) -> tuple[bytes, bytes]:
    if len(keys_object) > _MAX_SIZE:
        raise CorruptObject(f"it is longer than {_MAX_SIZE} bytes")
    checked = keys_object[:-_CHECKSUM_SIZE]
    if _checksum_line(checked) != keys_object[-_CHECKSUM_SIZE:]:
        raise CorruptObject("its checksum does not fit")
    return checked[:-_MAC_SIZE], checked[-_MAC_SIZE:]


def _decode(signed: bytes, store_id: bytes | None) -> _Body:
    text = signed.removesuffix(b",\n") + b"\n}"
    try:
        version = from_json(_Version).decode(text)
        if version.format == _FORMAT and version.version > _VERSION:
            of = f" of store {store_id.hex()}" if store_id is not None else ""
            raise UnsupportedFormat(f"the keys{of} have version {version.version}; upgrade Keepstone")
        body = from_json(_Body).decode(text)
    except (ValueError, RecursionError) as error:
        raise CorruptObject(f"it is no keys object ({str(error)!r})") from None
    if (body.format, body.version) != (_FORMAT, _VERSION):
        raise CorruptObject("it is no keys object")
    if store_id is not None and body.store_id != store_id.hex():
        raise CorruptObject(f"it belongs to store {body.store_id}")
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
    raise WrongKey(
        f"store {store_id.hex()} does not open: {reasons}. It opens by: {', '.join(kinds)}; or by its recovery kit"
    )


def _context(store_id: bytes, sequence: int) -> bytes:
    return bind(b"keepstone/keys/v1", store_id, sequence.to_bytes(8, "little"))


def _mac_line(signed: bytes, vault_key: VaultKey, store_id: bytes) -> bytes:
    key = hmac.digest(vault_key.secret, bind(b"keepstone/keys/mac/v1", store_id), "sha256")
    return _MAC_LINE % hmac.digest(key, signed, "sha256").hex().encode()


def _checksum_line(checked: bytes) -> bytes:
    return _CHECKSUM_LINE % hashlib.sha256(checked).hexdigest().encode()
