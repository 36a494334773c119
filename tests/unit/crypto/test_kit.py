# SPDX-License-Identifier: Apache-2.0
"""The recovery kit: round trips through this code and through the `age` program, and what does not open."""

from __future__ import annotations

import base64
import hmac
import json
import os
import pty
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto import (
    DomainKeys,
    Keyring,
    PlatformKeyProvider,
    VaultKey,
    create_keyring,
    generate_passphrase,
    hashing,
    kit_text,
    make_kit,
    open_kit,
    rewrap,
)
from keepstone.crypto.domain import seal_domain
from keepstone.env import Env
from keepstone.errors import CorruptObject, UnsupportedFormat, UsageError, WrongKey
from tests.unit.crypto.known import STORE_ID, KnownEnv

pytestmark = pytest.mark.store

VAULT_KEY = VaultKey(bytes(range(32)))
KEYS = DomainKeys.from_bytes(1, bytes(range(32, 192)))
KEYRING = Keyring(
    store_id=STORE_ID,
    sequence=3,
    hashing=hashing("blake3"),
    vault_key=VAULT_KEY,
    keys=KEYS,
    domain=seal_domain(KEYS, VAULT_KEY, STORE_ID, bytes(32)),
)
TEXT = """{
  "format": "keepstone recovery kit",
  "version": 1,
  "store_id": "000102030405060708090a0b0c0d0e0f",
  "description": "the store of Zoë",
  "made_at": "2026-09-21T14:13:20+00:00",
  "vault_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
  "hashing": "blake3",
  "domain": {
    "epoch": 1,
    "public_key": "T9CZzNR9eJPf6ewkQU7LDZtUICMqrTDZHEZb4zy+ZcQ=",
    "salt": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "wrapped": "\
nC1+Zb75nKxL6pUFRLs4HSX8WINbxzGnypsjjooIKj5+ZpzQjAnN+OUKdX5zCZOvSFw3EO9l+a+BEhLCfKuMjv23ZOqLLG8nunzmuvqek/2igBD5Abo+\
skzRBFe0vC4PE5JiXKhhLWR/jcj6lVZB0E8yIFZHzFHR252rxSwVea6cH1eNM1BOWDScRPUUA58JlebMy4cJfC0wHv8f6WwYFqBJgOYNudlYjTzdCucV\
AKk="
  },
  "instructions": [
    "This text opens the store named above. Whoever has it can read everything in the store.",
    "Keep it away from the store and from the machines that are backed up, for example on paper in a safe.",
    "With Keepstone:     keepstone store restore latest --store STORE --kit KIT --target FOLDER",
    "A new key for it:   keepstone store key rotate --store STORE --kit KIT",
    "Without Keepstone:  age --decrypt KIT | python STORE/rescue.py STORE restore latest FOLDER --kit-json -"
  ]
}
"""


@pytest.fixture
def identity() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


def kit_for(identity: pyrage.x25519.Identity) -> bytes:
    return make_kit(KnownEnv(), KEYRING, "the store of Zoë", recipients=[str(identity.to_public())])


def sealed(text: str, identity: pyrage.x25519.Identity) -> bytes:
    return bytes(pyrage.encrypt(text.encode(), [identity.to_public()], armored=True))


@pytest.fixture(scope="module")
def passphrase_kit() -> bytes:
    """Sealed under "right words"; age makes sealing and opening take a second or two each."""
    return make_kit(KnownEnv(), KEYRING, "the store of Zoë", passphrase="right words")


@pytest.fixture
def age() -> str:
    """The program that anybody has who has no Keepstone."""
    path = shutil.which("age")
    if path:
        return path
    if os.environ.get("CI"):
        pytest.fail("the program age is missing: apt-get install age")
    pytest.skip("the program age is missing: apt-get install age")


def test_text_is_pinned(identity: pyrage.x25519.Identity) -> None:
    kit = kit_for(identity)

    assert kit_text(KnownEnv(), KEYRING, "the store of Zoë").decode() == TEXT
    assert kit.startswith(b"-----BEGIN AGE ENCRYPTED FILE-----\n")
    assert pyrage.decrypt(kit, [identity]).decode() == TEXT


def test_passphrase_kit_opens_again(passphrase_kit: bytes) -> None:
    kit = open_kit(passphrase_kit, passphrase="right words")

    assert kit.keyring == replace(KEYRING, sequence=0)
    assert kit.description == "the store of Zoë"
    assert kit.made_at == "2026-09-21T14:13:20+00:00"


