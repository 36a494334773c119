# SPDX-License-Identifier: Apache-2.0
"""The recovery kit: a store's keys on paper, for the day on which machine, key file, passphrase or `keys/` are gone.

A kit is an armoured age file (age-encryption.org/v1), so that it also opens without Keepstone, by `age --decrypt`. It
is sealed under a passphrase, or to age recipients (key escrow: any one of them opens it). Its text is JSON:

    format "keepstone recovery kit", version 1, store_id (hex), description, made_at (RFC 3339, UTC),
    vault_key (base64), hashing and domain as in the keys object, instructions (list of lines)

That is a keys object with the vault key itself in the place of the slots, and it opens a store that has no keys object
any more. It stays good when root keys are rotated, because a rotation changes neither the vault key nor the domain; for
the same reason no rotation shuts a kit out. Chance inside the age file comes from the age library, not from Env.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from keepstone.crypto.domain import Domain, open_domain
from keepstone.crypto.hashing import hashing
from keepstone.crypto.keyring import Keyring
from keepstone.crypto.keys import VaultKey
from keepstone.crypto.providers import Bytes32
from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import CorruptObject, UnsupportedFormat, UsageError, WrongKey

__all__ = [
    "Kit",
    "check_recipients",
    "generate_identity",
    "generate_passphrase",
    "kit_text",
    "make_kit",
    "open_kit",
    "recipient_of",
]

_FORMAT = "keepstone recovery kit"
_VERSION = 1
_MAX_SIZE = 64 * 1024
_WRONG_KEY = ("Decryption failed", "No matching keys found")  # what age says where a key does not fit
_SLOW = "Excessive work"
_GUESSES = 5  # of age, how long a passphrase takes, after which it is believed
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_GROUPS = 8
_GROUP = 5
_INSTRUCTIONS = [
    "This text opens the store named above. Whoever has it can read everything in the store.",
    "Keep it away from the store and from the machines that are backed up, for example on paper in a safe.",
    "With Keepstone:     keepstone store restore latest --store STORE --kit KIT --target FOLDER",
    "A new key for it:   keepstone store key rotate --store STORE --kit KIT",
    "Without Keepstone:  age --decrypt KIT | python STORE/rescue.py STORE restore latest FOLDER --kit-json -",
]


class Kit(msgspec.Struct, frozen=True, kw_only=True):
    """An opened kit. `keyring` has sequence 0, for it is of no keys object; `made_at` is a date and time in UTC."""

    keyring: Keyring
    description: str
    made_at: str


class _Version(msgspec.Struct, frozen=True):
    format: str
    version: int


class _Text(msgspec.Struct, frozen=True):
    format: str
    version: int
    store_id: str
    description: str
    made_at: str
    vault_key: Bytes32
    hashing: str
    domain: Domain
    instructions: list[str]


def kit_text(env: Env, keyring: Keyring, description: str) -> bytes:
    """What is sealed in a kit."""
    text = _Text(
        format=_FORMAT,
        version=_VERSION,
        store_id=keyring.store_id.hex(),
        description=description,
        made_at=env.utc().replace(microsecond=0).isoformat(),
        vault_key=keyring.vault_key.secret,
        hashing=keyring.hashing.name,
        domain=keyring.domain,
        instructions=_INSTRUCTIONS,
    )
    return msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n"


def make_kit(
    env: Env, keyring: Keyring, description: str, *, passphrase: str | None = None, recipients: Sequence[str] = ()
) -> bytes:
    """A kit, sealed under `passphrase` or to `recipients` ("age1…"), not both. `UsageError` for anything else."""
    import pyrage  # type: ignore[import-untyped]  # it comes without types

    if bool(passphrase) == bool(recipients):
        raise UsageError("a recovery kit takes either a passphrase or age recipients; give one of them")
    plain = kit_text(env, keyring, description)
    if passphrase:
        return bytes(pyrage.passphrase.encrypt(plain, passphrase, armored=True))
    return bytes(pyrage.encrypt(plain, check_recipients(recipients), armored=True))


def check_recipients(recipients: Sequence[str]) -> list[object]:
    """The recipients as age has them; `UsageError` where one is none."""
    import pyrage

    keys: list[object] = []
    for recipient in recipients:
        try:
            keys.append(pyrage.x25519.Recipient.from_str(recipient))
        except pyrage.RecipientError as error:
            raise UsageError(f"{recipient!r} is no age recipient ({error}); it should look like age1…") from None
    return keys


def open_kit(data: bytes, *, passphrase: str | None = None, identity: str | None = None) -> Kit:
    """The content of a kit, by its passphrase or by the text of an age identity file ("AGE-SECRET-KEY-1…").

    `WrongKey` where the passphrase or identity does not fit (age cannot always tell this from damage), `CorruptObject`
    where the kit is damaged, `UnsupportedFormat` for a newer kit, `UsageError`.
    """
    import pyrage

    if bool(passphrase) == bool(identity):
        raise UsageError("a recovery kit opens by its passphrase or by an age identity; give one of them")
    if len(data) > _MAX_SIZE:
        raise CorruptObject(f"the recovery kit is longer than {_MAX_SIZE} bytes: this is no kit; take another copy")
    try:
        plain = _by_passphrase(data, passphrase) if passphrase else pyrage.decrypt(data, _identities(identity or ""))
    except pyrage.DecryptError as error:
        if str(error) in _WRONG_KEY:
            what = "passphrase" if passphrase else "identity"
            raise WrongKey(f"the {what} does not open the recovery kit; try another one, or another copy") from None
        why = " ".join(str(error).split())
        faster = ", or a faster machine" if why.startswith(_SLOW) else ""
        raise CorruptObject(f"this is no recovery kit, or a damaged one ({why}); take another copy{faster}") from None
    return _read(plain)


def _by_passphrase(data: bytes, passphrase: str) -> bytes:
    """age refuses what it guesses to take long, by a measurement of the moment: where a machine has much else to do
    just then it is asked again."""
    import pyrage

    for _ in range(_GUESSES):
        try:
            return bytes(pyrage.passphrase.decrypt(data, passphrase))
        except pyrage.DecryptError as error:
            if not str(error).startswith(_SLOW):
                raise
    return bytes(pyrage.passphrase.decrypt(data, passphrase))


def _identities(text: str) -> list[object]:
    import pyrage

    lines = [line.strip() for line in text.splitlines()]
    try:
        return [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        raise UsageError("this is no age identity; it should look like AGE-SECRET-KEY-1…") from None


def _read(plain: bytes) -> Kit:
    try:
        version = from_json(_Version).decode(plain)
        if version.format == _FORMAT and version.version > _VERSION:
            raise UnsupportedFormat(f"the recovery kit has version {version.version}; upgrade Keepstone")
        text = from_json(_Text).decode(plain)
        if (text.format, text.version) != (_FORMAT, _VERSION):
            raise ValueError
        store_id, vault_key = bytes.fromhex(text.store_id), VaultKey(text.vault_key)
        keys = open_domain(text.domain, vault_key, store_id)
    except (CorruptObject, ValueError, RecursionError):
        raise CorruptObject("the recovery kit opens, but its text is no kit; take another copy") from None
    keyring = Keyring(
        store_id=store_id,
        sequence=0,
        hashing=hashing(text.hashing),
        vault_key=vault_key,
        keys=keys,
        domain=text.domain,
    )
    return Kit(keyring=keyring, description=text.description, made_at=text.made_at)


def generate_passphrase(env: Env) -> str:
    """A passphrase of 200 random bits for paper: 8 groups of 5 characters, none of which is mistaken for another."""
    bits = int.from_bytes(env.random(_GROUPS * _GROUP * 5 // 8), "big")
    letters = [_ALPHABET[bits >> 5 * place & 31] for place in range(_GROUPS * _GROUP)]
    return "-".join("".join(letters[at : at + _GROUP]) for at in range(0, len(letters), _GROUP))


def generate_identity() -> tuple[str, str]:
    """A new age identity, and the recipient that kits are sealed to for it."""
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(text: str) -> str:
    """The recipient of the first identity in the text of an age identity file. `UsageError` where there is none."""
    import pyrage

    for line in text.splitlines():
        if line.startswith("AGE-SECRET-KEY-"):
            return str(pyrage.x25519.Identity.from_str(line.strip()).to_public())
    raise UsageError("there is no age identity in this text; it should have a line AGE-SECRET-KEY-1…")
