# SPDX-License-Identifier: Apache-2.0
"""What tests of points share: a store in memory, for files or for disk images; some rooms have others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keepstone.env import Env

if TYPE_CHECKING:
    from keepstone.store import Store
    from tests.unit.images.disk import Shelf

__all__: list[str] = []


@pytest.fixture
def env() -> Env:
    """The real one, with two threads."""
    return Env(threads=2)


@pytest.fixture
def store(env: Env) -> Store:
    """An empty one."""
    from tests.unit.files.points import new_store

    return new_store(env)


@pytest.fixture
def shelf(env: Env, store: Store) -> Shelf:
    """The same for disk images."""
    from tests.unit.images.disk import Shelf

    return Shelf(env, store)