def test_each_recipient_opens_a_kit_alone() -> None:
    identities = [pyrage.x25519.Identity.generate() for _ in range(3)]
    kit = make_kit(Env(), KEYRING, "escrow", recipients=[str(identity.to_public()) for identity in identities])
    for identity in identities:
        file = f"# created: 2026-01-01\n# public key: {identity.to_public()}\n{identity}\n"

        assert open_kit(kit, identity=file).keyring.vault_key == VAULT_KEY


def test_age_opens_a_kit_for_a_recipient(age: str, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    (tmp_path / "identity.txt").write_text(f"{identity}\n")
    (tmp_path / "kit.age").write_bytes(kit_for(identity))
    result = subprocess.run(
        [age, "--decrypt", "-i", tmp_path / "identity.txt", tmp_path / "kit.age"], capture_output=True, check=True
    )

    assert result.stdout.decode() == TEXT


def test_age_opens_a_kit_under_a_passphrase(age: str, tmp_path: Path, passphrase_kit: bytes) -> None:
    kit = tmp_path / "kit.age"
    kit.write_bytes(passphrase_kit)
    child, terminal = pty.fork()  # age asks on its terminal and nowhere else
    if child == 0:
        os.execv(age, [age, "--decrypt", "--output", str(tmp_path / "kit.json"), str(kit)])
    asked = b""
    while b":" not in asked:
        asked += os.read(terminal, 100)
    os.write(terminal, b"right words\n")
    _, status = os.waitpid(child, 0)
    os.close(terminal)

    assert b"passphrase" in asked
    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "kit.json").read_text() == TEXT


def test_a_kit_that_age_sealed_opens(age: str, identity: pyrage.x25519.Identity) -> None:
    for options in ([], ["--armor"]):
        result = subprocess.run(
            [age, *options, "-r", str(identity.to_public())], input=TEXT.encode(), capture_output=True, check=True
        )

        assert open_kit(result.stdout, identity=str(identity)).keyring.vault_key == VAULT_KEY


def test_its_text_gives_the_keys_by_the_documentation_alone() -> None:
    text = json.loads(TEXT)
    vault_key, domain = base64.b64decode(text["vault_key"]), text["domain"]

    def bind(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "little") + part for part in parts)

    store_id, epoch = bytes.fromhex(text["store_id"]), domain["epoch"].to_bytes(4, "little")
    salt = base64.b64decode(domain["salt"])
    key = hmac.digest(vault_key, bind(b"keepstone/domain/wrap/v1", store_id, epoch, salt), "sha256")
    associated = bind(b"keepstone/domain/v1", store_id, epoch)

    assert AESGCM(key).decrypt(bytes(12), base64.b64decode(domain["wrapped"]), associated) == KEYS.to_bytes()


@pytest.mark.parametrize("name", ["blake3", "hmac-sha256"])
def test_a_kit_of_any_rotation_holds_the_same_keys(env: KnownEnv, platform: PlatformKeyProvider, name: str) -> None:
    identity = pyrage.x25519.Identity.generate()
    keyring, _ = create_keyring(env, hashing(name), STORE_ID, [platform])
    made = [keyring]
    for _ in range(3):
        made.append(rewrap(env, made[-1], [platform])[0])
    kits = [make_kit(env, one, "it", recipients=[str(identity.to_public())]) for one in made]

    opened = [open_kit(kit, identity=str(identity)).keyring for kit in kits]

    assert [one.sequence for one in made] == [1, 2, 3, 4]
    assert opened == [replace(keyring, sequence=0)] * 4


def test_wrong_passphrase_is_a_wrong_key(passphrase_kit: bytes) -> None:
    with pytest.raises(WrongKey, match="passphrase does not open"):
        open_kit(passphrase_kit, passphrase="wrong words")


def test_a_kit_that_asks_for_hours_of_work_is_refused_at_once(passphrase_kit: bytes) -> None:
    binary = base64.b64decode(b"".join(passphrase_kit.splitlines()[1:-1]))
    greedy = re.sub(rb"(-> scrypt \S+) \d+", rb"\1 30", binary, count=1)
    assert greedy != binary
    with pytest.raises(CorruptObject, match=r"Excessive work.*faster machine"):
        open_kit(greedy, passphrase="right words")


def test_wrong_identity_and_wrong_manner_are_wrong_keys(identity: pyrage.x25519.Identity) -> None:
    kit = kit_for(identity)
    with pytest.raises(WrongKey, match="identity does not open"):
        open_kit(kit, identity=str(pyrage.x25519.Identity.generate()))
    with pytest.raises(WrongKey, match="passphrase does not open"):
        open_kit(kit, passphrase="a passphrase")


