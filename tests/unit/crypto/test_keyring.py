# SPDX-License-Identifier: Apache-2.0
"""The keys object: its pinned bytes, a second reader after the documentation, rotation, damage and forgery."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.crypto import (
    Argon2Cost,
    Hashing,
    Keyring,
    PassphraseProvider,
    PlatformKeyProvider,
    VaultKey,
    create_keyring,
    hashing,
    open_keyring,
    public_key,
    read_keyring,
    rewrap,
)
from keepstone.errors import CorruptObject, KeepstoneError, UnsupportedFormat, UsageError, WrongKey
from tests.unit.crypto.known import STORE_ID, KnownEnv

pytestmark = pytest.mark.store

Made = tuple[Keyring, bytes]


def weak(passphrase: bytes) -> PassphraseProvider:
    return PassphraseProvider(passphrase, cost=Argon2Cost(iterations=1, memory_kib=8, lanes=1), weak=True)


def forged(document: dict[str, Any], mac: str = "0" * 64) -> bytes:
    """What somebody without the vault key can make: right in form and checksum, wrong in its MAC."""
    body = {name: value for name, value in document.items() if name not in ("mac", "checksum")}
    text = json.dumps(body, indent=2)[:-2].encode() + b',\n  "mac": "' + mac.encode() + b'",\n'
    return text + b'  "checksum": "' + hashlib.sha256(text).hexdigest().encode() + b'"\n}\n'


def read_by_the_documentation(keys_object: bytes, root: bytes) -> bytes:
    """The five secrets of a store from its keys object and its key file, by the module's docstring alone."""

    def prf(key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, hashlib.sha256).digest()

    def bind(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "little") + part for part in parts)

    lines = keys_object.splitlines(keepends=True)
    document = json.loads(keys_object)
    assert document["checksum"] == hashlib.sha256(b"".join(lines[:-2])).hexdigest()
    store_id = bytes.fromhex(document["store_id"])
    context = bind(b"keepstone/keys/v1", store_id, document["sequence"].to_bytes(8, "little"))
    slot = next(slot for slot in document["slots"] if slot["kind"] == "platform")
    salt = base64.b64decode(slot["salt"])
    assert base64.b64decode(slot["check"]) == prf(root, bind(b"keepstone/slot/check/v1", context, salt))
    key = prf(root, bind(b"keepstone/slot/wrap/v1", context, salt))
    vault_key = AESGCM(key).decrypt(bytes(12), base64.b64decode(slot["wrapped"]), context)
    mac_key = prf(vault_key, bind(b"keepstone/keys/mac/v1", store_id))
    assert document["mac"] == prf(mac_key, b"".join(lines[:-3])).hex()
    domain = document["domain"]
    epoch = domain["epoch"].to_bytes(4, "little")
    salt = base64.b64decode(domain["salt"])
    key = prf(vault_key, bind(b"keepstone/domain/wrap/v1", store_id, epoch, salt))
    associated = bind(b"keepstone/domain/v1", store_id, epoch)
    return AESGCM(key).decrypt(bytes(12), base64.b64decode(domain["wrapped"]), associated)


def test_object_is_pinned(made: Made, profile: Hashing) -> None:
    expected = {
        "blake3": "7342ec5ff55a46d7d1fa96fa7de91ee56137c3260f8cc648b68ff4d831235fc4",
        "hmac-sha256": "31b8beefdbbb50d27236501d98a201e16eb8ca2d185668febfcb3f03a11a3e1a",
    }

    assert hashlib.sha256(made[1]).hexdigest() == expected[profile.name]


def test_object_reads_like_its_documentation(made: Made, platform: PlatformKeyProvider) -> None:
    keyring, stored = made
    document = json.loads(stored)

    assert list(document) == [
        "format",
        "version",
        "store_id",
        "sequence",
        "hashing",
        "domain",
        "slots",
        "mac",
        "checksum",
    ]
    assert json.dumps(document, indent=2).encode() + b"\n" == stored
    assert read_by_the_documentation(stored, platform.path.read_bytes()) == keyring.keys.to_bytes()


