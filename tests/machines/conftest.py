# SPDX-License-Identifier: Apache-2.0
"""One guest for all tests that leave it as it is, and a store for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machines.guest import Guest, make_disk
from tests.machines.yard import Yard

__all__: list[str] = []


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """It has two disks: one that keeps its record of changes itself, and one that cannot."""
    folder = tmp_path_factory.mktemp("guest")
    disks = [("d0", make_disk(folder / "d0.qcow2", 96)), ("d1", make_disk(folder / "d1.raw", 48, "raw"))]
    with Guest(folder, disks) as guest:
        guest.sh("dd if=/dev/urandom of=/a/old bs=1M count=40 2>/dev/null; date > /b/small; sync")
        yield guest


@pytest.fixture(scope="module")
def yard(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """A store with one point of it."""
    yard = Yard(guest, tmp_path_factory.mktemp("yard"))
    yard.backup()
    return yard