def test_every_flipped_bit_and_truncation_is_found(identity: pyrage.x25519.Identity) -> None:
    kit = kit_for(identity)
    kinds: set[type[Exception]] = set()
    for position in range(len(kit)):
        for bit in range(8):
            damaged = bytearray(kit)
            damaged[position] ^= 1 << bit
            with pytest.raises((CorruptObject, WrongKey)) as caught:
                open_kit(bytes(damaged), identity=str(identity))
            kinds.add(caught.type)
    for length in range(len(kit) - 1):  # the last byte is a newline
        with pytest.raises((CorruptObject, WrongKey)):
            open_kit(kit[:length], identity=str(identity))

    assert kinds == {CorruptObject, WrongKey}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 0},
        {"vault_key": "AAAA"},
        {"vault_key": 1},
        {"vault_key": "//ECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="},
        {"store_id": "xyz"},
        {"store_id": "00" * 16},
        {"domain": None},
        {"domain": {}},
        {"domain.epoch": 2},
        {"domain.public_key": "A" * 43 + "="},
        {"domain.salt": "B" + "A" * 42 + "="},
        {"domain.wrapped": "A" * 235 + "="},
        {"domain.wrapped": "AAAA"},
    ],
    ids=str,
)
def test_a_text_that_is_no_kit_is_refused(identity: pyrage.x25519.Identity, change: dict[str, object]) -> None:
    text = json.loads(TEXT)
    for name, value in change.items():
        part, _, field = name.partition(".")
        text[part] = {**text[part], field: value} if field else value
    with pytest.raises(CorruptObject, match="no kit"):
        open_kit(sealed(json.dumps(text), identity), identity=str(identity))


def test_a_kit_of_an_unknown_profile_says_so(identity: pyrage.x25519.Identity) -> None:
    text = TEXT.replace('"blake3"', '"md5"')
    with pytest.raises(UnsupportedFormat, match=r"'md5' is not known.*upgrade"):
        open_kit(sealed(text, identity), identity=str(identity))


@pytest.mark.parametrize("text", ["", "null", "[]", "{" * 50000, '{"a":' + "[" * 40000])
def test_hostile_text_is_refused(identity: pyrage.x25519.Identity, text: str) -> None:
    with pytest.raises(CorruptObject):
        open_kit(sealed(text, identity), identity=str(identity))


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(CorruptObject, match="longer than"):
        open_kit(bytes(10**6), passphrase="x")


def test_a_newer_kit_says_so(identity: pyrage.x25519.Identity) -> None:
    text = json.dumps({"format": "keepstone recovery kit", "version": 2})
    with pytest.raises(UnsupportedFormat, match="version 2; upgrade Keepstone"):
        open_kit(sealed(text, identity), identity=str(identity))


def test_one_manner_of_sealing_and_of_opening(identity: pyrage.x25519.Identity) -> None:
    recipient = str(identity.to_public())
    for passphrase, recipients in [(None, []), ("", []), ("both", [recipient])]:
        with pytest.raises(UsageError):
            make_kit(Env(), KEYRING, "it", passphrase=passphrase, recipients=recipients)
    with pytest.raises(UsageError):
        open_kit(b"")
    with pytest.raises(UsageError):
        open_kit(b"", passphrase="a", identity=str(identity))


def test_what_is_no_recipient_or_identity_is_refused(identity: pyrage.x25519.Identity) -> None:
    with pytest.raises(UsageError, match="no age recipient"):
        make_kit(Env(), KEYRING, "it", recipients=[str(identity.to_public()), "age1nothing"])
    for text in ("AGE-SECRET-KEY-1NOTHING", "# only a comment"):
        with pytest.raises((UsageError, WrongKey)):
            open_kit(kit_for(identity), identity=text)


def test_passphrase_has_200_bits_that_are_read_without_mistake(env: KnownEnv) -> None:
    passphrases = {generate_passphrase(Env()) for _ in range(200)}
    letters = set("".join(passphrases)) - {"-"}

    assert generate_passphrase(env) == "58gqh-mmrbv-jn5qp-9xnmp-av388-feg1b-ahz99-g0jsp"
    assert len(passphrases) == 200
    assert {tuple(map(len, passphrase.split("-"))) for passphrase in passphrases} == {(5,) * 8}
    assert len(letters) == 32
    assert not letters & set("ilou")