def test_every_key_opens_the_same_store(
    made: Made, platform: PlatformKeyProvider, passphrase: PassphraseProvider, profile: Hashing
) -> None:
    keyring, stored = made
    opened_by = [open_keyring(stored, STORE_ID, [provider]) for provider in (platform, passphrase)]
    for opened in [*opened_by, read_keyring(stored, STORE_ID, keyring.vault_key)]:
        assert opened == keyring
        assert opened.hashing is profile
        assert opened.public_key == public_key(opened.keys.signing_seed)


def test_the_secrets_differ_from_one_another_and_from_store_to_store(
    env: KnownEnv, profile: Hashing, passphrase: PassphraseProvider
) -> None:
    rings = [create_keyring(env, profile, STORE_ID, [passphrase])[0] for _ in range(2)]
    secrets = [ring.vault_key.secret for ring in rings]
    for ring in rings:
        secrets += [ring.keys.id, ring.keys.encryption, ring.keys.metadata, ring.keys.audit, ring.keys.signing_seed]

    assert len(set(secrets)) == 12


def test_every_flipped_bit_is_damage_and_never_a_wrong_key(made: Made, passphrase: PassphraseProvider) -> None:
    _, stored = made
    for position in range(len(stored)):
        for bit in range(8):
            damaged = bytearray(stored)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptObject, match="its checksum does not fit"):
                open_keyring(bytes(damaged), STORE_ID, [passphrase])


def test_every_flipped_bit_is_found_also_where_the_checksum_was_made_to_fit(
    made: Made, platform: PlatformKeyProvider, passphrase: PassphraseProvider
) -> None:
    keyring, stored = made
    signed = stored[: stored.index(b'  "checksum"')]
    for position in range(len(signed)):
        for bit in range(8):
            damaged = bytearray(signed)
            damaged[position] ^= 1 << bit
            forgery = bytes(damaged) + b'  "checksum": "' + hashlib.sha256(damaged).hexdigest().encode() + b'"\n}\n'
            for provider in (platform, passphrase):
                with pytest.raises((CorruptObject, WrongKey, UnsupportedFormat)):
                    open_keyring(forgery, STORE_ID, [provider])
            with pytest.raises((CorruptObject, UnsupportedFormat)):
                read_keyring(forgery, STORE_ID, keyring.vault_key)


def test_truncation_growth_and_junk_are_damage(made: Made, passphrase: PassphraseProvider) -> None:
    _, stored = made
    for damaged in [*(stored[:length] for length in range(len(stored))), stored + b"\n", b" " + stored, bytes(900)]:
        with pytest.raises(CorruptObject):
            open_keyring(damaged, STORE_ID, [passphrase])


def test_a_wrong_passphrase_is_a_wrong_key_that_says_what_opens_the_store(made: Made) -> None:
    with pytest.raises(
        WrongKey, match=r"passphrase is not this store's.*'passphrase', 'platform'; or by its recovery kit"
    ):
        open_keyring(made[1], STORE_ID, [weak(b"wrong")])


def test_the_next_key_is_tried_where_one_does_not_fit(
    made: Made, env: KnownEnv, passphrase: PassphraseProvider, tmp_path: Path
) -> None:
    keyring, stored = made
    foreign = PlatformKeyProvider.create(env, tmp_path / "foreign.key")

    assert open_keyring(stored, STORE_ID, [foreign, weak(b"x"), passphrase]) == keyring


def test_another_vault_key_reads_nothing(made: Made) -> None:
    with pytest.raises(CorruptObject, match="authentication code"):
        read_keyring(made[1], STORE_ID, VaultKey(bytes(32)))


def test_no_key_and_a_key_without_slot_are_wrong_keys(
    made: Made, env: KnownEnv, platform: PlatformKeyProvider, passphrase: PassphraseProvider
) -> None:
    keyring, stored = made
    with pytest.raises(WrongKey, match="no key was given"):
        open_keyring(stored, STORE_ID, [])
    _, by_key_file = rewrap(env, keyring, [platform])
    with pytest.raises(WrongKey, match="has no passphrase key"):
        open_keyring(by_key_file, STORE_ID, [passphrase])


