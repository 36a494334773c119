# SPDX-License-Identifier: Apache-2.0
"""Keys of every kind, made in the known world."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.crypto import (
    Argon2Cost,
    DomainKeys,
    Hashing,
    Keyring,
    PassphraseProvider,
    PlatformKeyProvider,
    create_keyring,
    hashing,
)
from tests.unit.crypto.known import STORE_ID, KnownEnv


@pytest.fixture
def env() -> KnownEnv:
    return KnownEnv()


@pytest.fixture(params=["blake3", "hmac-sha256"])
def profile(request: pytest.FixtureRequest) -> Hashing:
    """Each hash profile in turn."""
    return hashing(request.param)


@pytest.fixture
def keys() -> DomainKeys:
    return DomainKeys.from_bytes(7, bytes(range(160)))


@pytest.fixture
def passphrase() -> PassphraseProvider:
    return PassphraseProvider(b"correct horse", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=2), weak=True)


@pytest.fixture
def platform(env: KnownEnv, tmp_path: Path) -> PlatformKeyProvider:
    return PlatformKeyProvider.create(env, tmp_path / "keys" / "store.key")


@pytest.fixture
def made(
    env: KnownEnv, profile: Hashing, platform: PlatformKeyProvider, passphrase: PassphraseProvider
) -> tuple[Keyring, bytes]:
    """A keyring and its keys object, opened by `platform` and `passphrase`."""
    return create_keyring(env, profile, STORE_ID, [platform, passphrase])
