# SPDX-License-Identifier: Apache-2.0
"""A store in memory for disk images."""

from __future__ import annotations

import pytest

from keepstone.env import Env
from tests.unit.files.points import new_store
from tests.unit.images.disk import Shelf


@pytest.fixture
def shelf(env: Env) -> Shelf:
    return Shelf(env, new_store(env))
