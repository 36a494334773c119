# SPDX-License-Identifier: Apache-2.0
"""A store in memory for disk images."""

from __future__ import annotations

import pytest

from keepstone.crypto import Argon2Cost, PassphraseProvider
from keepstone.env import Env
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from tests.unit.images.disk import Shelf


@pytest.fixture
def env() -> Env:
    return Env(threads=2)


@pytest.fixture
def shelf(env: Env) -> Shelf:
    provider = PassphraseProvider(b"x", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)
    return Shelf(env, Store.init(env, MemoryStorage(env), [provider]))