def test_a_missing_key_file_is_named_with_the_way_out(made: Made, platform: PlatformKeyProvider) -> None:
    platform.path.unlink()
    with pytest.raises(WrongKey, match=f"{platform.path} is missing.*recovery kit"):
        open_keyring(made[1], STORE_ID, [platform])


def test_the_object_of_another_store_is_refused(made: Made, passphrase: PassphraseProvider) -> None:
    with pytest.raises(CorruptObject, match=f"belongs to store {STORE_ID.hex()}"):
        open_keyring(made[1], bytes(16), [passphrase])


def test_rotation_changes_the_locks_and_nothing_behind_them(
    made: Made, env: KnownEnv, platform: PlatformKeyProvider, passphrase: PassphraseProvider
) -> None:
    keyring, stored = made
    following, next_object = rewrap(env, keyring, [weak(b"new one")])

    assert following.sequence == 2
    assert following.keys == keyring.keys
    assert json.loads(next_object)["domain"] == json.loads(stored)["domain"]
    assert open_keyring(next_object, STORE_ID, [weak(b"new one")]) == following
    assert read_keyring(next_object, STORE_ID, keyring.vault_key) == following
    for old in (platform, passphrase):
        with pytest.raises(WrongKey):
            open_keyring(next_object, STORE_ID, [old])


def test_rotation_shares_no_salt_with_what_was_before(
    made: Made, env: KnownEnv, passphrase: PassphraseProvider
) -> None:
    keyring, stored = made
    _, next_object = rewrap(env, keyring, [passphrase, passphrase])
    slots = json.loads(stored)["slots"] + json.loads(next_object)["slots"]

    assert len({slot["salt"] for slot in slots}) == len(slots) == 4


def test_a_slot_of_an_older_object_does_not_fit_into_the_next(
    made: Made, env: KnownEnv, passphrase: PassphraseProvider
) -> None:
    keyring, stored = made
    _, next_object = rewrap(env, keyring, [weak(b"new one")])
    document = json.loads(next_object)
    document["slots"] += json.loads(stored)["slots"]
    with pytest.raises(WrongKey):
        open_keyring(forged(document, document["mac"]), STORE_ID, [passphrase])


@pytest.mark.parametrize("count", [0, 17])
def test_a_store_takes_a_bounded_number_of_keys(env: KnownEnv, profile: Hashing, count: int) -> None:
    with pytest.raises(UsageError):
        create_keyring(env, profile, STORE_ID, [weak(b"x")] * count)


def test_sixteen_keys_fit(env: KnownEnv, profile: Hashing) -> None:
    keyring, stored = create_keyring(env, profile, STORE_ID, [weak(b"%d" % number) for number in range(16)])

    assert open_keyring(stored, STORE_ID, [weak(b"15")]) == keyring


def test_there_is_a_last_object(made: Made, env: KnownEnv, passphrase: PassphraseProvider) -> None:
    """The name of an object has eight digits, and one with nine would not be seen."""
    last, stored = rewrap(env, replace(made[0], sequence=99_999_998), [passphrase])

    assert open_keyring(stored, STORE_ID, [passphrase]) == last
    with pytest.raises(UsageError, match="99999999 is the last"):
        rewrap(env, last, [passphrase])


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 2},
        {"hashing": "none"},
        {"store_id": "00" * 16},
        {"format": "other"},
        {"version": 0},
        {"version": "1"},
        {"slots": []},
        {"slots": [{"kind": "passphrase"}]},
        {"slots": [{"kind": ["passphrase"]}]},
        {"slots": [{"kind": "tpm"}] * 17},
        {"domain": {}},
        {"extra\x1b[2J": 1},
    ],
    ids=str,
)
def test_a_forged_field_opens_nothing(made: Made, passphrase: PassphraseProvider, change: dict[str, Any]) -> None:
    document = {**json.loads(made[1]), **change}
    with pytest.raises((CorruptObject, WrongKey)) as caught:
        open_keyring(forged(document, document["mac"]), STORE_ID, [passphrase])

    assert str(caught.value).isprintable()


