# SPDX-License-Identifier: Apache-2.0
"""Passphrases: what they become, what a guess costs, and the bounds on what a slot may ask for."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.crypto import Argon2Cost, PassphraseProvider, VaultKey
from keepstone.errors import CorruptObject, KeepstoneError, UsageError, WrongKey

pytestmark = pytest.mark.store

VAULT_KEY = VaultKey(bytes(range(32)))
SALT = bytes(range(64, 96))
CHEAP = Argon2Cost(iterations=1, memory_kib=8, lanes=1)


def cheap(passphrase: str) -> PassphraseProvider:
    return PassphraseProvider(passphrase.encode(), cost=CHEAP, weak=True)


def test_slot_is_pinned() -> None:
    slot = PassphraseProvider(b"correct horse", cost=Argon2Cost(iterations=2, memory_kib=64, lanes=2), weak=True).wrap(
        VAULT_KEY, b"context", SALT
    )

    assert slot == {
        "kind": "passphrase",
        "iterations": 2,
        "memory_kib": 64,
        "lanes": 2,
        "salt": "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=",
        "check": "nqH40tA3n5BV1CNTqp8taW/b3HEr0+P+5j5zEk8tWys=",
        "wrapped": "S9JjUU3nyLkEOlVOQkBBTJHR3ym1RrrsdE4EE5RUicMrZESGWtrxAf762HeYEL3b",
    }


def test_default_cost_is_the_documented_one_and_opens() -> None:
    provider = PassphraseProvider(b"correct horse")
    slot = provider.wrap(VAULT_KEY, b"context", SALT)

    assert (slot["iterations"], slot["memory_kib"], slot["lanes"]) == (3, 262144, 4)
    assert cheap("correct horse").unwrap(slot, b"context") == VAULT_KEY


@settings(max_examples=30)
@given(passphrase=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), context=st.binary(max_size=50))
def test_every_text_opens_its_own_slot(passphrase: str, context: bytes) -> None:
    assert cheap(passphrase).unwrap(cheap(passphrase).wrap(VAULT_KEY, context, SALT), context) == VAULT_KEY


def test_both_spellings_of_a_letter_are_one_passphrase() -> None:
    slot = cheap("caf\u00e9").wrap(VAULT_KEY, b"context", SALT)

    assert cheap("cafe\u0301").unwrap(slot, b"context") == VAULT_KEY


@pytest.mark.parametrize("wrong", ["correct hors", "correct horse ", "Correct horse", "correct horse\n", "x"])
def test_another_passphrase_is_a_wrong_key(wrong: str) -> None:
    slot = cheap("correct horse").wrap(VAULT_KEY, b"context", SALT)
    with pytest.raises(WrongKey):
        cheap(wrong).unwrap(slot, b"context")


def test_a_slot_in_another_place_does_not_open() -> None:
    slot = cheap("correct horse").wrap(VAULT_KEY, b"context", SALT)
    with pytest.raises(WrongKey):
        cheap("correct horse").unwrap(slot, b"another context")


def test_a_damaged_slot_is_told_from_a_wrong_passphrase() -> None:
    slot = cheap("correct horse").wrap(VAULT_KEY, b"context", SALT)
    wrapped = bytearray(base64.b64decode(str(slot["wrapped"])))
    for position in range(len(wrapped)):
        damaged = bytearray(wrapped)
        damaged[position] ^= 1
        with pytest.raises(CorruptObject, match="damaged"):
            cheap("correct horse").unwrap({**slot, "wrapped": base64.b64encode(damaged).decode()}, b"context")


def test_one_ciphertext_for_two_passphrases_is_of_no_use() -> None:
    # A partitioning oracle needs a slot that two passphrases get past the check of. The check value of the one is
    # not that of the other, so whatever is in `wrapped` the second one is turned away before it is looked at.
    slot = cheap("first").wrap(VAULT_KEY, b"context", SALT)
    other = cheap("second").wrap(VAULT_KEY, b"context", SALT)

    assert slot["check"] != other["check"]
    for wrapped in (slot["wrapped"], other["wrapped"], base64.b64encode(bytes(48)).decode()):
        with pytest.raises(WrongKey):
            cheap("second").unwrap({**slot, "wrapped": wrapped}, b"context")


@pytest.mark.parametrize(
    "change",
    [
        {"memory_kib": 4 * 1024 * 1024 + 1},
        {"memory_kib": 7},
        {"memory_kib": 64, "lanes": 9},
        {"iterations": 65},
        {"iterations": 0},
        {"iterations": -1},
        {"iterations": 10**30},
        {"lanes": 65},
        {"lanes": 0},
        {"lanes": "4"},
        {"salt": "AAAA"},
        {"salt": "no base64!"},
        {"salt": 5},
        {"check": "AAAA"},
        {"wrapped": "AAAA"},
        {"kind": "platform"},
        {"unknown\x1b[2J": 1},
    ],
    ids=repr,
)
def test_a_hostile_slot_is_refused_before_anything_is_computed(
    change: dict[str, str | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = cheap("correct horse").wrap(VAULT_KEY, b"context", SALT)
    monkeypatch.setattr(PassphraseProvider, "_root", lambda *_: pytest.fail("the cost was paid"))
    with pytest.raises(CorruptObject) as caught:
        cheap("correct horse").unwrap({**slot, **change}, b"context")

    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["iterations", "memory_kib", "lanes", "salt", "check", "wrapped"])
def test_a_slot_without_one_of_its_fields_is_refused(key: str) -> None:
    slot = cheap("correct horse").wrap(VAULT_KEY, b"context", SALT)
    del slot[key]
    with pytest.raises(CorruptObject):
        cheap("correct horse").unwrap(slot, b"context")


@pytest.mark.parametrize(
    "cost",
    [Argon2Cost(iterations=2), Argon2Cost(memory_kib=64 * 1024 - 1), Argon2Cost(lanes=3), CHEAP],
    ids=repr,
)
def test_a_cost_below_the_minimum_must_be_meant(cost: Argon2Cost) -> None:
    with pytest.raises(UsageError, match="below the minimum"):
        PassphraseProvider(b"correct horse", cost=cost)
    PassphraseProvider(b"correct horse", cost=cost, weak=True)
    PassphraseProvider(b"correct horse", cost=Argon2Cost(iterations=3, memory_kib=64 * 1024, lanes=4))


@pytest.mark.parametrize("passphrase", [b"", b"\xff\xfe"])
def test_what_is_no_passphrase_is_refused(passphrase: bytes) -> None:
    with pytest.raises(UsageError):
        PassphraseProvider(passphrase)


def test_too_little_memory_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: object) -> bytes:
        raise MemoryError

    slot = cheap("correct horse").wrap(VAULT_KEY, b"context", SALT)
    monkeypatch.setattr(
        "cryptography.hazmat.primitives.kdf.argon2.Argon2id",
        type(
            "Starved",
            (),
            {
                "__init__": lambda self, **_: None,
                "derive": starved,
            },
        ),
    )
    with pytest.raises(KeepstoneError, match="MiB of memory"):
        cheap("correct horse").unwrap(slot, b"context")


def test_root_key_is_plain_argon2id() -> None:
    provider = cheap("correct horse")
    expected = Argon2id(salt=SALT, length=32, iterations=1, lanes=1, memory_cost=8).derive(b"correct horse")

    assert provider._root(CHEAP, SALT) == expected
