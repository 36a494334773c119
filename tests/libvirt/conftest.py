# SPDX-License-Identifier: Apache-2.0
"""One libvirt, and one guest in it for all tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.libvirt.daemon import Daemon, Little, with_two_disks
from tests.libvirt.yard import Yard
from tests.machines.guest import tools

__all__: list[str] = []


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    tools()
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture(scope="session")
def little(daemon: Daemon) -> Iterator[Little]:
    little = with_two_disks(daemon, "little", 96, 48, old=40)
    yield little
    little.close()


@pytest.fixture(scope="module")
def yard(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """A store with one point of it."""
    yard = Yard(little, tmp_path_factory.mktemp("yard"))
    yard.backup()
    return yard