@pytest.mark.parametrize("field", ["epoch", "public_key", "salt", "wrapped"])
def test_a_forged_domain_is_found_by_the_mac(made: Made, passphrase: PassphraseProvider, field: str) -> None:
    document = json.loads(made[1])
    value = document["domain"][field]
    document["domain"][field] = value + 1 if field == "epoch" else ("B" if value[0] == "A" else "A") + value[1:]
    with pytest.raises(CorruptObject, match="authentication code"):
        open_keyring(forged(document, document["mac"]), STORE_ID, [passphrase])


def test_a_forged_order_or_removal_of_slots_is_found_by_the_mac(made: Made, passphrase: PassphraseProvider) -> None:
    document = json.loads(made[1])
    for slots in (document["slots"][::-1], document["slots"][1:]):
        with pytest.raises(CorruptObject, match="authentication code"):
            open_keyring(forged({**document, "slots": slots}, document["mac"]), STORE_ID, [passphrase])


def test_an_object_that_costs_too_much_to_try_is_refused_untried(made: Made) -> None:
    document = json.loads(made[1])
    untried = PassphraseProvider(b"x")
    slot = document["slots"][1]
    with pytest.raises(CorruptObject, match="no keys object"):
        open_keyring(forged({**document, "slots": [slot] * 17}), STORE_ID, [untried])
    with pytest.raises(CorruptObject, match="longer than"):
        open_keyring(forged({**document, "slots": [{**slot, "note": "x" * 65536}]}), STORE_ID, [untried])


def test_a_newer_format_says_so(made: Made, passphrase: PassphraseProvider) -> None:
    document = {"format": "keepstone keys", "version": 2, "locks": {"of": "tomorrow"}}
    with pytest.raises(UnsupportedFormat, match="version 2; upgrade Keepstone"):
        open_keyring(forged(document), STORE_ID, [passphrase])


def test_a_slot_of_an_unknown_kind_is_left_alone(made: Made, passphrase: PassphraseProvider) -> None:
    class Later:
        """A kind of key that this version does not know."""

        kind = "tpm"

        def wrap(self, vault_key: VaultKey, context: bytes, salt: bytes) -> dict[str, str | int]:
            return {"kind": self.kind, "handle": 0x81000001}

        def unwrap(self, slot: object, context: bytes) -> VaultKey:
            raise AssertionError("it is never asked")

    following, stored = rewrap(KnownEnv(), made[0], [Later(), passphrase])

    assert open_keyring(stored, STORE_ID, [passphrase]) == following


@pytest.mark.parametrize(
    "text",
    [
        b"{" + b'"a":[' + b"[" * 30000 + b"]" * 30000 + b"]}",
        b'{"format":"keepstone keys","version":' + b"1" * 5000 + b"}",
        b'{"format":"\xff","version":1}',
        b'{"format":"\\ud800","version":1}',
        b"[]",
        b"null",
        b"",
        b"\xff" * 100,
        b" " * 70000,
    ],
    ids=lambda text: str(text[:30]),
)
def test_hostile_text_is_damage(text: bytes) -> None:
    line = text.removesuffix(b"}") + b',\n  "mac": "' + b"0" * 64 + b'",\n'
    stored = line + b'  "checksum": "' + hashlib.sha256(line).hexdigest().encode() + b'"\n}\n'
    with pytest.raises(CorruptObject):
        open_keyring(stored, STORE_ID, [])


@settings(max_examples=300)
@given(data=st.binary(max_size=600))
def test_any_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(CorruptObject):
        open_keyring(data, STORE_ID, [])


@settings(max_examples=20)
@given(
    secret=st.binary(min_size=1, max_size=20).map(base64.b64encode),
    store_id=st.binary(min_size=1, max_size=32),
    name=st.sampled_from(["blake3", "hmac-sha256"]),
    rotations=st.integers(0, 3),
)
def test_any_passphrase_and_store_make_a_round_trip(secret: bytes, store_id: bytes, name: str, rotations: int) -> None:
    env = KnownEnv()
    keyring, stored = create_keyring(env, hashing(name), store_id, [weak(secret)])
    for _ in range(rotations):
        keyring, stored = rewrap(env, keyring, [weak(secret)])

    assert open_keyring(stored, store_id, [weak(secret)]) == keyring
    with pytest.raises(KeepstoneError):
        open_keyring(stored, store_id + b"\0", [weak(secret)])
