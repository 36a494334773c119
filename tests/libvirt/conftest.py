# SPDX-License-Identifier: Apache-2.0
"""One libvirt, and one guest in it for all tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.libvirt.daemon import Daemon, Little
from tests.libvirt.yard import Yard
from tests.machines.guest import make_disk, tools

__all__: list[str] = []


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    tools()
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture(scope="session")
def little(daemon: Daemon) -> Iterator[Little]:
    """It has two disks: one that keeps its record of changes, and one that cannot."""
    folder = daemon.folder / "little"
    folder.mkdir()
    disks = [("vda", make_disk(folder / "d0.qcow2", 96)), ("vdb", make_disk(folder / "d1.raw", 48, "raw"))]
    little = Little(daemon, disks, "little")
    little.sh("dd if=/dev/urandom of=/a/old bs=1M count=40 2>/dev/null; date > /b/small; sync")
    little.agent()
    yield little
    little.close()


@pytest.fixture(scope="module")
def yard(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """A store with one point of it."""
    yard = Yard(little, tmp_path_factory.mktemp("yard"))
    yard.backup()
    return yard
