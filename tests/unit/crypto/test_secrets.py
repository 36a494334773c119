# SPDX-License-Identifier: Apache-2.0
"""No secret shows in what is printed: `repr`, `str`, errors with all their causes."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from dataclasses import asdict

import pyrage  # type: ignore[import-untyped]
import pytest

from keepstone.crypto import (
    Keyring,
    PassphraseProvider,
    PlatformKeyProvider,
    VaultKey,
    make_kit,
    open_frame,
    open_keyring,
    open_kit,
    open_object,
    read_keyring,
    seal_object,
)
from keepstone.errors import KeepstoneError
from tests.unit.crypto.known import STORE_ID, KnownEnv

pytestmark = pytest.mark.store


def faces(secret: bytes) -> set[str]:
    """How a secret could show in a text; from half of it on it counts."""
    half = secret[: len(secret) // 2]
    texts = {half.hex(), half.hex().upper(), repr(half)[2:-1], base64.b64encode(half).decode()[:-4]}
    texts.add(", ".join(map(str, half)))
    if half.isascii():
        texts.add(half.decode())
    return texts


def secrets_of(keyring: Keyring, platform: PlatformKeyProvider) -> set[str]:
    keys = keyring.keys
    found = [keyring.vault_key.secret, keys.id, keys.encryption, keys.metadata, keys.audit, keys.signing_seed]
    return set().union(*map(faces, [*found, platform.path.read_bytes(), b"correct horse"]))


def test_the_search_finds_a_secret_that_does_show(made: tuple[Keyring, bytes], platform: PlatformKeyProvider) -> None:
    secrets = secrets_of(made[0], platform)
    for shown in (asdict(made[0].vault_key), made[0].keys.audit.hex(), list(made[0].keys.id), b"the correct horse"):
        assert any(secret in str(shown) for secret in secrets)


def test_no_secret_in_repr_or_str(
    made: tuple[Keyring, bytes], platform: PlatformKeyProvider, passphrase: PassphraseProvider, env: KnownEnv
) -> None:
    keyring, _ = made
    identity = pyrage.x25519.Identity.generate()
    kit = open_kit(
        make_kit(env, keyring, "it", recipients=[str(identity.to_public())]),
        identity=str(identity),
    )
    shown = [keyring, keyring.keys, keyring.vault_key, platform, passphrase, kit]
    text = "\n".join(f"{thing!r} {thing} {thing:}" for thing in shown)

    assert not [secret for secret in secrets_of(keyring, platform) if secret in text]
    assert "DomainKeys(epoch=1)" in text


def test_no_secret_in_errors(
    made: tuple[Keyring, bytes], platform: PlatformKeyProvider, passphrase: PassphraseProvider
) -> None:
    keyring, stored = made
    identity = pyrage.x25519.Identity.generate()
    kit = make_kit(KnownEnv(), keyring, "it", recipients=[str(identity.to_public())])
    sealed = seal_object(keyring.keys, keyring.hashing, "kind", "name", STORE_ID, b"correct horse", bytes(32))
    secrets = secrets_of(keyring, platform)
    other = PassphraseProvider(b"correct horse battery", weak=True)

    def with_foreign_file() -> None:
        platform.path.write_bytes(bytes(32))
        open_keyring(stored, STORE_ID, [platform])

    def with_open_file() -> None:
        platform.path.chmod(0o644)
        open_keyring(stored, STORE_ID, [platform])

    failures: list[Callable[[], object]] = [
        lambda: open_keyring(stored[:-1], STORE_ID, [passphrase]),
        lambda: open_keyring(stored, bytes(16), [passphrase]),
        lambda: open_keyring(stored, STORE_ID, [other]),
        lambda: read_keyring(stored, STORE_ID, VaultKey(bytes(32))),
        with_foreign_file,
        with_open_file,
        lambda: PassphraseProvider(b"correct horse\xff"),
        lambda: PassphraseProvider(b""),
        lambda: open_object(keyring.keys, keyring.hashing, "kind", "other", STORE_ID, sealed),
        lambda: open_object(keyring.keys, keyring.hashing, "kind", "name", STORE_ID, sealed[:-1]),
        lambda: open_frame(keyring.keys.id, sealed, b"", memoryview(bytearray(len(sealed) - 16))),
        lambda: open_kit(kit, passphrase="correct horse"),
        lambda: open_kit(kit[:-9], identity=str(identity)),
        lambda: open_kit(kit, identity="correct horse"),
    ]
    for failure in failures:
        with pytest.raises(KeepstoneError) as caught:
            failure()
        causes = traceback.TracebackException.from_exception(caught.value)
        text = "".join(line for line in causes.format_exception_only()) + repr(caught.value)
        while causes.__cause__ or causes.__context__:
            following = causes.__cause__ or causes.__context__
            assert following is not None
            causes = following
            text += "".join(causes.format_exception_only())

        assert not [secret for secret in secrets if secret in text], failure
